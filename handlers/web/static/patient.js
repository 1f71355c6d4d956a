// The patient's page. Two addresses lead here: /join/<organization> starts with a
// choice of services, /ticket/<booking>#<token> goes straight to the ticket.

import { Problem, Session, call, contact, kept, latinDigits } from './api.js';
import { fill, h, hook, icon, setText, toast } from './dom.js';
import { clock, day, lang, named, onLang, ordinal, t, wait } from './i18n.js';
import { Live } from './live.js';
import { cancelProof, prepareProof, proofNote, withProof } from './person.js';
import { Chime, confirmed, start, stayAwake } from './shell.js';
import { Sign } from './sign.js';

const icons = {
  back: 'M15 5l-7 7 7 7',
  bell: 'M6 9a6 6 0 0 1 12 0c0 6 2 7 2 7H4s2-1 2-7M10 20a2 2 0 0 0 4 0',
  tick: 'M5 12.5l4.5 4.5L19 7.5',
  cross: 'M6 6l12 12M18 6L6 18',
};

const [, area, id] = location.pathname.split('/').map(decodeURIComponent);
const organization = area === 'join' ? id : null;
const ticketKey = organization ? `ns.ticket.${organization}` : `ns.ticket-token.${id}`;

const main = document.getElementById('main');
const spoken = document.getElementById('spoken');
const urgent = document.getElementById('urgent');

start();
const sign = new Sign();
const chime = new Chime();
const session = organization ? new Session('customer', organization) : null;

let guests = 'off'; // how people join without signing in: off, turnstile or onSite
let view = null; // draws the current step again, in whatever language is on
let leaveStep = () => {}; // stops what the current step started
let alerting = null; // set while sound and vibration are wanted

onLang(() => view?.());

function go(step) {
  leaveStep();
  leaveStep = () => {};
  document.body.className = '';
  document.title = t('patient.title');
  step();
}

// ---- choosing a service ----

function chooseService() {
  let types = null;
  let problem = null;
  view = () => fill(main, h('section', { class: 'step', 'aria-labelledby': 'step-title' },
    h('header', {}, h('h1', { id: 'step-title' }, t('choose.title')), h('p', { class: 'lead' }, t('choose.lead'))),
    problem && h('p', { class: 'problem', role: 'alert' }, problem.text),
    types === null
      ? !problem && h('div', { class: 'services', 'aria-busy': 'true' }, h('div', { class: 'skeleton' }), h('div', { class: 'skeleton' }), h('div', { class: 'skeleton' }))
      : types.length === 0
        ? h('p', { class: 'empty' }, t('choose.none'))
        : h('ul', { class: 'services' }, types.map(service)),
  ));
  const service = (type) => h('li', {}, h('button', { type: 'button', class: 'service', 'data-testid': `type-${type.id}`, onclick: () => go(() => confirmService(type)) },
    h('strong', {}, named(type)),
    named(type, 'description') && h('span', { class: 'about' }, named(type, 'description')),
    h('span', { class: 'facts' }, t('choose.minutes', { n: type.minutes }), Number(type.price) > 0 ? ` · ${type.price}` : ''),
    h('span', { class: 'crowd' }, h('b', { class: 'figures' }, String(type.pendingCount ?? 0)), h('span', {}, t('choose.waiting', { n: type.pendingCount ?? 0 }))),
  ));

  const load = async () => {
    if (document.visibilityState !== 'visible') return;
    try {
      const [answer, door] = await Promise.all([
        call('POST', '/availability/types', { organization, body: { limit: 100 } }),
        call('GET', '/availability/organization', { organization }),
      ]);
      guests = door.result.guestJoin;
      types = answer.result ?? [];
      problem = null;
      sign.rest();
      sign.heard();
    } catch (error) {
      if (error.status === 0) sign.set('disconnected');
      else sign.rest();
      problem = error;
    }
    view();
  };
  view();
  load();
  const timer = setInterval(load, 15000);
  document.addEventListener('visibilitychange', load);
  addEventListener('online', load);
  leaveStep = () => {
    clearInterval(timer);
    document.removeEventListener('visibilitychange', load);
    removeEventListener('online', load);
  };
}

const backButton = () => h('button', { type: 'button', class: 'quiet back', onclick: () => go(chooseService) }, icon(icons.back), t('back'));

const chosen = (type) => h('div', { class: 'chosen' },
  h('strong', {}, named(type)),
  h('span', {}, t('choose.ahead', { n: type.pendingCount ?? 0 }), ' · ', t('choose.minutes', { n: type.minutes })));

function confirmService(type) {
  if (!session.signedIn) {
    signIn(type);
    return;
  }
  view = () => fill(main, h('section', { class: 'step' },
    backButton(),
    h('header', {}, h('h1', {}, t('join.title')), h('p', { class: 'lead' }, t('join.lead'))),
    chosen(type),
    h('button', { type: 'button', class: 'button primary tall wide', 'data-testid': 'join', onclick: (event) => busy(event.currentTarget, () => join(type)) }, t('join.button')),
    h('p', { class: 'address' }, h('bdi', { dir: 'ltr' }, session.user?.phone || session.user?.email || ''), ' ',
      h('button', { type: 'button', class: 'quiet', 'data-testid': 'sign-out', onclick: async () => { session.signOut().catch(() => {}); go(chooseService); } }, t('signOut'))),
  ));
  view();
}

// ---- joining without signing in ----

/** What a guest is asked: a name if they like, and the clinic's code where it wants one. */
const guestForm = (type) => {
  const code = new URLSearchParams(location.hash.slice(1)).get('code') ?? '';
  return h('form', {
    class: 'panel', novalidate: true, 'data-testid': 'guest', onfocusin: guests === 'turnstile' ? prepareProof : null,
    onsubmit: (event) => {
      event.preventDefault();
      busy(hook('join-guest'), async () => {
        const body = { type: type.id, assign: false, firstName: hook('guest-name').value.trim() };
        const join = (proof) => call('PUT', '/customer/scheduling/new', { organization, body: { ...body, ...proof } });
        const answer = guests === 'turnstile'
          ? await withProof(({ turnstileToken }) => join({ turnstileToken }))
          : await join({ onSiteCode: latinDigits(hook('on-site-code').value) });
        const { ticketToken, ...booking } = answer.result;
        kept.set(ticketKey, { bookingId: booking.id, guest: ticketToken });
        go(() => showTicket(booking.id, ticketToken, booking));
      }, (error) => {
        hook('guest-problem').textContent = error instanceof Problem ? error.text : t('error.server');
        hook(guests === 'onSite' ? 'on-site-code' : 'join-guest').focus();
      });
    },
  },
    h('h2', {}, t('guest.title')),
    h('label', { class: 'field' }, h('span', {}, t('guest.name')),
      h('input', { 'data-testid': 'guest-name', autocomplete: 'given-name', maxlength: '80', dir: 'auto' })),
    guests === 'onSite' && h('label', { class: 'field' }, h('span', {}, t('guest.code')),
      h('input', { 'data-testid': 'on-site-code', class: 'code', dir: 'ltr', autocomplete: 'off', autocapitalize: 'characters', spellcheck: 'false', maxlength: '20', value: code, 'aria-describedby': 'guest-problem' }),
      h('small', {}, t('guest.codeHint'))),
    h('p', { class: 'problem', id: 'guest-problem', 'data-testid': 'guest-problem', role: 'alert' }),
    h('button', { class: 'button primary tall wide', 'data-testid': 'join-guest' }, t('guest.join')));
};

// ---- signing in ----

function signIn(type) {
  let sent = null; // the contact a code went to
  let typed = '';
  let problem = '';
  const failed = (focus) => (error) => {
    problem = error instanceof Problem ? error.text : t('error.server');
    view();
    hook(focus)?.focus();
  };

  const askPhone = () => h('form', {
    class: 'panel', novalidate: true, onfocusin: prepareProof,
    onsubmit: (event) => {
      event.preventDefault();
      typed = hook('phone').value;
      const who = contact(typed);
      if (!who) { problem = t('signIn.badContact'); view(); hook('phone').focus(); return; }
      busy(hook('send-code'), async () => {
        await withProof((proof) => session.requestCode(who, proof));
        sent = who;
        problem = '';
        sign.rest(); // nothing from before is shown any more
        view();
        hook('code').focus();
      }, failed('send-code'));
    },
  },
    h('label', { class: 'field' }, h('span', {}, t('signIn.phone')),
      h('input', { 'data-testid': 'phone', type: 'tel', dir: 'ltr', autocomplete: 'tel', inputmode: 'tel', placeholder: '+966 50 000 0000', value: typed, 'aria-describedby': 'sign-in-problem' }),
      h('small', {}, t('signIn.phoneHint'))),
    h('p', { class: 'problem', id: 'sign-in-problem', role: 'alert' }, problem),
    h('button', { class: 'button primary tall wide', 'data-testid': 'send-code' }, t('signIn.send')), proofNote());

  const askCode = () => h('form', {
    class: 'panel', novalidate: true,
    onsubmit: (event) => {
      event.preventDefault();
      busy(hook('verify'), async () => {
        await session.verifyCode(sent, latinDigits(hook('code').value).trim());
        const current = await findTicket();
        if (current) go(() => showTicket(current.id, null, current));
        else go(() => confirmService(type));
      }, failed('code'));
    },
  },
    h('label', { class: 'field' }, h('span', {}, t('signIn.code')),
      h('input', { 'data-testid': 'code', class: 'code', dir: 'ltr', autocomplete: 'one-time-code', inputmode: 'numeric', maxlength: '8', 'aria-describedby': 'sign-in-problem' }),
      h('small', {}, t('signIn.codeSent', { to: `\u2066${sent.phoneNumber ?? sent.email}\u2069` }))),
    h('p', { class: 'problem', id: 'sign-in-problem', role: 'alert' }, problem),
    h('button', { class: 'button primary tall wide', 'data-testid': 'verify' }, t('signIn.verify')),
    h('button', { type: 'button', class: 'button wide', 'data-testid': 'change-phone', onclick: () => { sent = null; problem = ''; view(); hook('phone').focus(); } }, t('signIn.change')));

  view = () => fill(main, h('section', { class: 'step' },
    backButton(),
    !sent && guests !== 'off'
      ? h('header', {}, h('h1', {}, t('join.title')), h('p', { class: 'lead' }, t('join.lead')))
      : h('header', {}, h('h1', {}, t(sent ? 'signIn.codeTitle' : 'signIn.title')), h('p', { class: 'lead' }, t('signIn.lead'))),
    !sent && chosen(type),
    !sent && guests !== 'off' && [guestForm(type), h('p', { class: 'or' }, t('guest.or'))],
    sent ? askCode() : askPhone()));
  view();
  leaveStep = cancelProof;
}

async function join(type) {
  const answer = await session.call('PUT', '/customer/scheduling/new', { body: { type: type.id, assign: false } });
  const booking = answer.result;
  kept.set(ticketKey, { bookingId: booking.id });
  go(() => showTicket(booking.id, null, booking));
}

/** Runs one action at a time for a button, and says what went wrong. */
async function busy(button, action, failed = (error) => toast(error instanceof Problem ? error.text : t('error.server'), 'error')) {
  if (button.getAttribute('aria-busy') === 'true') return;
  button.setAttribute('aria-busy', 'true');
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    failed(error);
  } finally {
    button.removeAttribute('aria-busy');
    button.disabled = false;
  }
}

// ---- the ticket ----

const over = (booking) => ['DONE', 'NO_SHOW', 'LEFT'].includes(booking.stage) || ['CANCELED', 'REJECTED'].includes(booking.status);

/** What the page says about a booking: one word for each situation a patient can be in. */
function situation(booking) {
  if (booking.status === 'CANCELED') return 'cancelled';
  if (booking.status === 'REJECTED') return 'expired';
  if (booking.stage === 'LEFT') return 'cancelled';
  if (booking.stage === 'NO_SHOW') return 'missed';
  if (booking.stage === 'DONE') return 'done';
  if (booking.status === 'PENDING_PAYMENT') return 'payment';
  if (booking.status === 'PENDING_APPROVAL') return 'approval';
  if (booking.status === 'CONFIRMED' && !booking.stage) return 'scheduled';
  return { CALLED: 'called', SERVING: 'serving', HELD: 'held' }[booking.stage] ?? 'waiting';
}

/** The running visit of a signed-in patient who lost the page, if there is one. */
async function findTicket() {
  for (const status of ['PENDING_ASSIGNMENT', 'CONFIRMED']) {
    const answer = await session.call('GET', '/customer/bookings', { query: { status, limit: 20, orderDirection: 'desc' } });
    const current = (answer.result ?? []).find((b) => ['WAITING', 'HELD', 'CALLED', 'SERVING'].includes(b.stage) && b.ticket);
    if (current) {
      kept.set(ticketKey, { bookingId: current.id });
      return current;
    }
  }
  return null;
}

function showTicket(bookingId, token, first = null) {
  let booking = first;
  let lastSpoken = '';
  let refetch = null;
  let gone = false;
  let resting = false; // other screens show the same ticket; this one does not follow it
  let events = 0;

  const api = (method, path, options = {}) =>
    (token ? call(method, path, { ...options, token }) : session.call(method, path, options));

  const take = (next) => {
    const before = booking && situation(booking);
    // Answers may overtake one another: the one with the higher version is newer.
    if (booking && next.version !== undefined && booking.version !== undefined && next.version < booking.version) return;
    booking = { ...next, type: next.type ?? booking?.type, resource: next.resource ?? booking?.resource };
    changed(before);
  };

  const changed = (before) => {
    const now = situation(booking);
    view();
    announce();
    if (now === 'called' && before && before !== 'called') alarm();
    if (over(booking)) {
      stopAlerting();
      live?.close();
      sign.rest();
    }
  };

  // A ticket that ended yesterday is history: the next visit begins with a choice.
  const stale = () => organization && over(booking) && Date.now() - Date.parse(booking.createdAt) > 12 * 3600_000;

  const load = async () => {
    const seen = events;
    const answer = await api('GET', `/customer/bookings/${encodeURIComponent(bookingId)}`);
    // An event that came while this was on its way is newer than it, unless the version says otherwise.
    if (booking && events !== seen && !(answer.result.version > booking.version)) return;
    if (gone) return;
    take(answer.result);
    sign.heard();
    if (stale()) { kept.set(ticketKey, null); go(chooseService); }
  };

  // A change moves everyone behind it, and each of their pages wants a new range. The position
  // itself was pushed; the range may follow within seconds, spread out and never more than four a minute.
  const refineSoon = () => {
    if (refetch || document.visibilityState !== 'visible') return;
    refetch = setTimeout(() => {
      refetch = null;
      if (booking && situation(booking) === 'waiting') load().catch(() => {});
    }, 15000 + Math.random() * 5000);
  };

  const alarm = () => {
    if (alerting) {
      chime.play();
      navigator.vibrate?.([400, 150, 400, 150, 700]);
    }
    main.scrollTo({ top: 0 });
  };

  const onEvent = (event) => {
    if (!booking || event.bookingId !== bookingId) return;
    const before = situation(booking);
    events += 1;
    switch (event.type) {
      case 'QUEUE_POSITION_UPDATED': {
        const old = booking.queuePosition;
        const range = event.estimatedWait
          ?? (booking.estimatedWait && old > 0 && scaled(booking.estimatedWait, event.queuePosition / old));
        booking = { ...booking, queuePosition: event.queuePosition, estimatedWaitMinutes: event.estimatedWaitMinutes, estimatedWait: range || undefined };
        if (booking.stage !== 'WAITING') booking.stage = 'WAITING';
        refineSoon();
        break;
      }
      case 'MY_BOOKING_ASSIGNED':
      case 'MY_BOOKING_CALLED':
        booking = {
          ...booking, status: 'CONFIRMED', stage: 'CALLED', ticket: event.ticket ?? booking.ticket, recallCount: event.recallCount ?? booking.recallCount,
          resource: booking.resource?.id === event.resourceId ? booking.resource : { id: event.resourceId, name: event.resourceName },
        };
        if (event.type === 'MY_BOOKING_CALLED' && before === 'called' && event.recallCount > 0) {
          lastSpoken = '';
          alarm();
        }
        if (before !== 'called') load().catch(() => {}); // the event names the room in one language
        break;
      case 'MY_BOOKING_EXPIRED':
        booking = { ...booking, status: 'REJECTED', stage: 'LEFT' };
        break;
      case 'MY_BOOKING_CANCELED':
        booking = { ...booking, status: 'CANCELED', stage: 'LEFT' };
        break;
      case 'MY_BOOKING_ENDED':
        booking = { ...booking, status: event.bookingStatus ?? booking.status, stage: event.stage ?? 'DONE' };
        break;
      case 'BOOKING_UPDATED':
        if (event.bookingType) {
          const longer = event.bookingType.minutes / (booking.type?.minutes || event.bookingType.minutes);
          booking = { ...booking, type: event.bookingType, estimatedWait: booking.estimatedWait && scaled(booking.estimatedWait, longer) };
          refineSoon();
        }
        if (event.resource) booking = { ...booking, resource: event.resource };
        booking = { ...booking, status: event.bookingStatus ?? booking.status, stage: event.stage ?? booking.stage };
        if (event.stage === 'WAITING') load().catch(() => {});
        break;
      default:
        return; // newer servers may say more
    }
    changed(before);
  };

  const announce = () => {
    const text = [t(`state.${situation(booking)}`), situation(booking) === 'waiting' && placeText(booking), situation(booking) === 'called' && goTo(booking)].filter(Boolean).join('. ');
    if (text === lastSpoken) return;
    lastSpoken = text;
    if (situation(booking) === 'called') setText(urgent, `${booking.ticket}. ${text}`);
    else setText(spoken, text);
    document.title = situation(booking) === 'called'
      ? t('title.called', { ticket: booking.ticket })
      : situation(booking) === 'waiting' && booking.queuePosition
        ? t('title.waiting', { place: booking.queuePosition, ticket: booking.ticket })
        : `${booking.ticket} · Now Serving`;
  };

  const refused = async () => {
    if (gone) return;
    gone = true;
    live?.close();
    if (token && session?.signedIn) go(() => showTicket(bookingId, null, booking));
    else if (organization) { kept.set(ticketKey, null); go(chooseService); }
    else go(() => lostTicket());
  };

  view = () => { if (booking) drawTicket(booking, { leave, toggleAlert, wake: resting && wake }); else drawLoading(); };

  const leave = async (button) => {
    if (!await confirmed(document.getElementById('leave-dialog'))) return;
    busy(button, async () => {
      const answer = await api('POST', '/customer/bookings/cancel', { body: { bookingId } });
      if (answer?.result?.status) take(answer.result);
      else onEvent({ type: 'MY_BOOKING_CANCELED', bookingId });
    });
  };

  const toggleAlert = async () => {
    if (alerting) {
      stopAlerting();
    } else {
      const sleep = stayAwake();
      alerting = sleep;
      try {
        await chime.enable();
        chime.play();
      } catch {
        // no sound device: vibration and the yellow page still work
      }
      navigator.vibrate?.(120);
    }
    view();
  };

  view();
  const live = booking && over(booking) ? null : new Live({
    channel: `booking:${bookingId}`,
    who: token ? { token: () => Promise.resolve(token) } : session,
    sign,
    onSnapshot: (snapshot) => { resting = false; take(snapshot.booking); },
    onEvent,
    onRefused: refused,
    onSurplus: () => { resting = true; view(); },
  });
  const wake = () => { resting = false; view(); live.open(); load().catch(() => {}); };
  // The live snapshot usually wins; this one answers when WebSockets are blocked on the way.
  load().catch((error) => {
    if (error.status === 401 || error.status === 403 || error.status === 404) refused();
  });
  const poll = setInterval(() => {
    if (!resting && sign.state !== 'connected' && booking && !over(booking) && document.visibilityState === 'visible') {
      // Not reported as connected: the next push would still be missed.
      load().catch(() => {});
    }
  }, 10000);
  leaveStep = () => {
    gone = true;
    clearInterval(poll);
    clearTimeout(refetch);
    live?.close();
  };
}

function stopAlerting() {
  alerting?.();
  alerting = null;
}

const scaled = (range, factor) => ({ low: range.low * factor, likely: range.likely * factor, high: range.high * factor });

const placeText = (booking) => {
  if (!booking.queuePosition) return '';
  return booking.queuePosition === 1 ? t('place.next') : t('place.nth', { nth: ordinal(booking.queuePosition) });
};

const goTo = (booking) => {
  const name = named(booking.resource);
  return name ? t('called.goTo', { room: name }) : '';
};

/** The people ahead as dots, the door on one side, the patient on the other. */
function line(position) {
  const ahead = Math.max(0, position - 1);
  const shown = Math.min(ahead, 9);
  return h('div', { class: 'line', 'aria-hidden': 'true' },
    h('i', { class: 'door' }),
    ahead > shown && h('span', {}, `+${ahead - shown}`),
    Array.from({ length: shown }, () => h('i')),
    h('i', { class: 'you' }));
}

function steps(now) {
  const order = ['waiting', 'called', 'serving'];
  const at = now === 'called' ? 2 : 0;
  return h('section', { class: 'next', 'aria-labelledby': 'next-title' },
    h('h2', { id: 'next-title' }, t('next.title')),
    h('ol', {}, order.map((name, i) => h('li', { class: i < at ? 'past' : null, 'aria-current': i === at ? 'step' : null }, h('span', {}, t(`next.${now === 'held' && i === 0 ? 'held' : name}`))))));
}

function drawLoading() {
  fill(main, h('section', { class: 'step', 'aria-busy': 'true' }, h('div', { class: 'skeleton' }), h('div', { class: 'skeleton' })));
}

let drawnPosition = null;

function drawTicket(booking, { leave, toggleAlert, wake }) {
  const now = situation(booking);
  const moved = drawnPosition !== null && drawnPosition !== booking.queuePosition;
  drawnPosition = booking.queuePosition ?? null;
  document.body.className = now === 'called' ? 'called' : over(booking) ? 'ended' : '';
  const stub = h('div', { class: 'stub' },
    h('span', { class: 'service-name' }, named(booking.type) || t('ticket.yours')),
    h('strong', { class: 'number figures', 'data-testid': 'ticket' }, booking.ticket));
  const state = h('p', { class: 'state', 'data-testid': 'state', 'data-stage': booking.stage, 'data-situation': now }, t(`state.${now}`));

  let body;
  if (now === 'waiting') {
    body = [state,
      h('p', { class: moved ? 'place moved' : 'place', 'data-testid': 'position', 'data-position': booking.queuePosition }, placeText(booking)),
      booking.queuePosition && line(booking.queuePosition),
      h('p', { class: 'wait', 'data-testid': 'wait' }, t('wait.label'), ' ', h('b', {}, wait(booking)))];
  } else if (now === 'called') {
    state.className = 'place';
    body = [state,
      named(booking.resource) && h('p', { class: 'goto', 'data-testid': 'room' }, h('small', {}, t('called.to')), ' ', h('bdi', {}, named(booking.resource))),
      booking.recallCount > 0 && h('p', { class: 'again', 'data-testid': 'recalled' }, t('called.again', { n: booking.recallCount }))];
  } else if (now === 'scheduled') {
    state.className = 'place';
    // The clinic's day and time, wherever the patient is.
    const at = new Date(`${booking.startDate}T${String(booking.startTime).padStart(4, '0').replace(/..$/, ':$&')}`);
    body = [state,
      h('p', { class: 'lead', 'data-testid': 'appointment' }, t('about.scheduled', { day: day(at), time: clock(at) })),
      named(booking.resource) && h('p', { class: 'goto', 'data-testid': 'room' }, h('bdi', {}, named(booking.resource)))];
  } else {
    const good = now === 'done' || now === 'serving';
    state.className = 'place';
    body = [
      over(booking) && h('span', { class: `over ${good ? '' : 'sad'}`, 'aria-hidden': 'true' }, icon(good ? icons.tick : icons.cross)),
      state,
      h('p', { class: 'lead' }, now === 'serving' && named(booking.resource) ? t('serving.with', { room: named(booking.resource) }) : t(`about.${now}`))];
  }

  fill(main, h('section', { class: 'step with-ticket', 'aria-label': t('ticket.region') },
    h('h1', { class: 'hidden-visually' }, `${t('ticket.region')} ${booking.ticket}`),
    wake && h('div', { class: 'surplus', role: 'status', 'data-testid': 'surplus' }, h('p', {}, t('surplus.text')),
      h('button', { type: 'button', class: 'button', 'data-testid': 'wake', onclick: wake }, t('surplus.wake'))),
    h('article', { class: 'ticket' }, stub, h('div', { class: 'tear' }), h('div', { class: 'body' }, body)),
    ['waiting', 'held', 'called'].includes(now) && steps(now),
    h('div', { class: 'doings' },
      ['waiting', 'held'].includes(now) && h('button', {
        type: 'button', class: 'button wide alert-choice', 'data-testid': 'alert', 'aria-pressed': String(Boolean(alerting)), onclick: toggleAlert,
      }, icon(icons.bell), t(alerting ? 'alert.on' : 'alert.off')),
      ['waiting', 'held', 'payment', 'approval'].includes(now) && h('button', {
        type: 'button', class: 'button danger wide', 'data-testid': 'leave', onclick: (event) => leave(event.currentTarget),
      }, t('leave.button')),
      over(booking) && organization && h('button', { type: 'button', class: 'button primary tall wide', 'data-testid': 'join-again', onclick: () => { kept.set(ticketKey, null); go(chooseService); } }, t('ticket.again'))),
    ['waiting', 'held'].includes(now) && h('p', { class: 'address' }, t('ticket.keep'))));
  main.lang = lang;
}

function lostTicket() {
  sign.rest();
  view = () => fill(main, h('section', { class: 'step' },
    h('header', {}, h('h1', {}, t('lost.title')), h('p', { class: 'lead', role: 'alert' }, t('lost.text')))));
  view();
}

// ---- where to begin ----

function begin() {
  if (area === 'ticket') {
    const given = decodeURIComponent(location.hash.slice(1));
    if (given) {
      // Out of the address bar: it would end up in histories and screenshots.
      kept.set(ticketKey, given);
      history.replaceState(null, '', location.pathname + location.search);
    }
    const token = given || kept.get(ticketKey);
    if (token) go(() => showTicket(id, token));
    else lostTicket();
    return;
  }
  const mine = kept.get(ticketKey);
  if (mine?.token) kept.set(ticketKey, { bookingId: mine.bookingId }); // kept by older versions
  if (mine?.guest) {
    go(() => showTicket(mine.bookingId, mine.guest));
  } else if (mine?.bookingId && session.signedIn) {
    go(() => showTicket(mine.bookingId, null));
  } else if (session.signedIn) {
    drawLoading();
    findTicket()
      .then((current) => go(current ? () => showTicket(current.id, null, current) : chooseService))
      .catch(() => go(chooseService));
  } else {
    go(chooseService);
  }
}

begin();
