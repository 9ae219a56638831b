/** A card for each credential: its state, how long its token lives on, what became of it, and a button. */

import { discreet } from './discreet.js';
import { button, h, say } from './dom.js';
import { left } from './format.js';
import { history, timeline } from './timeline.js';

const EVENTS_MOST = 100;
const WORDS = { fresh: 'fresh', stale: 'due for refresh', invalid: 'not usable' };
const SOON_SECONDS = 60;
const ANEW_SECONDS = 15;

/** When, by the clock of this page: the proxy's own may differ. */
const at = (seconds) => (typeof seconds === 'number' ? Date.now() + seconds * 1000 : null);

class Card {
  #report;
  #refresh;
  #drawn = 0;

  constructor(report, refresh) {
    this.name = report.name;
    this.#refresh = refresh;
    this.state = h('span', { class: 'state' });
    this.facts = h('p', { class: 'life' });
    this.line = h('div', { class: 'line' });
    this.error = h('p', { class: 'error' });
    this.list = h('div', {});
    this.events = [];
    this.button = button('Refresh', () => this.#ask(), { 'aria-label': `Refresh credential ${report.name}` });
    this.element = h(
      'article',
      { class: 'card', 'aria-label': `Credential ${report.name}` },
      h('header', {}, h('h2', {}, report.name), this.state, this.button),
      this.facts,
      this.line,
      this.error,
      h('details', {}, h('summary', {}, 'Events'), this.list),
    );
    this.take(report);
  }

  take(report) {
    this.#report = report;
    this.expires = at(report.expires_in);
    this.next = at(report.next_attempt_in);
    if (Array.isArray(report.timeline)) this.events = report.timeline.slice(-EVENTS_MOST);
    this.draw();
  }

  happened(event) {
    this.events = [...this.events, event].slice(-EVENTS_MOST);
    this.draw();
  }

  draw() {
    const report = this.#report;
    say(this.state, WORDS[report.state] ?? report.state);
    this.state.className = `state is-${report.state}`;
    say(this.error, report.last_error ? discreet.sentence(report.last_error) : '');
    this.error.hidden = !report.last_error;
    this.line.replaceChildren(timeline(this.events, Date.now(), this.expires, this.next));
    this.list.replaceChildren(this.events.length ? history(this.events) : h('p', { class: 'none' }, 'None yet.'));
    this.#drawn = Date.now();
    this.tick();
  }

  /** Time has passed. */
  tick() {
    const report = this.#report;
    const words = [report.generation ? `generation ${report.generation}` : 'no token yet'];
    const seconds = this.expires === null ? null : (this.expires - Date.now()) / 1000;
    if (seconds === null && report.generation) words.push('no expiry known');
    else if (seconds !== null) words.push(seconds > 0 ? `expires in ${left(seconds)}` : 'expired');
    if (this.next !== null) words.push(`next attempt in ${left((this.next - Date.now()) / 1000)}`);
    if (report.persisted === false) words.push('not stored: lost at a restart');
    say(this.facts, words.join(' · '));
    this.facts.classList.toggle('soon', seconds !== null && seconds < SOON_SECONDS);
    if (Date.now() - this.#drawn > ANEW_SECONDS * 1000) this.draw();
  }

  async #ask() {
    this.button.disabled = true;
    say(this.button, 'Refreshing …');
    try {
      await this.#refresh(this.name);
    } finally {
      this.button.disabled = false;
      say(this.button, 'Refresh');
    }
  }
}

class CredentialStrip extends HTMLElement {
  #cards = new Map();
  #timer = 0;

  /** `refresh(name)` gets a new token; it tells what went wrong itself. */
  refresh = async () => {};

  connectedCallback() {
    this.#timer = setInterval(() => {
      if (!document.hidden) for (const card of this.#cards.values()) card.tick();
    }, 1000);
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
  }

  /** These are all there are. */
  set reports(reports) {
    const names = new Set(reports.map((report) => report.name));
    for (const [name, card] of this.#cards) {
      if (!names.has(name)) {
        card.element.remove();
        this.#cards.delete(name);
      }
    }
    for (const report of reports) this.take(report);
    if (!reports.length) this.replaceChildren(h('p', { class: 'none' }, 'No credential is configured.'));
  }

  /** The state of one. */
  take(report) {
    const card = this.#cards.get(report.name);
    if (card) card.take(report);
    else {
      if (!this.#cards.size) this.replaceChildren();
      const made = new Card(report, (name) => this.refresh(name));
      this.#cards.set(report.name, made);
      this.append(made.element);
    }
  }

  /** Something became of one's token. */
  happened(event) {
    this.#cards.get(event.credential)?.happened(event);
  }

  update() {
    for (const card of this.#cards.values()) card.draw();
  }
}

customElements.define('credential-strip', CredentialStrip);
