// The small sign on every page that says whether the page is alive.

import { ago, clock, lang, onLang, t } from './i18n.js';
import { hook, setText } from './dom.js';

/**
 * The sign: connection state and the time of the last update. Every page has one.
 * Anything that talks to the server reports here; the sign never guesses. States:
 * idle (nothing is live, and nothing is said), connecting, connected, disconnected.
 */
export class Sign {
  constructor({ languages = () => [lang] } = {}) {
    this.languages = languages;
    this.state = 'idle';
    this.live = false; // whether there is, or should be, a live connection
    this.at = null;
    this.everConnected = false;
    this.watchers = new Set();
    this.show();
    setInterval(() => this.show(), 1000);
    onLang(() => this.show());
    addEventListener('offline', () => this.set('disconnected'));
    addEventListener('online', () => this.state === 'disconnected' && this.set(this.live ? 'connecting' : 'idle'));
  }

  onChange(watcher) {
    this.watchers.add(watcher);
  }

  set(state) {
    const changed = state !== this.state;
    this.state = state;
    if (state !== 'disconnected') this.live = state !== 'idle';
    if (state === 'connected') this.everConnected = true;
    this.show();
    if (changed) for (const watcher of this.watchers) watcher(state);
  }

  /** Something true about now has just come over the live connection. */
  fresh() {
    this.at = Date.now();
    this.set('connected');
  }

  /** Something true about now was the answer to a question: that says nothing about the live connection. */
  heard() {
    this.at = Date.now();
    this.show();
  }

  /** Nothing here is live, or has to be. */
  rest() {
    this.at = null;
    this.everConnected = false;
    this.set('idle');
  }

  label(language) {
    if (this.state === 'idle') return '';
    if (this.state === 'connected') return t('live.connected', {}, language);
    if (this.state === 'disconnected') return t('live.disconnected', {}, language);
    return t(this.everConnected ? 'live.reconnecting' : 'live.connecting', {}, language);
  }

  updated(language) {
    if (this.at === null) return '';
    if (this.state === 'connected' || this.state === 'idle') return t('live.updated', { ago: ago(Date.now() - this.at, language) }, language);
    return t('live.lastUpdate', { time: clock(this.at, language) }, language);
  }

  show() {
    const sign = hook('connection');
    if (!sign) return;
    sign.dataset.state = this.state;
    document.documentElement.dataset.connection = this.state;
    document.documentElement.toggleAttribute('data-stale', this.at !== null
      && (this.state === 'disconnected' || this.state === 'connecting' && this.everConnected));
    setText(sign.querySelector('.label'), this.languages().map((l) => this.label(l)).join(' · '));
    setText(hook('updated'), this.languages().map((l) => this.updated(l)).filter(Boolean).join(' · '));
  }
}
