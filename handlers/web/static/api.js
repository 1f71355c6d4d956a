// The HTTP API: one function to call it, one class for its errors, and sign-in
// sessions that renew themselves before they run out.

import { lang, t } from './i18n.js';

/** An error the server explained (problem+json), or status 0 when it could not be reached. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || body?.title || t(status === 0 ? 'error.offline' : 'error.server'));
    this.status = status;
    this.code = body?.code ?? '';
    this.fields = body?.errors ?? [];
  }

  /** The sentence to show, with what is wrong with each field. */
  get text() {
    const details = this.fields.map((f) => f.message).filter(Boolean);
    return details.length ? `${this.message} — ${details.join('; ')}` : this.message;
  }
}

let skew = 0;

/** The server's clock, as far as its Date headers tell. */
export const serverNow = () => Date.now() + skew;

/**
 * Calls the API. Options: token, or session (member or customer) to be known by this
 * browser's cookies; organization, body, query; key, the same for each try of one press,
 * so that what is asked twice is done once. Returns the parsed answer.
 */
export async function call(method, path, { token, session, organization, body, query, key = newKey() } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null) url.searchParams.set(name, value);
  }
  const headers = { Accept: 'application/json', lang };
  if (token) headers.Authorization = `Bearer ${token}`;
  else if (session) headers['X-Session'] = session;
  if (organization) headers['X-APP-ID'] = organization;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (method === 'PUT' || method === 'POST') headers['Idempotency-Key'] = key;

  let response;
  try {
    response = await fetch(url, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      signal: AbortSignal.timeout(15000),
    });
  } catch {
    throw new Problem(0); // no network, or no answer in time
  }
  const date = Date.parse(response.headers.get('Date') ?? '');
  // The header has whole seconds, so small differences are not a wrong clock.
  if (!Number.isNaN(date)) skew = Math.abs(date - Date.now()) > 2500 ? date - Date.now() : 0;

  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, answer);
  return answer;
}

/** A key for one press. crypto.randomUUID exists only on secure origins; a clinic may run on plain http inside. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

/** Small values kept in this browser. Without storage the page still works until it is closed. */
export const kept = {
  get(key, store = 'localStorage') {
    try {
      return JSON.parse(window[store].getItem(key));
    } catch {
      return null;
    }
  },
  set(key, value, store = 'localStorage') {
    try {
      if (value === null) window[store].removeItem(key);
      else window[store].setItem(key, JSON.stringify(value));
    } catch {
      // private browsing may refuse; nothing else depends on it
    }
  },
  works() {
    const key = 'ns.works';
    kept.set(key, true);
    const works = kept.get(key) === true;
    kept.set(key, null);
    return works;
  },
  /** The keys with a prefix, but one. */
  others(prefix, but) {
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(prefix) && key !== but);
    } catch {
      return [];
    }
  },
};

// In a frame of another site cookies that are ours alone don't come; a browser that
// keeps nothing for us keeps no cookies either.
const inMemory = window.top !== window || !kept.works();

/**
 * A signed-in person: kind is member or customer. Their tokens are cookies that no script
 * can read; what this browser keeps of them is who they are and when to renew. Where
 * cookies don't come the tokens are kept in memory, until the page is closed.
 */
export class Session {
  constructor(kind, organization) {
    this.kind = kind;
    this.prefix = kind === 'member' ? 'ns.member.' : 'ns.session.';
    this.organization = organization;
    this.tokens = null; // where they are kept in memory
    if (kept.get(this.key)?.refreshToken) kept.set(this.key, null); // kept by older versions
  }

  get key() {
    return this.prefix + this.organization;
  }

  /** What is known of the person: user and expires, the moment the access token does. */
  get known() {
    return inMemory ? this.tokens : kept.get(this.key);
  }

  get user() {
    return this.known?.user ?? null;
  }

  get signedIn() {
    return Boolean(this.known);
  }

  /** How a live connection is known: by cookies, unless there is a token. */
  get cookies() {
    return inMemory ? null : this.kind;
  }

  get options() {
    return { organization: this.organization, session: this.cookies };
  }

  /** Sends a code to a contact; proof is that a person asks. */
  requestCode(contact, proof) {
    return call('POST', '/auth/otp/request', { organization: this.organization, body: { ...contact, ...proof, isOrgMember: this.kind === 'member' } });
  }

  async verifyCode(contact, code) {
    this.take(await call('POST', '/auth/otp/verify', { ...this.options, body: { ...contact, isOrgMember: this.kind === 'member', code } }));
    // A browser holds one session of a kind: that of another organization was replaced.
    if (!inMemory) kept.others(this.prefix, this.key).forEach((key) => kept.set(key, null));
  }

  take(answer) {
    const known = { user: answer.user, expires: Date.parse(answer.accessTokenExpiresAt) };
    if (inMemory) this.tokens = { ...known, access: answer.accessToken, refresh: answer.refreshToken };
    else kept.set(this.key, known);
  }

  /** Renews the session unless its access token is good for another minute. The token, where there is one to see. */
  async token(fresh = false) {
    if (fresh || !(this.known?.expires - serverNow() > 60_000)) {
      this.renewing ??= this.renew().finally(() => { this.renewing = null; });
      await this.renewing;
    }
    return this.tokens?.access;
  }

  async renew() {
    const before = this.known?.expires;
    const run = async () => {
      if (!this.signedIn) throw new Problem(401);
      if (this.known.expires !== before) return; // another tab has renewed it
      try {
        this.take(await call('POST', '/auth/token', { ...this.options, body: { refreshToken: this.tokens?.refresh } }));
      } catch (problem) {
        if (problem.status === 401 || problem.status === 403) this.forget();
        throw problem;
      }
    };
    return navigator.locks ? navigator.locks.request(this.key, run) : run();
  }

  /** Calls the API as this person; a session refused once is renewed and tried again. */
  async call(method, path, options = {}) {
    const key = newKey();
    const send = async (fresh) => call(method, path, { key, ...options, ...this.options, token: await this.token(fresh) });
    try {
      return await send(false);
    } catch (problem) {
      if (problem.status !== 401 || !this.signedIn) throw problem;
      return send(true);
    }
  }

  async signOut() {
    const refreshToken = this.tokens?.refresh;
    this.forget();
    await call('POST', '/auth/logout', { ...this.options, body: { refreshToken } });
  }

  forget() {
    this.tokens = null;
    if (!inMemory) kept.set(this.key, null);
  }
}

/** A phone number or e-mail address as people type them, as the API wants them. Null when it is neither. */
export function contact(typed) {
  const text = latinDigits(typed).trim();
  if (/^\S+@\S+\.\S+$/.test(text)) return { method: 'email', email: text };
  const phone = text.replace(/[\s().-]/g, '').replace(/^00/, '+');
  // Without a country code it is a number of the organization's country, which the server knows.
  return /^\+?\d{7,15}$/.test(phone) ? { method: 'sms', phoneNumber: phone } : null;
}

/** Arabic keyboards type ٠١٢; the API wants 012. */
export const latinDigits = (text) =>
  String(text).replace(/[٠-٩]/g, (d) => d.charCodeAt(0) - 0x660).replace(/[۰-۹]/g, (d) => d.charCodeAt(0) - 0x6f0);
