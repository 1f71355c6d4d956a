// The doctor's console: take the next patient, care for the current one, add a walk-in.

import { Problem, Session, call, contact, kept, latinDigits, newKey, serverNow } from './api.js';
import { fill, h, hook, setText, toast } from './dom.js';
import { ago, clock, named, onLang, t } from './i18n.js';
import { Live } from './live.js';
import { cancelProof, prepareProof, proofNote, withProof } from './person.js';
import { confirmed, copy, start } from './shell.js';
import { Sign } from './sign.js';

const recallGap = 60_000;
const recallLimit = 3;
const doublePress = 500; // milliseconds
const main = document.getElementById('main');
const bar = document.getElementById('session-bar');
const spoken = document.getElementById('spoken');

start();
const sign = new Sign();
let view = null;
onLang(() => view?.());

const explain = (error) => (error instanceof Problem ? error.text : t('error.server'));

/** Runs one action at a time for a button; a failure is said in a toast. */
async function busy(button, action, failed = (error) => toast(explain(error), 'error')) {
  if (button?.getAttribute('aria-busy') === 'true') return;
  button?.setAttribute('aria-busy', 'true');
  if (button) button.disabled = true;
  try {
    await action();
  } catch (error) {
    failed(error);
  } finally {
    button?.removeAttribute('aria-busy');
    if (button) button.disabled = false;
  }
}

// ---- who is working ----

/** A key works like a session that never needs renewing. It is kept until the page is closed or loaded anew. */
class Key {
  constructor(key, organization) {
    this.key = key;
    this.organization = organization;
    this.user = null;
  }

  token() {
    return Promise.resolve(this.key);
  }

  call(method, path, options = {}) {
    return call(method, path, { ...options, token: this.key, organization: this.organization || undefined });
  }

  async signOut() {
    this.forget();
  }

  forget() {
    this.key = '';
  }
}

function begin() {
  kept.set('ns.key', null, 'sessionStorage'); // kept by older versions
  const organization = new URLSearchParams(location.search).get('organization') ?? kept.get('ns.organization');
  if (organization) {
    const session = new Session('member', organization);
    if (session.signedIn) return openDesk(session);
  }
  return entrance();
}

function entrance(note = '') {
  fill(bar);
  let session = null;
  let sent = null;
  let problem = note;
  let typed = { organization: new URLSearchParams(location.search).get('organization') ?? kept.get('ns.organization') ?? '', phone: '' };
  const failed = (focus) => (error) => {
    problem = explain(error);
    view();
    hook(focus)?.focus();
  };

  // There is no live connection before a sign-in, so an unavailable server is shown by this probe.
  const probe = () => fetch('/readyz', { cache: 'no-store', signal: AbortSignal.timeout(8000) })
    .then((response) => { if (entering) { if (response.ok) sign.rest(); else sign.set('disconnected'); } })
    .catch(() => { if (entering) sign.set('disconnected'); });
  let entering = true; // an answer that comes later says nothing about the desk
  sign.rest();
  probe();
  const timer = setInterval(probe, 15000);
  const enter = (who) => {
    entering = false;
    clearInterval(timer);
    cancelProof();
    openDesk(who);
  };

  const organizationField = () => h('label', { class: 'field' }, h('span', {}, t('entrance.organization')),
    h('input', { 'data-testid': 'organization', dir: 'ltr', autocomplete: 'organization', spellcheck: 'false', value: typed.organization, oninput: (e) => { typed.organization = e.target.value.trim(); } }));

  const byCode = () => h('form', {
    class: 'door', novalidate: true, onfocusin: prepareProof,
    onsubmit: (event) => {
      event.preventDefault();
      if (sent) {
        busy(hook('verify'), async () => {
          await session.verifyCode(sent, latinDigits(hook('code').value).trim());
          kept.set('ns.organization', session.organization);
          enter(session);
        }, failed('code'));
        return;
      }
      typed.phone = hook('phone').value;
      const who = contact(typed.phone);
      if (!typed.organization || !who) { problem = t(who ? 'entrance.needOrganization' : 'signIn.badContact'); view(); return; }
      busy(hook('send-code'), async () => {
        session = new Session('member', typed.organization);
        await withProof((proof) => session.requestCode(who, proof));
        sent = who;
        problem = '';
        view();
        hook('code').focus();
      }, failed('send-code'));
    },
  },
    h('h2', {}, t('entrance.byCode')),
    sent
      ? [h('label', { class: 'field' }, h('span', {}, t('signIn.code')),
          h('input', { 'data-testid': 'code', class: 'code', dir: 'ltr', autocomplete: 'one-time-code', inputmode: 'numeric', maxlength: '8' }),
          h('small', {}, t('signIn.codeSent', { to: `\u2066${sent.phoneNumber ?? sent.email}\u2069` }))),
        h('button', { class: 'button primary', 'data-testid': 'verify' }, t('signIn.verify')),
        h('button', { class: 'button', type: 'button', onclick: () => { sent = null; problem = ''; view(); } }, t('signIn.change'))]
      : [h('label', { class: 'field' }, h('span', {}, t('signIn.phoneOrEmail')),
          h('input', { 'data-testid': 'phone', dir: 'ltr', autocomplete: 'username', inputmode: 'email', value: typed.phone, placeholder: '+966 50 000 0000' })),
        h('button', { class: 'button primary', 'data-testid': 'send-code' }, t('signIn.send')), proofNote()]);

  const byKey = () => h('form', {
    class: 'door', novalidate: true,
    onsubmit: (event) => {
      event.preventDefault();
      const key = hook('api-key').value.trim();
      if (!key) return;
      busy(hook('sign-in'), async () => {
        const who = new Key(key, typed.organization);
        await who.call('GET', '/management/resources', { query: { limit: 1 } });
        if (typed.organization) kept.set('ns.organization', typed.organization);
        enter(who);
      }, failed('sign-in'));
    },
  },
    h('h2', {}, t('entrance.byKey')),
    h('label', { class: 'field' }, h('span', {}, t('entrance.key')),
      h('input', { 'data-testid': 'api-key', type: 'password', dir: 'ltr', autocomplete: 'off', spellcheck: 'false' }),
      h('small', {}, t('entrance.keyHint'))),
    h('button', { class: 'button', 'data-testid': 'sign-in' }, t('entrance.signIn')));

  view = () => {
    const key = hook('api-key')?.value;
    fill(main, h('div', { class: 'entrance' },
      h('header', {}, h('h1', {}, t('entrance.title')), h('p', { class: 'lead' }, t('entrance.lead'))),
      h('p', { class: 'problem', role: 'alert', 'data-testid': 'problem' }, problem),
      h('div', { class: 'doors' },
        h('div', { class: 'door org' }, organizationField()),
        byCode(), byKey())));
    if (key) hook('api-key').value = key;
  };
  view();
}

// ---- the desk ----

async function openDesk(who) {
  let resources = [];
  let types = [];
  let resource = null;
  let waiting = [];
  let held = [];
  let current = [];
  let total = null;
  let paused = false;
  let live = null;
  let reloadTimer = null;
  let lastReload = 0;
  let ticking = null;
  let made = null;
  let heldChanged = true;
  const calledHere = new Map(); // booking id → moment of the last call made from this console
  const shortcuts = { on: kept.get('ns.shortcuts') ?? true };

  const leave = (note) => {
    live?.close();
    clearInterval(ticking);
    clearTimeout(reloadTimer);
    document.removeEventListener('keydown', onKey);
    document.removeEventListener('visibilitychange', onWake);
    entrance(note);
  };
  const lost = () => { who.forget(); leave(t('entrance.again')); };
  const failed = (error) => {
    if (error.status === 401) lost();
    else toast(explain(error), 'error');
  };

  // -- what the server says --

  const reload = async () => {
    lastReload = Date.now();
    const id = resource.id;
    const withHeld = heldChanged;
    heldChanged = false;
    const [queue, mine, untaken] = await Promise.all([
      who.call('GET', '/management/queue', { query: { resourceId: id } }),
      who.call('GET', '/management/bookings', { query: { resources: id, status: 'CONFIRMED', includes: 'customer,type', limit: 100, orderDirection: 'desc' } }),
      // Who is on hold stands only in this longer list, so it is asked for only when that changed.
      withHeld ? who.call('GET', '/management/bookings/unassigned', { query: { resourceId: id, limit: 500 } }) : null,
    ]).catch((error) => { heldChanged ||= withHeld; throw error; });
    if (resource.id !== id) return; // another resource was chosen meanwhile
    waiting = (queue.result ?? []).filter((b) => b.stage !== 'HELD');
    if (untaken) held = (untaken.result ?? []).filter((b) => b.stage === 'HELD');
    current = (mine.result ?? []).filter((b) => (b.stage === 'CALLED' || b.stage === 'SERVING') && (!b.resourceId || b.resourceId === id))
      .sort((a, b) => String(a.calledAt ?? '').localeCompare(String(b.calledAt ?? '')));
    total = queue.total;
    sign.at = Date.now();
    drawLists();
  };

  // Every change is told; in a rush many come at once. One reload for each 300 ms is enough.
  const reloadSoon = () => {
    if (reloadTimer) return;
    reloadTimer = setTimeout(() => {
      reloadTimer = null;
      reload().catch(failed);
    }, Math.max(0, 300 - (Date.now() - lastReload)));
  };

  const choose = (id) => {
    resource = resources.find((r) => r.id === id) ?? resources[0];
    if (!resource) return;
    kept.set('ns.resource', resource.id);
    paused = Boolean(resource.paused);
    waiting = [];
    held = [];
    current = [];
    undoable = null;
    total = null;
    heldChanged = true;
    live?.close();
    view();
    live = new Live({
      channel: `queue:${resource.id}`,
      who,
      sign,
      onSnapshot: (snapshot) => {
        if (snapshot.paused !== undefined) paused = snapshot.paused;
        total = snapshot.total;
        drawTake();
        heldChanged = true;
        reload().catch(failed);
      },
      onEvent: (event) => {
        if (event.stage === 'HELD' || held.some((b) => b.id === event.bookingId)) heldChanged = true;
        if (event.type === 'QUEUE_UPDATED' && typeof event.waiting === 'number') total = event.waiting;
        if (event.paused !== undefined) paused = event.paused;
        drawTake();
        reloadSoon();
      },
      onRefused: () => reload().catch(failed), // a credential that ended says so with a 401
    });
    reload().catch(failed);
  };

  // -- what a person does --

  // A second press that comes this soon after the first was meant as one with it: a
  // double click, or a key that bounces. Whom it would reach may have changed by then.
  const pressed = new Map(); // what is done → when it was pressed last
  const twice = (verb) => {
    const now = performance.now();
    if (now - (pressed.get(verb) ?? -Infinity) < doublePress) return true;
    pressed.set(verb, now);
    return false;
  };

  /** Does something to the queue. A press has one key, so an answer that was lost on the way is asked for once more. */
  const act = async (method, path, body) => {
    const key = newKey();
    const send = () => who.call(method, path, { body, key });
    try {
      return await send();
    } catch (error) {
      if (error.status !== 0) throw error;
      return send();
    }
  };

  // What can be taken back: the last step, for half a minute.
  let undoable = null;
  const drawUndo = () => fill(document.getElementById('undo'), undoable && [
    h('span', {}, t(`done.${undoable.verb}`, { ticket: undoable.booking.ticket })),
    h('button', { type: 'button', class: 'button', 'data-testid': 'undo', onclick: (e) => undo(e.currentTarget) }, t('console.undo'), key('U'))]);
  const offerUndo = (verb, booking) => {
    undoable = booking.undoUntil ? { verb, booking, until: Date.parse(booking.undoUntil) } : null;
    drawUndo();
  };
  const undo = (button) => busy(button, async () => {
    const { booking } = undoable;
    const answer = await act('POST', '/management/bookings/undo', { bookingId: booking.id });
    offerUndo('', {});
    calledHere.delete(booking.id);
    heldChanged = true;
    put({ ...booking, ...answer.result, resourceId: answer.result.resourceId });
    setText(spoken, t('console.undone', { ticket: booking.ticket }));
  }, (error) => {
    offerUndo('', {});
    failed(error);
    reloadSoon();
  });

  const put = (booking) => {
    const before = waiting.length;
    waiting = waiting.filter((b) => b.id !== booking.id);
    held = held.filter((b) => b.id !== booking.id);
    current = current.filter((b) => b.id !== booking.id);
    if (booking.stage === 'CALLED' || booking.stage === 'SERVING') current.push(booking);
    else if (booking.stage === 'HELD') held.push(booking);
    total -= before - waiting.length; // those listed are not all who wait
    drawLists();
    reloadSoon();
  };

  const called = (booking) => {
    calledHere.set(booking.id, serverNow());
    setText(spoken, t('console.calledSpoken', { ticket: booking.ticket }));
  };

  const takeNext = (button) => !twice('next') && busy(button, async () => {
    const answer = await act('POST', '/management/queue/next', { resourceId: resource.id });
    called(answer.result);
    put(answer.result);
    offerUndo('assign', answer.result);
    // Not before a second press of the same key would be over.
    setTimeout(() => main.querySelector(`.patient[data-booking-id="${CSS.escape(answer.result.id)}"] [data-testid="start"]`)?.focus(), doublePress);
  }, (error) => {
    if (error.code === 'QUE-EMPTY') toast(t('console.empty'));
    else failed(error);
    reloadSoon();
  });

  const step = (verb, booking, button, extra = {}) => !twice(verb) && busy(button, async () => {
    const answer = await act('POST', `/management/bookings/${verb}`, { bookingId: booking.id, ...extra });
    const result = { ...booking, ...answer.result };
    offerUndo(verb, answer.result);
    if (verb === 'assign' || verb === 'recall') called(result);
    put(result);
    if (verb === 'return') setText(spoken, t('console.returned', { ticket: result.ticket }));
  }, (error) => {
    failed(error);
    if (error.status !== 401) reloadSoon();
  });

  const noShow = async (booking, button) => {
    setText(document.getElementById('confirm-title'), t('noShow.title', { ticket: booking.ticket }));
    setText(document.getElementById('confirm-text'), t('noShow.text'));
    setText(document.getElementById('confirm-yes'), t('noShow.yes'));
    if (await confirmed(document.getElementById('end-dialog'))) step('noShow', booking, button);
  };

  const pause = (button) => !twice('pause') && busy(button, async () => {
    const answer = await act('POST', `/management/queue/${paused ? 'resume' : 'pause'}`, { resourceId: resource.id });
    paused = answer.result?.paused ?? !paused;
    resource.paused = paused;
    drawTake();
  }, failed);

  const addWalkIn = (form) => !twice('walk-in') && busy(hook('walk-in-add'), async () => {
    const name = hook('walk-in-name').value.trim();
    const phoneTyped = hook('walk-in-phone').value.trim();
    const phone = phoneTyped ? contact(phoneTyped)?.phoneNumber : undefined;
    if (phoneTyped && !phone) { toast(t('signIn.badContact'), 'error'); hook('walk-in-phone').focus(); return; }
    const [firstName, ...rest] = name.split(/\s+/);
    const body = { type: hook('walk-in-type').value, assign: false, priority: Number(hook('walk-in-priority').value) };
    if (phone) body.customerIdentifier = { phone, firstName: firstName || undefined, lastName: rest.join(' ') || undefined };
    else if (name) body.customerIdentifier = { firstName, lastName: rest.join(' ') || undefined };
    if (hook('walk-in-here').checked) body.resourceFilters = { resource: resource.id };
    made = await act('PUT', '/management/scheduling/new', body);
    form.reset();
    drawMade();
    reloadSoon();
  }, failed);

  // -- drawing --

  const recallState = (booking) => {
    const left = recallLimit - (booking.recallCount ?? 0);
    const last = Math.max(Date.parse(booking.calledAt ?? '') || 0, calledHere.get(booking.id) ?? 0);
    return { left, seconds: Math.max(0, Math.ceil((last + recallGap - serverNow()) / 1000)) };
  };

  const recallText = (booking) => {
    const { left, seconds } = recallState(booking);
    if (left <= 0) return t('console.recallNone');
    return seconds > 0 ? t('console.recallIn', { seconds, n: left }) : t('console.recall', { n: left });
  };

  const fullName = (booking) => [booking.customer?.firstName, booking.customer?.lastName].filter(Boolean).join(' ') || booking.note || t('console.noName');
  const typeName = (booking) => named(booking.type) || named(types.find((type) => type.id === booking.typeId));
  const since = (moment) => (moment ? ago(serverNow() - Date.parse(moment)) : '');
  const key = (letter) => (shortcuts.on ? h('kbd', { 'aria-hidden': 'true' }, letter) : null);

  const card = (booking, index) => {
    const { left, seconds } = recallState(booking);
    const first = index === 0;
    const serving = booking.stage === 'SERVING';
    return h('article', { class: 'patient', 'data-booking-id': booking.id, 'data-stage': booking.stage, 'aria-label': booking.ticket },
      h('div', { class: 'who' },
        h('strong', { class: 'number figures' }, booking.ticket),
        h('div', { class: 'detail' }, h('strong', { dir: 'auto' }, fullName(booking)), h('span', {}, typeName(booking)),
          booking.customer?.phone && h('span', {}, h('bdi', { dir: 'ltr' }, booking.customer.phone))),
        h('span', { class: 'stage', 'data-since': (serving ? booking.startedAt : booking.calledAt) ?? '', 'data-stage-text': t(`stage.${booking.stage}`) }, t(`stage.${booking.stage}`))),
      h('div', { class: 'actions' },
        !serving && h('button', { type: 'button', class: 'button primary', 'data-testid': 'start', onclick: (e) => step('start', booking, e.currentTarget) }, t('console.start'), first && key('S')),
        h('button', { type: 'button', class: serving ? 'button primary' : 'button', 'data-testid': 'end', onclick: (e) => step('end', booking, e.currentTarget) }, t('console.end'), first && key('E')),
        !serving && h('button', { type: 'button', class: 'button', 'data-testid': 'recall', disabled: left <= 0 || seconds > 0, onclick: (e) => step('recall', booking, e.currentTarget) }, h('span', { class: 'recall-text' }, recallText(booking)), first && key('R')),
        !serving && h('button', { type: 'button', class: 'button danger', 'data-testid': 'no-show', onclick: (e) => noShow(booking, e.currentTarget) }, t('console.noShow'), first && key('X'))));
  };

  const drawTake = () => {
    const region = document.getElementById('take');
    if (!region) return;
    region.className = paused ? 'take paused' : 'take';
    fill(region,
      paused && h('p', { class: 'paused-note', role: 'status' }, t('console.pausedNote')),
      h('p', { class: 'count' }, h('b', { class: 'figures', 'data-testid': 'waiting-count' }, total === null ? '–' : String(total)), h('span', {}, t('console.waiting', { n: total ?? 0 }))),
      h('div', { class: 'go' },
        h('button', { type: 'button', class: 'button primary', 'data-testid': 'take-next', disabled: paused, onclick: (e) => takeNext(e.currentTarget) }, t('console.takeNext'), key('N')),
        h('button', { type: 'button', class: 'button', 'data-testid': 'pause', 'aria-pressed': String(paused), onclick: (e) => pause(e.currentTarget) }, t(paused ? 'console.resume' : 'console.pause'), key('P'))));
  };

  const row = (booking, acts) => h('li', { 'data-booking-id': booking.id },
    h('strong', { class: 'number figures' }, booking.ticket),
    h('div', { class: 'detail' }, h('strong', { dir: 'auto' }, fullName(booking)),
      h('span', {}, booking.priority > 0 && [h('b', { class: 'urgent' }, t('console.priority', { n: booking.priority })), ' · '], typeName(booking), ' · ', h('span', { 'data-ago': booking.createdAt }, since(booking.createdAt)))),
    h('div', { class: 'acts' }, acts));

  // What a row shows of a booking.
  const shown = (booking) => [booking.id, booking.ticket, fullName(booking), booking.priority, typeName(booking), booking.createdAt];

  // Only what has changed is drawn anew: a button that is replaced between press
  // and release takes no click.
  const drawn = new WeakMap();
  const redraw = (place, state, children) => {
    const now = JSON.stringify(state);
    if (drawn.get(place) === now) return;
    drawn.set(place, now);
    fill(place, children());
  };

  const drawLists = () => {
    drawTake();
    const cards = document.getElementById('current');
    if (!cards) return;
    redraw(cards, current, () => (current.length ? current.map(card) : h('p', { class: 'box empty' }, t('console.noneHere'))));
    redraw(hook('waiting'), waiting.map(shown), () => waiting.map((booking) => row(booking, [
      h('button', { type: 'button', class: 'button', 'data-testid': `hold-${booking.id}`, 'aria-label': t('console.holdTicket', { ticket: booking.ticket }), onclick: (e) => step('hold', booking, e.currentTarget) }, t('console.hold')),
      h('button', { type: 'button', class: 'button', 'data-testid': `take-${booking.id}`, 'aria-label': t('console.takeTicket', { ticket: booking.ticket }), onclick: (e) => step('assign', booking, e.currentTarget, { resourceId: resource.id }) }, t('console.take')),
    ])));
    document.getElementById('empty').hidden = waiting.length > 0;
    document.getElementById('held-box').hidden = held.length === 0;
    redraw(hook('held'), held.map(shown), () => held.map((booking) => row(booking, [
      h('button', { type: 'button', class: 'button', 'data-testid': `return-${booking.id}`, 'aria-label': t('console.returnTicket', { ticket: booking.ticket }), onclick: (e) => step('return', booking, e.currentTarget) }, t('console.return')),
    ])));
    tick();
  };

  const drawMade = () => {
    const place = document.getElementById('made');
    if (!place) return;
    fill(place, made && h('div', { class: 'made', role: 'status' },
      h('b', { class: 'number figures', 'data-testid': 'walk-in-ticket' }, made.ticket),
      h('p', {}, t('walkIn.made')),
      made.ticketUrl && h('div', { class: 'links' },
        h('a', { href: made.ticketUrl, target: '_blank', rel: 'noopener', 'data-testid': 'walk-in-link', dir: 'ltr' }, t('walkIn.open')),
        h('button', { type: 'button', class: 'button', onclick: async () => toast(await copy(made.ticketUrl)) }, t('walkIn.copy')))));
  };

  // Only texts that count seconds change here; nothing is rebuilt under a finger.
  const tick = () => {
    for (const booking of current) {
      const element = main.querySelector(`.patient[data-booking-id="${CSS.escape(booking.id)}"]`);
      const recall = element && hook('recall', element);
      if (recall) {
        const { left, seconds } = recallState(booking);
        setText(recall.querySelector('.recall-text'), recallText(booking));
        if (recall.getAttribute('aria-busy') !== 'true') recall.disabled = left <= 0 || seconds > 0;
      }
      const stage = element?.querySelector('.stage');
      if (stage?.dataset.since) {
        const seconds = Math.max(0, Math.floor((serverNow() - Date.parse(stage.dataset.since)) / 1000));
        setText(stage, `${stage.dataset.stageText} · ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`);
      }
    }
    if (undoable && undoable.until < serverNow()) offerUndo('', {});
    for (const element of main.querySelectorAll('[data-ago]')) setText(element, since(element.dataset.ago));
  };

  const walkIn = () => h('form', { class: 'box walk-in', 'data-testid': 'walk-in', id: 'walk-in', onsubmit: (event) => { event.preventDefault(); addWalkIn(event.currentTarget); } },
    h('header', {}, h('h2', {}, t('walkIn.title')), key('W')),
    h('label', { class: 'field half' }, h('span', {}, t('walkIn.service')),
      h('select', { 'data-testid': 'walk-in-type' }, servedTypes().map((type) => h('option', { value: type.id }, named(type))))),
    h('label', { class: 'field half' }, h('span', {}, t('walkIn.priority')),
      h('select', { 'data-testid': 'walk-in-priority' }, [[0, 'routine'], [50, 'soon'], [100, 'urgent']].map(([value, name]) => h('option', { value: String(value) }, t(`priority.${name}`))))),
    h('label', { class: 'field half' }, h('span', {}, t('walkIn.name')),
      h('input', { 'data-testid': 'walk-in-name', autocomplete: 'off', maxlength: '80' })),
    h('label', { class: 'field half' }, h('span', {}, t('walkIn.phone')),
      h('input', { 'data-testid': 'walk-in-phone', type: 'tel', dir: 'ltr', autocomplete: 'off', inputmode: 'tel' })),
    h('label', { class: 'check' }, h('input', { type: 'checkbox', 'data-testid': 'walk-in-here' }), t('walkIn.here')),
    h('button', { class: 'button', 'data-testid': 'walk-in-add' }, t('walkIn.add')),
    h('div', { id: 'made' }));

  const servedTypes = () => {
    const ids = new Set(resource?.types ?? []);
    const served = types.filter((type) => ids.has(type.id));
    return served.length ? served : types;
  };

  const drawBar = () => fill(bar,
    h('select', { 'data-testid': 'resource', 'aria-label': t('console.resource'), onchange: (e) => choose(e.target.value) },
      resources.map((r) => h('option', { value: r.id, selected: r.id === resource?.id }, named(r)))),
    h('button', { type: 'button', class: 'quiet', 'data-testid': 'sign-out', onclick: () => { who.signOut().catch(() => {}); leave(); } }, t('signOut')));

  view = () => {
    drawBar();
    if (!resource) {
      fill(main, h('p', { class: 'box empty' }, t('console.noResource')));
      return;
    }
    fill(main,
      h('h1', { class: 'hidden-visually' }, t('console.heading', { room: named(resource) })),
      h('p', { class: 'stale-note', role: 'status' }, t('console.stale', { time: sign.at ? clock(sign.at) : '–' })),
      h('div', { class: 'desk' },
        h('div', {},
          h('section', { id: 'take', class: 'take', 'aria-label': t('console.takeNext') }),
          h('div', { class: 'undo', id: 'undo', role: 'status' }),
          h('section', { class: 'current', id: 'current', 'data-testid': 'current', 'aria-label': t('console.current') }),
          walkIn()),
        h('div', { class: 'side' },
          h('section', { class: 'box', 'aria-labelledby': 'waiting-title' },
            h('header', {}, h('h2', { id: 'waiting-title' }, t('console.waitingList'))),
            h('p', { class: 'empty', id: 'empty', hidden: true }, t('console.empty')),
            h('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-labelledby': 'waiting-title' }, h('ol', { class: 'waiting', 'data-testid': 'waiting' }))),
          h('section', { class: 'box', id: 'held-box', hidden: true, 'aria-labelledby': 'held-title' },
            h('header', {}, h('h2', { id: 'held-title' }, t('console.held'))),
            h('ol', { class: 'waiting', 'data-testid': 'held' })),
          h('section', { class: 'keys', 'aria-label': t('keys.title') },
            h('label', { class: 'check' }, h('input', { type: 'checkbox', checked: shortcuts.on, onchange: (e) => { shortcuts.on = e.target.checked; kept.set('ns.shortcuts', shortcuts.on); view(); } }), t('keys.title')),
            shortcuts.on && ['N', 'S', 'E', 'R', 'X', 'U', 'W', 'P'].map((letter) => h('span', {}, h('kbd', {}, letter), t(`keys.${letter}`)))))));
    drawLists();
    drawMade();
    drawUndo();
  };

  sign.onChange((state) => {
    if (state !== 'connected') setText(main.querySelector('.stale-note'), t('console.stale', { time: sign.at ? clock(sign.at) : '–' }));
  });

  // -- keys --

  const onKey = (event) => {
    if (!shortcuts.on || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest('input:not([type="checkbox"]), select, textarea, dialog[open]') || document.querySelector('dialog[open]')) return;
    // The letter printed on the key works under an Arabic layout too.
    const letter = event.code?.startsWith('Key') ? event.code.slice(3) : event.key.toUpperCase();
    const first = main.querySelector('.patient');
    const press = (button) => { if (button && !button.disabled) button.click(); };
    const does = {
      N: () => press(hook('take-next')), S: () => press(first && hook('start', first)), E: () => press(first && hook('end', first)),
      R: () => press(first && hook('recall', first)), X: () => press(first && hook('no-show', first)), P: () => press(hook('pause')), U: () => press(hook('undo')),
      W: () => hook('walk-in-name')?.focus(),
    }[letter];
    if (!does) return;
    event.preventDefault();
    does();
  };
  const onWake = () => { if (document.visibilityState === 'visible' && resource) { heldChanged = true; reloadSoon(); } };

  fill(main, h('p', { class: 'empty', 'aria-busy': 'true' }, t('loading')));
  try {
    // Only a provider is bound to the resources that name them.
    const path = who.user?.role === 'provider' ? '/management/resources/mine' : '/management/resources';
    const [found, offered] = await Promise.all([
      who.call('GET', path, { query: { limit: 100 } }),
      who.call('GET', '/management/types', { query: { limit: 100 } }),
    ]);
    resources = found.result ?? [];
    types = offered.result ?? [];
  } catch (error) {
    if (error.status === 401) { lost(); return; }
    fill(main, h('div', { class: 'box empty' }, h('p', { class: 'problem', role: 'alert' }, explain(error)),
      h('button', { type: 'button', class: 'button', onclick: () => openDesk(who) }, t('retry'))));
    if (error.status === 0) sign.set('disconnected');
    return;
  }
  document.addEventListener('keydown', onKey);
  document.addEventListener('visibilitychange', onWake);
  ticking = setInterval(tick, 1000);
  view();
  if (resources.length) choose(kept.get('ns.resource'));
  else sign.rest();
}

begin();
