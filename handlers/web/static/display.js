// The waiting-room screen. It shows ticket numbers and rooms, never names.
//
// Calls are announced one after another: each has the screen, the chime and the
// voice for itself, and a call that arrives meanwhile waits its turn. Calls
// missed while the connection was away are found in the next snapshot and announced then.

import { kept, serverNow } from './api.js';
import { fill, h, hook, setText } from './dom.js';
import { clock, day, lang, named, onLang, t } from './i18n.js';
import { Live } from './live.js';
import { Chime, start, stayAwake } from './shell.js';
import { Sign } from './sign.js';

const parameters = new URLSearchParams(location.search);
const displayId = decodeURIComponent(location.pathname.split('/')[2] ?? '');
const tokenKey = `ns.display.${displayId}`;

const holdFor = clamp(Number(parameters.get('seconds')) || 7, 2, 30) * 1000;
const hurriedFor = Math.min(holdFor, 3500); // while others wait to be announced
const pageSize = 8;
const pageFor = 9000;
const queueLimit = 100;
const logLimit = 200;
const missedWithin = 10 * 60_000; // an older call is history, not an announcement

start();
const chosen = parameters.get('lang');
let languages = chosen === 'en' || chosen === 'ar' ? [chosen] : [lang, lang === 'ar' ? 'en' : 'ar'];
const sign = new Sign({ languages: () => languages });
const chime = new Chime();
stayAwake();

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

// ---- texts, in one language or both ----

const both = (key, values) => languages.map((l) => h('span', { lang: l, dir: l === 'ar' ? 'rtl' : 'ltr' }, t(key, values, l)));

const rooms = (call) => {
  const names = languages.map((l) => ({ l, name: named(call, 'resourceName', l) }));
  const different = names.filter(({ name }, i) => name && names.findIndex((n) => n.name === name) === i);
  return different.map(({ l, name }) => h('span', { lang: l, dir: 'auto' }, name));
};

function labels() {
  for (const element of document.querySelectorAll('[data-both]')) fill(element, both(element.dataset.both));
  document.title = languages.map((l) => t('display.nowServing', {}, l)).join(' · ');
  for (const [selector, key] of [['.serving', 'display.nowServing'], ['.called', 'display.lastCalled'], ['.upcoming', 'display.next']]) {
    document.querySelector(selector).setAttribute('aria-label', t(key));
  }
  soundLabel();
}

// ---- what is known ----

let board = { nowServing: [], lastCalled: [], next: [], waiting: 0 };
let page = 0;

const callKey = (call) => `${call.ticket}|${call.calledAt}|${call.recallCount ?? 0}`;
const known = new Set(); // calls already announced, or that were history when the page opened
let primed = false;

function remember(call) {
  known.add(callKey(call));
  if (known.size > 500) known.delete(known.values().next().value);
}

function take(state) {
  board = { nowServing: state.nowServing ?? [], lastCalled: state.lastCalled ?? [], next: state.next ?? [], waiting: state.waiting ?? 0 };
  draw();
}

function onSnapshot(snapshot) {
  const calls = [...(snapshot.lastCalled ?? []), ...(snapshot.nowServing ?? []).filter((c) => c.stage !== 'SERVING')]
    .sort((a, b) => String(a.calledAt).localeCompare(String(b.calledAt)));
  for (const call of calls) {
    const missed = primed && !known.has(callKey(call)) && serverNow() - Date.parse(call.calledAt) < missedWithin;
    if (missed) enqueue(call);
    else remember(call);
  }
  primed = true;
  sayCalmly('display.calm');
  take(snapshot);
}

function onEvent(event) {
  if (event.type === 'NOW_SERVING' && event.call) {
    const { call } = event;
    if (known.has(callKey(call))) return;
    enqueue(call);
    // DISPLAY_UPDATED follows with the whole truth; this keeps the lists right until then.
    take({
      ...board,
      nowServing: [call, ...board.nowServing.filter((c) => c.ticket !== call.ticket)],
      lastCalled: [call, ...board.lastCalled.filter((c) => c.ticket !== call.ticket)].slice(0, 10),
      next: board.next.filter((ticket) => ticket !== call.ticket),
    });
  } else if (event.type === 'DISPLAY_UPDATED') {
    take(event);
  }
}

// ---- drawing ----

function draw() {
  const pages = Math.max(1, Math.ceil(board.nowServing.length / pageSize));
  page %= pages;
  const shown = board.nowServing.slice(page * pageSize, (page + 1) * pageSize);
  const calls = hook('now-serving');
  calls.dataset.count = String(shown.length);
  fill(calls, shown.map((call) => h('li', { class: call.stage === 'SERVING' ? 'call' : 'call new', 'data-ticket': call.ticket, 'data-stage': call.stage },
    h('strong', { class: 'number figures' }, call.ticket),
    h('span', { class: 'room' }, rooms(call)))));
  document.getElementById('calm').hidden = shown.length > 0;
  fill(hook('last-called'), board.lastCalled.slice(0, 10).map((call) => h('li', { 'data-ticket': call.ticket },
    h('strong', { class: 'number figures' }, call.ticket),
    h('span', { class: 'where' }, rooms(call)))));
  fill(hook('next'), board.next.slice(0, 10).map((ticket) => h('li', { class: 'figures', 'data-ticket': ticket }, ticket)));
  fill(document.getElementById('waiting'), both('display.waiting', { n: board.waiting }));
}

function tick() {
  const now = serverNow();
  setText(document.getElementById('clock'), clock(now, 'en'));
  setText(document.getElementById('date'), day(now, languages[0]));
  const stale = document.getElementById('stale');
  const lost = sign.state !== 'connected' && sign.everConnected;
  if (lost) fill(stale, both('display.lost', { time: clock(sign.at ?? now) }));
  stale.hidden = !lost;
}

// ---- announcements ----

const announcement = hook('announcement');
const waitingCalls = [];
let announcing = false;

function enqueue(call) {
  remember(call);
  waitingCalls.push(call);
  // Announcing more than this would take an hour; the oldest calls are dropped.
  if (waitingCalls.length > queueLimit) waitingCalls.shift();
  if (!announcing) announceAll();
}

async function announceAll() {
  announcing = true;
  while (waitingCalls.length > 0) await announce(waitingCalls.shift());
  announcement.hidden = true;
  announcement.dataset.ticket = '';
  announcing = false;
}

async function announce(call) {
  const time = waitingCalls.length > 0 ? hurriedFor : holdFor;
  announcement.hidden = true;
  setText(document.getElementById('say-ticket'), call.ticket);
  fill(document.getElementById('say-room'), rooms(call));
  announcement.dataset.ticket = call.ticket;
  announcement.style.setProperty('--for', `${time}ms`);
  // Reading a size between hiding and showing lets the animations begin anew.
  document.getElementById('say-ticket').getBoundingClientRect();
  announcement.hidden = false;

  const log = hook('announced');
  log.append(h('li', { 'data-ticket': call.ticket, lang: languages[0] }, sentence(call, languages[0])));
  while (log.children.length > logLimit) log.firstElementChild.remove();

  const least = pause(time);
  await chime.play();
  if (chime.on) for (const language of languages) await speak(call, language);
  await least;
}

const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

const sentence = (call, language) => {
  const room = named(call, 'resourceName', language);
  return t(room ? 'display.say' : 'display.sayTicket', { ticket: call.ticket, room }, language);
};

/** Says a call aloud if the device has a voice for the language; otherwise the chime was enough. */
function speak(call, language) {
  const synthesis = window.speechSynthesis;
  const voice = synthesis?.getVoices().find((v) => v.lang.toLowerCase().startsWith(language));
  if (!voice) return Promise.resolve();
  return new Promise((resolve) => {
    const utterance = new SpeechSynthesisUtterance(sentence({ ...call, ticket: spelled(call.ticket) }, language));
    utterance.voice = voice;
    utterance.lang = voice.lang;
    utterance.rate = 0.9;
    // Some engines never report the end; the next call must not wait for them.
    const enough = setTimeout(() => { synthesis.cancel(); resolve(); }, 10000);
    utterance.onend = utterance.onerror = () => { clearTimeout(enough); resolve(); };
    synthesis.speak(utterance);
  });
}

/** A042 is said "A, 42", not "a oh forty-two". */
const spelled = (ticket) => ticket.replace(/^([A-Za-z]+)0*(\d+)$/, (_, letters, digits) => `${[...letters].join(' ')}, ${digits}`);

// ---- sound and full screen ----

const soundButton = document.getElementById('sound');

function soundLabel() {
  setText(soundButton.querySelector('span'), languages.map((l) => t('display.enableSound', {}, l)).join(' · '));
  soundButton.hidden = chime.on;
}

soundButton.addEventListener('click', async () => {
  try {
    await chime.enable();
    kept.set('ns.display.sound', true);
    window.speechSynthesis?.getVoices(); // starts loading them
    chime.play();
  } catch {
    // no sound device: the screen speaks for itself
  }
  soundLabel();
});

// A kiosk that allows sound without a touch gets it back after a restart.
if (kept.get('ns.display.sound')) chime.enable().then(soundLabel, () => {});

document.getElementById('full').addEventListener('click', () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.().catch(() => {});
});

// ---- begin ----

function begin() {
  const given = decodeURIComponent(location.hash.slice(1));
  if (given) {
    kept.set(tokenKey, given);
    history.replaceState(null, '', location.pathname + location.search);
  }
  const token = given || kept.get(tokenKey);
  labels();
  tick();
  setInterval(tick, 1000);
  setInterval(() => { page += 1; if (board.nowServing.length > pageSize) draw(); }, pageFor);
  onLang(() => { if (!chosen) { languages = [lang, lang === 'ar' ? 'en' : 'ar']; } labels(); draw(); });
  if (!token) return refused();
  new Live({ channel: `display:${displayId}`, who: { token: () => Promise.resolve(token) }, sign, onSnapshot, onEvent, onRefused: refused });
  return undefined;
}

function refused() {
  sign.set('disconnected');
  hook('now-serving').dataset.count = '0';
  sayCalmly('display.refused');
  document.getElementById('calm').hidden = false;
}

function sayCalmly(key) {
  document.querySelector('#calm p').dataset.both = key;
  labels();
}

begin();
