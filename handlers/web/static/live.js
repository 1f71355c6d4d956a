// The live connection, through the published Centrifuge client.

import './vendor/centrifuge.js';

/**
 * One connection with one subscription. It comes back by itself: after a lost
 * network, a restarted server, a refused token (renewed first), and when the tab wakes.
 *
 * getToken(fresh) gives the token for the connect command; onSnapshot and onEvent
 * receive the channel's data; onRefused is called when the server keeps saying
 * that the token or channel is not ours.
 */
export class Live {
  constructor({ channel, getToken, sign, onSnapshot, onEvent, onRefused }) {
    this.sign = sign;
    this.closed = false;
    this.refusals = 0;
    this.fresh = false;
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    this.client = new globalThis.Centrifuge(`${scheme}://${location.host}/connection/websocket`, {
      name: 'now-serving-web',
      minReconnectDelay: 400,
      maxReconnectDelay: 8000,
      getToken: async () => {
        try {
          const token = await getToken(this.fresh);
          this.fresh = false;
          return token;
        } catch (problem) {
          if (problem.status === 401 || problem.status === 403) {
            onRefused?.();
            throw new globalThis.Centrifuge.UnauthorizedError('signed out');
          }
          throw problem; // unreachable: the client tries again
        }
      },
    });
    this.client.on('connecting', () => sign.set('connecting'));
    this.client.on('disconnected', (context) => {
      sign.set('disconnected');
      // From 3500 on, and for "unauthorized" (code 2), the client gives up by itself.
      // A token that ran out is the usual reason: ask for a fresh one. A screen on a wall has
      // nobody to press reload, so the attempts grow rare but never end.
      if (this.closed || context.code === 0) return;
      this.refusals += 1;
      if (this.refusals === 4) onRefused?.();
      if (this.closed) return;
      this.fresh = true;
      this.client.setToken('');
      this.retry = setTimeout(() => this.client.connect(), Math.min(30000, 1000 * 2 ** this.refusals));
    });

    this.subscription = this.client.newSubscription(channel);
    this.subscription.on('subscribed', (context) => {
      this.refusals = 0;
      sign.fresh();
      if (context.data) onSnapshot(context.data);
    });
    this.subscription.on('publication', (context) => {
      sign.fresh();
      onEvent(context.data);
    });
    this.subscription.on('subscribing', () => sign.set('connecting'));
    this.subscription.on('unsubscribed', (context) => {
      if (this.closed || context.code === 0) return;
      sign.set('disconnected');
      onRefused?.();
    });
    this.subscription.subscribe();
    this.client.connect();

    this.wake = () => {
      if (document.visibilityState !== 'visible' || this.closed) return;
      // A phone that slept may hold a dead socket for half a minute before it
      // notices. Asking for anything finds out at once.
      if (this.client.state === 'connected' && Date.now() - (sign.at ?? 0) > 20000) this.resync();
      else if (this.client.state === 'disconnected') this.client.connect();
    };
    document.addEventListener('visibilitychange', this.wake);
    addEventListener('pageshow', this.wake);
  }

  /** Asks for the snapshot again. */
  resync() {
    this.subscription.unsubscribe();
    this.subscription.subscribe();
  }

  close() {
    this.closed = true;
    clearTimeout(this.retry);
    document.removeEventListener('visibilitychange', this.wake);
    removeEventListener('pageshow', this.wake);
    this.client.disconnect();
  }
}
