// Proof that a person asks for a one-time code: Cloudflare Turnstile and Google reCAPTCHA v3,
// those that the server is set up with and the page names. Nothing is loaded from them before
// the form is used, and each proof works once.

import { Problem } from './api.js';
import { h } from './dom.js';
import { lang, t } from './i18n.js';

const loadLimit = 15_000;
const quietLimit = 30_000; // for what asks the person nothing

const checks = ['turnstile', 'recaptcha'].flatMap((name) => {
  const meta = document.querySelector(`meta[name="${name}"]`);
  return meta ? [{ name, key: meta.content, script: new URL(meta.dataset.script), loading: null }] : [];
});

let stop = () => {}; // ends the proof under way

/** Loads what will be needed soon. */
export function prepareProof() {
  for (const check of checks) load(check).catch(() => {}); // said when it is needed
}

/** Calls send with a fresh proof, which is empty where none is asked for. */
export async function withProof(send) {
  try {
    return await send(await prove());
  } catch (problem) {
    if (problem.code === 'AUT-CAPTCHA') throw new Problem(problem.status, { detail: t('person.refused') });
    throw problem;
  }
}

/** Gives up the proof under way: the person went elsewhere. */
export const cancelProof = () => stop();

/** What has to be said of the checks beside the form. */
export const proofNote = () =>
  checks.some(({ name }) => name === 'recaptcha') && h('p', { class: 'hint proof-note' }, t('person.recaptcha'));

async function prove() {
  stop();
  if (checks.length === 0) return {};
  const attempt = new AbortController();
  stop = () => attempt.abort();
  const given = new Promise((_, reject) => {
    attempt.signal.addEventListener('abort', () => reject(failure('failed')));
  });
  try {
    return Object.fromEntries(await Promise.race([given, Promise.all(checks.map(async (check) => {
      await load(check);
      attempt.signal.throwIfAborted();
      return [`${check.name}Token`, await solve[check.name](check, attempt.signal)];
    }))]));
  } finally {
    attempt.abort();
  }
}

const failure = (key, check) => new Problem(0, { detail: t(`person.${key}`, { host: `\u2066${check?.script.host}\u2069` }) });

/** Loads a check's script once; after a failure the next call tries again. */
function load(check) {
  check.loading ??= new Promise((resolve, reject) => {
    const url = new URL(check.script);
    url.searchParams.set('render', check.name === 'recaptcha' ? check.key : 'explicit');
    const script = h('script', { src: url.href });
    const settle = () => {
      clearTimeout(timer);
      if (check.name === 'recaptcha' ? globalThis.grecaptcha : globalThis.turnstile) {
        resolve();
        return;
      }
      script.remove();
      check.loading = null;
      reject(failure('unreachable', check));
    };
    const timer = setTimeout(settle, loadLimit);
    script.addEventListener('load', settle);
    script.addEventListener('error', settle);
    document.head.append(script);
  });
  return check.loading;
}

/** A promise of a token. It fails when nothing comes in time, unless the person is being asked. */
function token(check, run) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(failure('unreachable', check)), quietLimit);
    const settled = (settle) => (value) => { clearTimeout(timer); settle(value); };
    const failed = settled(() => reject(failure('failed')));
    try {
      run({ resolve: settled(resolve), failed, asking: () => clearTimeout(timer) });
    } catch {
      failed(); // a key it does not take, say
    }
  });
}

const solve = {
  // A widget for each proof, gone with it. Most people never see one.
  turnstile: (check, signal) => token(check, ({ resolve, failed, asking }) => {
    const box = askingBox();
    signal.addEventListener('abort', () => box.remove());
    const widget = globalThis.turnstile.render(box.holder, {
      sitekey: check.key,
      action: 'request_code',
      language: lang,
      theme: document.documentElement.dataset.theme ?? 'auto',
      size: 'flexible',
      appearance: 'interaction-only',
      callback: resolve,
      'error-callback': () => { failed(); return true; },
      'timeout-callback': failed,
      'unsupported-callback': failed,
      'before-interactive-callback': () => { asking(); box.ask(); },
    });
    signal.addEventListener('abort', () => globalThis.turnstile.remove(widget));
  }),

  recaptcha: (check) => token(check, ({ resolve, failed }) => {
    globalThis.grecaptcha.ready(async () => {
      try {
        resolve(await globalThis.grecaptcha.execute(check.key, { action: 'request_code' }));
      } catch {
        failed();
      }
    });
  }),
};

/** Where a check may ask the person something: outside what the page draws anew, and with the keyboard focus then. */
function askingBox() {
  const text = h('p', { id: 'person-text' });
  const holder = h('div');
  const box = h('section', { class: 'person', tabindex: '-1', 'aria-labelledby': text.id, 'data-testid': 'person' }, text, holder);
  document.getElementById('main').after(box);
  return {
    holder,
    ask() {
      text.textContent = t('person.ask');
      box.classList.add('asks');
      box.focus();
    },
    remove: () => box.remove(),
  };
}
