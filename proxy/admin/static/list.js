/** The list of exchanges, the newest on top. Only the rows that can be seen are in the document. */

import { discreet } from './discreet.js';
import { h, inFrame, say } from './dom.js';
import { bytes, clock, ms, tone, verdict } from './format.js';

/** Of a row, in pixels; `--row` in the style sheet is the same. */
const ROW = 32;
/** Rows beyond the edges, so that quick scrolling shows no gap. */
const SPARE = 6;
const COLUMNS = [
  ['at', 'Time'], ['method', 'Method'], ['status', 'Code'], ['route', 'Route'], ['path', 'Path'],
  ['marks', 'Marks'], ['ms', 'Took'], ['size', 'Size'],
];

/** What is special about it, in words. */
function marks(exchange) {
  const found = [];
  if (exchange.live) found.push('live');
  if (exchange.kind !== 'http') found.push(exchange.kind);
  if (exchange.retried) found.push('retried');
  else if (exchange.refusals > 0) found.push('refused');
  if (exchange.error) found.push(exchange.error);
  return found;
}

function row() {
  const cells = COLUMNS.map(([name]) => h('span', { role: 'gridcell', class: `c-${name}` }));
  const made = h('div', { role: 'row', class: 'row' }, cells);
  made.cells = Object.fromEntries(COLUMNS.map(([name], at) => [name, cells[at]]));
  return made;
}

function show(made, exchange) {
  const { cells } = made;
  say(cells.at, clock(exchange.at));
  say(cells.method, exchange.method);
  say(cells.status, exchange.status ? String(exchange.status) : '…');
  cells.status.className = `c-status ${tone(exchange)}`;
  cells.status.title = verdict(exchange);
  say(cells.route, exchange.route ?? '–');
  say(cells.path, discreet.path(exchange.path) + discreet.query(exchange.query));
  cells.path.title = cells.path.textContent;
  const found = marks(exchange);
  if (cells.marks.dataset.found !== found.join(' ')) {
    cells.marks.dataset.found = found.join(' ');
    cells.marks.replaceChildren(...found.map((mark) => h('span', { class: `mark ${tagged(mark)}` }, mark)));
  }
  say(cells.ms, exchange.live ? '…' : ms(exchange.ms));
  say(cells.size, bytes(exchange.bytes_out));
}

const tagged = (mark) => (['live', 'retried', 'refused', 'sse', 'websocket'].includes(mark) ? mark : 'ours');

class ExchangeList extends HTMLElement {
  #store = null;
  #rows = [];
  #current = null;
  #top = null;
  /** The newest of those that were drawn last. */
  #newest = null;
  #draw = inFrame(() => this.#render());

  connectedCallback() {
    this.#space = h('div', { role: 'rowgroup', class: 'space' });
    const heads = COLUMNS.map(([name, word]) => h('span', { role: 'columnheader', class: `c-${name}` }, word));
    this.#grid = h(
      'div',
      { role: 'grid', tabindex: 0, class: 'grid', 'aria-label': 'Exchanges, newest first', 'aria-colcount': COLUMNS.length },
      h('div', { role: 'rowgroup', class: 'heads' }, h('div', { role: 'row', class: 'row head', 'aria-rowindex': 1 }, heads)),
      this.#space,
    );
    this.#empty = h('p', { class: 'empty' });
    this.append(this.#grid, this.#empty);
    this.#grid.addEventListener('scroll', () => {
      this.#mark();
      this.#draw();
    }, { passive: true });
    this.#grid.addEventListener('click', (event) => {
      const id = event.target.closest('.row')?.dataset.id;
      if (id) this.#choose(this.#store.find(id), true);
    });
    new ResizeObserver(() => this.#draw()).observe(this.#grid);
  }

  #grid;
  #space;
  #empty;

  /** Whose `shown` it shows. */
  set store(store) {
    this.#store = store;
    this.update();
  }

  /** The exchange that keys act on. */
  get current() {
    return this.#current;
  }

  /** Something changed; what one looks at stays where it is, unless that is the top. */
  update() {
    this.#draw();
  }

  focus() {
    this.#grid.focus({ preventScroll: true });
  }

  /** Go `steps` down, or up; `open` tells those who listen to show it. */
  move(steps) {
    const { shown } = this.#store;
    if (!shown.length) return;
    const at = this.#store.position(this.#current);
    // Without a current one the first step leads to the newest.
    const wanted = (at < 0 ? shown.length : at) - steps;
    this.#choose(shown[Math.min(shown.length - 1, Math.max(0, wanted))], false);
    this.#reveal();
  }

  /** Make this the current one, without opening it. */
  select(exchange) {
    this.#current = exchange ?? null;
    this.#draw();
  }

  /** Show the current one in full. */
  open() {
    if (this.#current) this.#choose(this.#current, true);
  }

  #choose(exchange, isOpened) {
    if (!exchange) return;
    this.#current = exchange;
    this.#draw();
    this.dispatchEvent(new CustomEvent('choose', { detail: { exchange, isOpened } }));
  }

  #reveal() {
    const y = (this.#store.shown.length - 1 - this.#store.position(this.#current)) * ROW;
    const seen = this.#grid.clientHeight - 2 * ROW;
    if (y < this.#grid.scrollTop) this.#grid.scrollTop = y;
    else if (y > this.#grid.scrollTop + seen) this.#grid.scrollTop = y - seen;
    this.#mark();
  }

  /** Remember what is on top. */
  #mark() {
    const { shown } = this.#store;
    const { scrollTop } = this.#grid;
    // What came since the list was drawn is above none of it yet.
    const newest = this.#store.position(this.#newest);
    const index = (newest < 0 ? shown.length - 1 : newest) - Math.floor(scrollTop / ROW);
    this.#top = scrollTop < ROW / 2 ? null : shown[index] ?? null;
  }

  #render() {
    if (!this.#store) return;
    const { shown } = this.#store;
    const count = shown.length;
    const height = `${count * ROW}px`;
    if (this.#space.style.height !== height) this.#space.style.height = height;
    this.#grid.setAttribute('aria-rowcount', count + 1);

    // 1. What was on top stays there, however many came above it.
    const at = this.#store.position(this.#top);
    this.#newest = shown.at(-1) ?? null;
    if (at >= 0) {
      const offset = this.#grid.scrollTop % ROW;
      const wanted = (count - 1 - at) * ROW + offset;
      if (Math.floor(this.#grid.scrollTop / ROW) !== count - 1 - at) this.#grid.scrollTop = wanted;
    }

    // 2. A row for each that can be seen. Rows go by the place from the oldest: who comes on top moves them, no more.
    const first = Math.max(0, Math.floor(this.#grid.scrollTop / ROW) - SPARE);
    const last = Math.min(count, Math.ceil((this.#grid.scrollTop + this.#grid.clientHeight) / ROW) + SPARE);
    const wanted = Math.max(0, last - first);
    while (this.#rows.length < wanted) {
      const made = row();
      this.#rows.push(made);
      this.#space.append(made);
    }
    while (this.#rows.length > wanted) this.#rows.pop().remove();
    for (let line = first; line < last; line += 1) {
      const index = count - 1 - line;
      this.#place(this.#rows[index % wanted], shown[index], line);
    }

    // 3. Who listens is told which is the current one.
    const active = this.#current && this.#space.querySelector('.row.current');
    if (active) this.#grid.setAttribute('aria-activedescendant', active.id);
    else this.#grid.removeAttribute('aria-activedescendant');
    this.#empty.hidden = count > 0;
    say(
      this.#empty,
      this.#store.all.length
        ? this.#store.mistake || 'Nothing matches the filter.'
        : 'Nothing yet. Send a request through the proxy, and it shows here at once.',
    );
  }

  #place(made, exchange, line) {
    made.dataset.id = exchange.id;
    made.id = `row-${exchange.number}`;
    made.style.transform = `translateY(${line * ROW}px)`;
    made.setAttribute('aria-rowindex', line + 2);
    const isCurrent = this.#current?.id === exchange.id;
    made.classList.toggle('current', isCurrent);
    made.setAttribute('aria-selected', isCurrent);
    show(made, exchange);
  }
}

customElements.define('exchange-list', ExchangeList);
