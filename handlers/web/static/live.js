// The live connection, through the published Centrifuge client.

import { serverNow } from './api.js';
import './vendor/centrifuge.js';

const surplus = 3504; // the close code of a connection that is one too many

/**
 * One connection with one subscription. It comes back by itself: after a lost
 * network, a restarted server, a refused token (renewed first), and when the tab wakes.
 *
 * who is a Session, or has a token() alone; onSnapshot and onEvent receive the channel's
 * data; onSurplus is called when too many screens show the same, and this one rests until
 * open() is called or the tab is turned to; onRefused is called when the server keeps saying that the token or channel is not
 * ours. A session in cookies is renewed before it connects, and again before it expires:
 * the browser sends cookies only when a connection begins.
 */
export class Live {
  constructor({ channel, who, sign, onSnapshot, onEvent, onRefused, onSurplus }) {
    this.who = who;
    this.sign = sign;
    this.onRefused = onRefused;
    this.closed = false;
    this.refusals = 0;
    this.fresh = false;
    sign.rest(); // an earlier connection is another story
    sign.set('connecting');
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const query = who.cookies ? `?session=${who.cookies}` : '';
    this.client = new globalThis.Centrifuge(`${scheme}://${location.host}/connection/websocket${query}`, {
      name: 'now-serving-web',
      minReconnectDelay: 400,
      maxReconnectDelay: 8000,
      getToken: who.cookies ? null : () => this.token(),
    });
    this.client.on('connecting', () => sign.set('connecting'));
    this.client.on('connected', () => this.renewLater());
    this.client.on('disconnected', (context) => {
      clearTimeout(this.renewal);
      if (this.closed || context.code === 0) return; // by close or renewLater
      // The same ticket is open on too many screens. Reconnecting at once would only
      // disconnect another one, so this one waits until it is used.
      if (context.code === surplus) {
        sign.set('disconnected'); // what is shown is how it was then
        onSurplus?.();
        return;
      }
      sign.set('disconnected');
      // From 3500 on, and for "unauthorized" (code 2), the client gives up by itself.
      // A token that ran out is the usual reason: ask for a fresh one. A wall screen has no
      // user to reload it, so the attempts become rarer but never end.
      this.refusals += 1;
      if (this.refusals === 4) onRefused?.();
      if (this.closed) return;
      this.fresh = true;
      this.client.setToken('');
      this.retry = setTimeout(() => this.open(), Math.min(30000, 1000 * 2 ** this.refusals));
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
    this.open();

    this.wake = () => {
      if (document.visibilityState !== 'visible' || this.closed) return;
      // A phone that slept may hold a dead socket for half a minute before it
      // notices. Asking for anything finds out at once.
      if (this.client.state === 'connected' && Date.now() - (sign.at ?? 0) > 20000) this.resync();
      else if (this.client.state === 'disconnected') this.open();
    };
    document.addEventListener('visibilitychange', this.wake);
    addEventListener('pageshow', this.wake);
  }

  /** A token that is good, or a renewed cookie. Unauthorized when the person has to sign in again. */
  async token() {
    try {
      const token = await this.who.token(this.fresh);
      this.fresh = false;
      return token;
    } catch (problem) {
      if (problem.status === 401 || problem.status === 403) {
        this.onRefused?.();
        throw new globalThis.Centrifuge.UnauthorizedError('signed out');
      }
      throw problem; // unreachable: the client tries again
    }
  }

  async open() {
    try {
      if (this.who.cookies) await this.token();
    } catch (problem) {
      if (problem instanceof globalThis.Centrifuge.UnauthorizedError) return;
    }
    if (!this.closed) this.client.connect();
  }

  /** Connects anew with a renewed cookie shortly before this connection's expires. */
  renewLater() {
    clearTimeout(this.renewal);
    const left = this.who.known?.expires - serverNow();
    if (!this.who.cookies || Number.isNaN(left)) return;
    this.renewal = setTimeout(() => {
      this.client.disconnect();
      this.open();
    }, Math.max(left - 45_000, 5_000));
  }

  /** Asks for the snapshot again. */
  resync() {
    this.subscription.unsubscribe();
    this.subscription.subscribe();
  }

  close() {
    this.closed = true;
    clearTimeout(this.retry);
    clearTimeout(this.renewal);
    document.removeEventListener('visibilitychange', this.wake);
    removeEventListener('pageshow', this.wake);
    this.client.disconnect();
  }
}
