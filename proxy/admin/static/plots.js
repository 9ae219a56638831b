/** How many were answered, how, and how fast, over the last minutes. */

import { h, s, say } from './dom.js';
import { instant, ms } from './format.js';

const BIN_MS = 5000;
const BINS = 60;
/** Of a bin so many latencies are kept: enough for a 95th percentile. */
const SAMPLES = 400;
const WIDTH = 300;
const HEIGHT = 64;
const KINDS = ['s2', 's3', 's4', 's5', 'ours'];
const NAMES = { s2: '2xx', s3: '3xx', s4: '4xx', s5: '5xx', ours: 'proxy error' };
/** Latencies span decades: a scale of powers of ten, from 1 ms to 100 s. */
const DECADES = 5;

function kindOf(exchange) {
  if (exchange.error) return 'ours';
  const kind = `s${Math.floor(exchange.status / 100)}`;
  return KINDS.includes(kind) ? kind : 's2';
}

function share(sorted, part) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] : null;
}

const height = (value) => HEIGHT - Math.min(1, Math.max(0, Math.log10(Math.max(1, value)) / DECADES)) * HEIGHT;

/** A line through the points there are, broken where there are none. */
function path(values) {
  const step = WIDTH / BINS;
  let isDown = false;
  return values.map((value, at) => {
    if (value === null) {
      isDown = false;
      return '';
    }
    const x = (at + 0.5) * step;
    const begin = isDown ? 'L' : `M${(x - step / 2).toFixed(1)} ${height(value).toFixed(1)}L`;
    isDown = true;
    return `${begin}${x.toFixed(1)} ${height(value).toFixed(1)}`;
  }).join('');
}

class TrafficPlots extends HTMLElement {
  #bins = new Map();
  #seen = new Set();
  #timer = 0;
  #isNew = true;

  connectedCallback() {
    this.#status = figure('Answers', KINDS.map((kind) => [kind, NAMES[kind]]));
    this.#latency = figure('Time taken', [['p50', 'half are faster'], ['p95', '95 % are faster']]);
    this.append(this.#status.element, this.#latency.element);
    this.#timer = setInterval(() => this.#render(), 1000);
    this.#render();
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
  }

  #status;
  #latency;

  /** One more ended. */
  add(exchange) {
    if (exchange.live || this.#seen.has(exchange.id)) return;
    const bin = Math.floor(instant(exchange.at) / BIN_MS);
    let here = this.#bins.get(bin);
    if (!here) {
      here = { counts: {}, times: [], ids: [] };
      this.#bins.set(bin, here);
    }
    const kind = kindOf(exchange);
    here.counts[kind] = (here.counts[kind] ?? 0) + 1;
    if (here.times.length < SAMPLES) here.times.push(exchange.ms);
    else here.times[Math.floor(Math.random() * SAMPLES)] = exchange.ms;
    here.ids.push(exchange.id);
    this.#seen.add(exchange.id);
    this.#isNew = true;
  }

  /** Show it now. */
  update() {
    this.#render();
  }

  #render() {
    if (document.hidden) return;
    const last = Math.floor(Date.now() / BIN_MS);
    for (const [bin, here] of this.#bins) {
      if (bin > last - BINS) continue;
      for (const id of here.ids) this.#seen.delete(id);
      this.#bins.delete(bin);
    }
    if (!this.#isNew && this.#drawn === last) return;
    this.#drawn = last;
    this.#isNew = false;
    const bins = Array.from({ length: BINS }, (_none, at) => this.#bins.get(last - BINS + 1 + at) ?? null);
    this.#drawStatus(bins);
    this.#drawLatency(bins);
  }

  #drawn = 0;

  #drawStatus(bins) {
    const sums = bins.map((bin) => (bin ? KINDS.reduce((sum, kind) => sum + (bin.counts[kind] ?? 0), 0) : 0));
    const most = Math.max(1, ...sums);
    const step = WIDTH / BINS;
    const bars = [];
    bins.forEach((bin, at) => {
      let y = HEIGHT;
      for (const kind of bin ? KINDS : []) {
        const size = ((bin.counts[kind] ?? 0) / most) * HEIGHT;
        if (!size) continue;
        y -= size;
        bars.push(s('rect', { class: `p-${kind}`, x: at * step + 0.5, y, width: step - 1, height: size }));
      }
    });
    const total = (kind) => bins.reduce((sum, bin) => sum + (bin?.counts[kind] ?? 0), 0);
    const told = KINDS.filter((kind) => total(kind)).map((kind) => `${total(kind)} with ${NAMES[kind]}`);
    this.#status.show(bars, `up to ${most} in 5 s`, `Last 5 minutes: ${told.join(', ') || 'no answers'}.`);
  }

  #drawLatency(bins) {
    const sorted = bins.map((bin) => (bin ? [...bin.times].sort((one, other) => one - other) : []));
    const all = sorted.flat().sort((one, other) => one - other);
    const grid = [1, 2, 3, 4].map((decade) => s('line', {
      class: 'rule', x1: 0, x2: WIDTH, y1: height(10 ** decade), y2: height(10 ** decade),
    }));
    const lines = [['p95', 0.95], ['p50', 0.5]].map(([kind, part]) => s('path', {
      class: `l-${kind}`, d: path(sorted.map((times) => share(times, part))),
    }));
    const told = all.length
      ? `Last 5 minutes: half took less than ${ms(share(all, 0.5))}, 95 % less than ${ms(share(all, 0.95))}.`
      : 'Last 5 minutes: nothing.';
    const short = all.length ? `${ms(share(all, 0.5))} / ${ms(share(all, 0.95))}` : '–';
    this.#latency.show([...grid, ...lines], short, told);
  }
}

function figure(title, legend) {
  const svg = s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': title });
  const short = h('span', { class: 'short' });
  const keys = legend.map(([kind, word]) => h('li', {}, h('span', { class: `key p-${kind}` }), word));
  const element = h('figure', {}, h('figcaption', {}, h('b', {}, title), short), svg, h('ul', { class: 'legend' }, keys));
  return {
    element,
    show(children, brief, told) {
      svg.replaceChildren(...children);
      svg.setAttribute('aria-label', told);
      say(short, brief);
    },
  };
}

customElements.define('traffic-plots', TrafficPlots);
