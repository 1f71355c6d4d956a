// The one-time set-up page: makes the first account key with the token of the
// link that the first start prints, and shows it once.

import { call, Problem } from './api.js';
import { hook, setText } from './dom.js';
import { t } from './i18n.js';
import { start } from './shell.js';

start();

// The token leaves the address at once, so that it stays in no history.
const token = location.hash.slice(1);
history.replaceState(null, '', location.pathname + location.search);

const make = hook('make-key');
const made = document.querySelector('.made');

if (!token) {
  make.hidden = true;
  setText(hook('problem'), t('setup.noToken'));
}

make.addEventListener('click', async () => {
  make.disabled = true;
  setText(hook('problem'), '');
  try {
    const { result } = await call('POST', '/auth/setup', { body: { token } });
    setText(hook('key'), result.key);
    made.hidden = false;
    make.hidden = true;
    setText(document.getElementById('spoken'), t('setup.done'));
    hook('key').focus();
  } catch (error) {
    setText(hook('problem'), error instanceof Problem ? error.text : String(error));
    make.disabled = false;
  }
});

hook('copy').addEventListener('click', async () => {
  await navigator.clipboard.writeText(hook('key').textContent);
  setText(hook('copy'), t('setup.copied'));
});
