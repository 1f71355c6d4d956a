// What every page starts with: texts, the language and theme buttons, and a few
// things of the device (sound, vibration, a screen that stays on).

import { apply, lang, onLang, setLang, t } from './i18n.js';
import { kept } from './api.js';

const themes = ['auto', 'light', 'dark'];

/** Prepares the page: texts in place, buttons alive. */
export function start() {
  const wanted = new URLSearchParams(location.search).get('theme') ?? kept.get('ns.theme');
  theme(themes.includes(wanted) ? wanted : 'auto');
  apply();
  const language = document.getElementById('language');
  language?.addEventListener('click', () => setLang(lang === 'ar' ? 'en' : 'ar'));
  const button = document.getElementById('theme');
  button?.addEventListener('click', () => {
    const dark = document.documentElement.dataset.theme === 'dark'
      || (!document.documentElement.dataset.theme && matchMedia('(prefers-color-scheme: dark)').matches);
    theme(dark ? 'light' : 'dark');
    kept.set('ns.theme', dark ? 'light' : 'dark');
  });
  const other = () => {
    if (!language) return;
    language.textContent = lang === 'ar' ? 'English' : 'العربية';
    language.lang = lang === 'ar' ? 'en' : 'ar';
  };
  other();
  onLang(other);
}

function theme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

/** Two soft notes, falling: heard across a room without startling anyone. */
export class Chime {
  /** Browsers allow sound only after a person touched the page: call this from a click. */
  async enable() {
    this.context ??= new AudioContext();
    await this.context.resume();
    return this.on;
  }

  get on() {
    return this.context?.state === 'running';
  }

  async disable() {
    await this.context?.suspend();
  }

  /** Plays and resolves when the sound is over. */
  play() {
    if (!this.on) return Promise.resolve();
    const begin = this.context.currentTime + 0.02;
    [[659.25, 0], [523.25, 0.38]].forEach(([frequency, delay]) => {
      for (const [multiple, level] of [[1, 0.34], [2, 0.09], [3, 0.03]]) {
        const tone = this.context.createOscillator();
        const volume = this.context.createGain();
        tone.frequency.value = frequency * multiple;
        volume.gain.setValueAtTime(0, begin + delay);
        volume.gain.linearRampToValueAtTime(level, begin + delay + 0.015);
        volume.gain.exponentialRampToValueAtTime(0.0001, begin + delay + 1.3);
        tone.connect(volume).connect(this.context.destination);
        tone.start(begin + delay);
        tone.stop(begin + delay + 1.35);
      }
    });
    return new Promise((resolve) => { setTimeout(resolve, 1500); });
  }
}

/** Keeps the screen on while the page is visible. Returns a function that stops. */
export function stayAwake() {
  let lock = null;
  let wanted = true;
  const ask = async () => {
    if (!wanted || document.visibilityState !== 'visible' || !navigator.wakeLock) return;
    try {
      lock = await navigator.wakeLock.request('screen');
    } catch {
      // low battery or a refused permission: the page works, the screen may dim
    }
  };
  ask();
  document.addEventListener('visibilitychange', ask);
  return () => {
    wanted = false;
    document.removeEventListener('visibilitychange', ask);
    lock?.release();
  };
}

/** Asks before doing something that cannot be undone. Resolves to true or false. */
export function confirmed(dialog) {
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

/** Copies a text and says whether that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return t('copied');
  } catch {
    return t('copyFailed');
  }
}
