// Languages: which one, what it says, and how it writes numbers, places and times.

import { messages } from './messages.js';

const tags = { en: 'en', ar: 'ar-u-nu-latn' };
const listeners = new Set();

/** The language in use: from the address, an earlier choice, or the browser. */
export let lang = choose();

function choose() {
  const wanted = [new URLSearchParams(location.search).get('lang'), remembered(), ...(navigator.languages ?? [navigator.language])];
  for (const candidate of wanted) {
    const short = String(candidate ?? '').slice(0, 2).toLowerCase();
    if (short in tags) return short;
  }
  return 'en';
}

function remembered() {
  try {
    return localStorage.getItem('ns.lang');
  } catch {
    return null; // storage is switched off: the browser's language will do
  }
}

/** Changes the language here and now, and for the next visit. */
export function setLang(next) {
  lang = next;
  try {
    localStorage.setItem('ns.lang', next);
  } catch {
    // not remembered, but it still applies to this page
  }
  const url = new URL(location.href);
  if (url.searchParams.has('lang')) {
    url.searchParams.set('lang', next);
    history.replaceState(history.state, '', url);
  }
  apply();
  for (const listener of listeners) listener();
}

/** Calls back after every change of language. */
export function onLang(listener) {
  listeners.add(listener);
}

/** The text for a key, in a language, with {placeholders} filled in. A text with plural forms is chosen by values.n. */
export function t(key, values = {}, language = lang) {
  let text = messages[key]?.[language] ?? key;
  if (typeof text === 'object') {
    text = text[String(values.n)] ?? text[new Intl.PluralRules(language).select(values.n)] ?? text.other;
  }
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return typeof value === 'number' ? number(value, language) : value ?? whole;
  });
}

export const number = (value, language = lang) => new Intl.NumberFormat(tags[language]).format(value);

/** A place in a line: 4th, الرابع. */
export function ordinal(place, language = lang) {
  const words = messages['place.words'][language][String(place)];
  if (words) return words;
  const rule = new Intl.PluralRules(language, { type: 'ordinal' }).select(place);
  const forms = messages['place.forms'][language];
  return (forms[rule] ?? forms.other).replace('{n}', number(place, language));
}

/** Hours and minutes of a moment. */
export const clock = (moment, language = lang) =>
  new Intl.DateTimeFormat(tags[language], { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(moment);

export const day = (moment, language = lang) =>
  new Intl.DateTimeFormat(tags[language], { weekday: 'long', day: 'numeric', month: 'long' }).format(moment);

/** How long ago, in words. */
export function ago(milliseconds, language = lang) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 2) return t('ago.now', {}, language);
  if (seconds < 60) return t('ago.seconds', { n: seconds }, language);
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return t('ago.minutes', { n: minutes }, language);
  return t('ago.hours', { n: Math.round(minutes / 60) }, language);
}

/** A waiting time: one figure or an honest range. */
export function wait(booking) {
  const estimate = booking.estimatedWait;
  if (estimate) {
    // From 15 minutes on, the bounds are multiples of five.
    const low = Math.max(0, estimate.low >= 15 ? Math.floor(estimate.low / 5) * 5 : Math.round(estimate.low));
    const high = Math.max(0, estimate.high >= 15 ? Math.ceil(estimate.high / 5) * 5 : Math.round(estimate.high));
    if (low === 0 && high > 0) return t('wait.within', { n: high });
    return low >= high ? t('wait.about', { n: high }) : t('wait.range', { low, high, n: high });
  }
  if (booking.estimatedWaitMinutes === undefined || booking.estimatedWaitMinutes === null) return t('wait.unknown');
  return t('wait.about', { n: Math.round(booking.estimatedWaitMinutes) });
}

/** The name in the language shown, if the server sent translations. */
export const named = (thing, field = 'name', language = lang) =>
  thing?.[`${field}_translations`]?.[language] || thing?.[field] || '';

/** Fills in every data-i18n text of the page and turns the page's direction. */
export function apply(root = document) {
  const html = document.documentElement;
  html.lang = lang;
  html.dir = lang === 'ar' ? 'rtl' : 'ltr';
  for (const element of root.querySelectorAll('[data-i18n]')) {
    const language = element.dataset.i18nLang ?? lang;
    element.textContent = t(element.dataset.i18n, {}, language);
  }
  for (const element of root.querySelectorAll('[data-i18n-attr]')) {
    for (const pair of element.dataset.i18nAttr.split(';')) {
      const [attribute, key] = pair.split(':');
      element.setAttribute(attribute, t(key));
    }
  }
  const title = document.querySelector('title[data-i18n]');
  if (title) document.title = t(title.dataset.i18n);
  html.dataset.ready = '';
}
