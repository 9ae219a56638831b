/** The page: what happens reaches the list, the cards and the plots; keys and buttons do the same things. */

import './credentials.js';
import './detail.js';
import './list.js';
import './plots.js';
import { api } from './api.js';
import { BODY_BYTES } from './body.js';
import { discreet } from './discreet.js';
import { download, h, inFrame, say } from './dom.js';
import { filter, mistake, toggled } from './filter.js';
import { help, listen } from './keys.js';
import { copyCurl, editDialog, leftOut } from './replay.js';
import { Store } from './store.js';
import { Stream } from './stream.js';
import { theme, turn } from './theme.js';

const SCREENFUL = 20;
const TOAST_MS = 6000;
const FOLLOW_MS = 90;
const SAY_MS = 2000;

const get = (id) => document.getElementById(id);
const list = document.querySelector('exchange-list');
const detail = document.querySelector('exchange-detail');
const strip = document.querySelector('credential-strip');
const plots = document.querySelector('traffic-plots');
const store = new Store();
/** How much is kept of each body now. */
let kept = 0;
let following = 0;
/** The exchange that is shown as soon as it comes. */
let awaited = null;
/** What has come since the list was asked for; null: it is there. */
let meanwhile = null;

// -- saying things

function toast(words, kind = '') {
  if (!words) return;
  const made = h('p', { class: `toast ${kind}` }, discreet.sentence(words));
  get('toasts').append(made);
  setTimeout(() => made.remove(), TOAST_MS);
}

const count = inFrame(() => {
  const { shown, all, paused, waiting } = store;
  const held = paused ? ` · paused, ${waiting} new` : '';
  say(get('count'), `${shown.length === all.length ? '' : `${shown.length} of `}${all.length} exchanges${held}`);
});

// A screen reader is told no more often than one can listen to.
setInterval(() => say(get('said'), get('count').textContent), SAY_MS);

function changed() {
  list.update();
  count();
}

/** Do it; say what went wrong. Gives what it gave, or undefined. */
async function tried(work) {
  try {
    return await work();
  } catch (error) {
    toast(error.message, 'bad');
    return undefined;
  }
}

// -- what comes

function take(exchange) {
  meanwhile?.push(exchange);
  store.add(exchange);
  plots.add(exchange);
  if (exchange.id === awaited) show(exchange);
  else if (detail.exchange?.id === exchange.id) detail.open(exchange);
  changed();
}

const events = {
  exchange: take,
  credential: (told) => strip.take(told),
  token: (told) => strip.happened(told),
  message: (told) => detail.said(told),
  lost: () => load(),
};

/** What is there now, and what comes while that is asked for. */
async function load() {
  const came = [];
  meanwhile = came;
  const settings = await api.settings();
  store.capacity = settings.exchanges || store.capacity;
  setKept(settings.bodies);
  const [found, reports, timelines] = await Promise.all([
    api.exchanges(store.capacity), api.credentials(), api.timelines(),
  ]);
  // Numbers begin anew with the process.
  const newest = Math.max(0, ...found.exchanges.map((each) => each.number));
  if (wasGone && store.newest > newest) toast('The proxy restarted. What it had kept before is gone.');
  store.capacity = found.capacity || store.capacity;
  store.replace(found.exchanges);
  for (const exchange of came) store.add(exchange);
  if (meanwhile === came) meanwhile = null;
  for (const exchange of found.exchanges) plots.add(exchange);
  plots.update();
  strip.reports = reports.map((each) => ({ ...each, timeline: timelines[each.name] ?? [] }));
  list.select(store.find(list.current?.id));
  changed();
}

let wasGone = false;

const stream = new Stream(
  (kind, told) => events[kind](told),
  async (state) => {
    const link = get('link');
    link.dataset.state = state;
    if (state === 'live') {
      say(link, 'live');
      await tried(load);
      if (wasGone) toast('Connected again.');
      wasGone = false;
      openNamed();
      return;
    }
    wasGone = true;
    say(link, 'no connection: trying again');
    // An event source does not tell why.
    const error = await api.settings().then(() => null, (failed) => failed);
    if (error?.status === 401) say(link, 'the key is not valid any more: open the address that the proxy printed');
  },
);

// -- one exchange

function show(exchange) {
  awaited = null;
  list.select(exchange);
  get('split').classList.add('open');
  history.replaceState(null, '', `#${encodeURIComponent(exchange.id)}`);
  return detail.open(exchange);
}

/** The one that the address names. */
function openNamed() {
  const id = decodeURIComponent(location.hash.slice(1));
  const named = id && !detail.exchange && store.find(id);
  if (named) show(named);
}

function close() {
  detail.close();
  get('split').classList.remove('open');
  history.replaceState(null, '', location.pathname);
  list.focus();
}

async function sentAgain(id, changes) {
  const answer = await api.replay(id, changes);
  toast(`Sent again: ${answer.status}.${leftOut(answer.left_out)}`);
  if (!answer.id) return;
  awaited = answer.id;
  const there = store.find(answer.id);
  if (there) await show(there);
}

async function keep(bytes) {
  const settings = await api.keepBodies(bytes);
  setKept(settings.bodies ?? bytes);
  toast(kept ? 'From now on bodies are kept, masked, until the proxy ends.' : 'Bodies are not kept any more.');
}

function setKept(bytes) {
  kept = bytes;
  detail.isKept = kept > 0;
  get('bodies').setAttribute('aria-pressed', kept > 0);
  say(get('bodies'), kept ? 'Bodies: on' : 'Bodies: off');
}

// -- what one can do

/** The exchange that is open, else the current one. */
const chosen = () => detail.exchange ?? list.current;

const acts = {
  down: () => list.move(1),
  up: () => list.move(-1),
  far: () => list.move(SCREENFUL),
  near: () => list.move(-SCREENFUL),
  newest: () => list.move(-store.shown.length),
  oldest: () => list.move(store.shown.length),
  open: () => list.open(),
  close: () => (document.activeElement === get('filter') ? list.focus() : close()),
  filter: () => get('filter').select(),
  pause: () => {
    store.pause(!store.paused);
    get('pause').setAttribute('aria-pressed', store.paused);
    say(get('pause'), store.paused ? 'Go on' : 'Pause');
    changed();
  },
  clear: () => tried(async () => {
    await api.clear();
    store.replace([]);
    close();
    changed();
  }),
  replay: () => chosen() && tried(() => sentAgain(chosen().id, {})),
  edit: () => {
    const shown = detail.detail;
    if (discreet.on) toast(discreet.reason);
    else if (shown) editDialog(shown, (changes) => sentAgain(shown.id, changes));
  },
  curl: () => {
    if (discreet.on) toast(discreet.reason);
    else if (chosen()) tried(async () => toast(await copyCurl(chosen().id)));
  },
  har: () => chosen() && handOut([chosen()], `exchange-${chosen().number}.har`),
  harOfShown: () => handOut(store.shown, 'exchanges.har'),
  keep: () => tried(() => keep(BODY_BYTES)),
  bodies: () => tried(() => keep(kept ? 0 : BODY_BYTES)),
  theme: () => say(get('theme'), `Theme: ${turn()}`),
  discreet: () => {
    discreet.set(!discreet.on);
    get('discreet').setAttribute('aria-pressed', discreet.on);
    get('toasts').replaceChildren();
    detail.update();
    strip.update();
    offerHar();
    changed();
  },
  help,
};

/** These exchanges as a HAR file; those that go on are not whole yet. */
function handOut(exchanges, name) {
  const ids = exchanges.filter((each) => !each.live).map((each) => each.id);
  if (discreet.on) toast(discreet.reason);
  else tried(async () => download(await api.har(ids), name));
}

function offerHar() {
  get('har').disabled = discreet.on;
  get('har').title = discreet.reason ?? 'All that the filter lets through as a HAR file';
}

function refilter() {
  const { value } = get('filter');
  store.filter(filter(value), mistake(value));
  const terms = value.split(/\s+/);
  for (const chip of document.querySelectorAll('[data-term]')) {
    chip.setAttribute('aria-pressed', terms.includes(chip.dataset.term));
  }
  changed();
}

for (const name of ['bodies', 'discreet', 'theme', 'help', 'pause', 'clear']) {
  get(name).addEventListener('click', () => acts[name]());
}
for (const chip of document.querySelectorAll('[data-term]')) {
  chip.addEventListener('click', () => {
    get('filter').value = toggled(get('filter').value, chip.dataset.term);
    refilter();
  });
}
get('har').addEventListener('click', acts.harOfShown);
get('filter').addEventListener('input', refilter);
get('filter').addEventListener('keydown', (event) => event.key === 'Enter' && list.focus());
list.addEventListener('choose', ({ detail: { exchange, isOpened } }) => {
  clearTimeout(following);
  if (isOpened) {
    show(exchange).then(() => detail.querySelector('h2')?.focus({ preventScroll: true }));
  } else if (detail.exchange) following = setTimeout(() => show(exchange), FOLLOW_MS);
});
detail.addEventListener('act', ({ detail: name }) => acts[name]());
strip.refresh = (name) => tried(async () => {
  const report = await api.refresh(name);
  strip.take(report);
  toast(`Credential ${name}: generation ${report.generation}.`);
});
listen((name) => acts[name]());

say(get('theme'), `Theme: ${theme()}`);
offerHar();
get('overview').open = !matchMedia('(max-width: 760px)').matches;
list.store = store;
stream.open();
