// The home page: what this is and where to go on.

import { kept } from './api.js';
import { start } from './shell.js';
import { Sign } from './sign.js';

start();
const sign = new Sign();

async function probe() {
  try {
    const response = await fetch('/readyz', { cache: 'no-store', signal: AbortSignal.timeout(8000) });
    if (response.ok) sign.rest();
    else sign.set('disconnected');
  } catch {
    sign.set('disconnected');
  }
}

const form = document.getElementById('patient');
form.elements.organization.value = kept.get('ns.organization') ?? '';
form.addEventListener('submit', (event) => {
  event.preventDefault();
  const organization = form.elements.organization.value.trim();
  if (organization) location.assign(`/join/${encodeURIComponent(organization)}`);
});

probe();
setInterval(probe, 15000);
