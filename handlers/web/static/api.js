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

/** Calls the API. Options: token, organization, body, query. Returns the parsed answer. */
export async function call(method, path, { token, organization, body, query } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null) url.searchParams.set(name, value);
  }
  const headers = { Accept: 'application/json', lang };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (organization) headers['X-APP-ID'] = organization;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (method === 'PUT' || method === 'POST') headers['Idempotency-Key'] = newKey();

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

// crypto.randomUUID exists only on secure origins; a clinic may run on plain http inside.
function newKey() {
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
};

/**
 * A signed-in person. The refresh token is kept in this browser under `key`; access
 * tokens live in memory and are renewed a minute before they expire.
 */
export class Session {
  constructor(key, organization) {
    this.key = key;
    this.organization = organization;
    this.access = null;
    this.expires = 0;
    this.user = kept.get(key)?.user ?? null;
    this.refreshToken = kept.get(key)?.refreshToken ?? null;
  }

  get signedIn() {
    return Boolean(this.refreshToken);
  }

  requestCode(contact, isOrgMember = false) {
    return call('POST', '/auth/otp/request', { organization: this.organization, body: { ...contact, isOrgMember } });
  }

  async verifyCode(contact, code, isOrgMember = false) {
    this.take(await call('POST', '/auth/otp/verify', { organization: this.organization, body: { ...contact, isOrgMember, code } }));
  }

  take(answer) {
    this.access = answer.accessToken;
    this.expires = Date.parse(answer.accessTokenExpiresAt) || serverNow() + 10 * 60_000;
    this.refreshToken = answer.refreshToken ?? this.refreshToken;
    this.user = answer.user ?? this.user;
    kept.set(this.key, { refreshToken: this.refreshToken, user: this.user });
  }

  /** An access token that is good for at least another minute. */
  async token(fresh = false) {
    if (!fresh && this.access && this.expires - serverNow() > 60_000) return this.access;
    this.renewing ??= this.renew().finally(() => { this.renewing = null; });
    await this.renewing;
    return this.access;
  }

  async renew() {
    // Another tab may have renewed meanwhile and been given a new refresh token.
    const run = async () => {
      const refreshToken = kept.get(this.key)?.refreshToken ?? this.refreshToken;
      if (!refreshToken) throw new Problem(401);
      try {
        this.take(await call('POST', '/auth/token', { organization: this.organization, body: { refreshToken } }));
      } catch (problem) {
        if (problem.status === 401 || problem.status === 403) this.forget();
        throw problem;
      }
    };
    return navigator.locks ? navigator.locks.request(this.key, run) : run();
  }

  /** Calls the API as this person; a token refused once is renewed and tried again. */
  async call(method, path, options = {}) {
    const send = async (fresh) =>
      call(method, path, { ...options, organization: this.organization, token: await this.token(fresh) });
    try {
      return await send(false);
    } catch (problem) {
      if (problem.status !== 401 || !this.refreshToken) throw problem;
      return send(true);
    }
  }

  async signOut() {
    const refreshToken = this.refreshToken;
    this.forget();
    if (refreshToken) await call('POST', '/auth/logout', { organization: this.organization, body: { refreshToken } });
  }

  forget() {
    this.access = null;
    this.refreshToken = null;
    this.user = null;
    kept.set(this.key, null);
  }
}

/** A phone number or e-mail address as people type them, as the API wants them. Null when it is neither. */
export function contact(typed) {
  const text = latinDigits(typed).trim();
  if (/^\S+@\S+\.\S+$/.test(text)) return { method: 'email', email: text };
  const phone = text.replace(/[\s().-]/g, '').replace(/^00/, '+');
  return /^\+\d{7,15}$/.test(phone) ? { method: 'sms', phoneNumber: phone } : null;
}

/** Arabic keyboards type ٠١٢; the API wants 012. */
export const latinDigits = (text) =>
  String(text).replace(/[٠-٩]/g, (d) => d.charCodeAt(0) - 0x660).replace(/[۰-۹]/g, (d) => d.charCodeAt(0) - 0x6f0);
