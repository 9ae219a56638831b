/** One exchange in full, why first. */

import { api } from './api.js';
import { attemptsView } from './attempts.js';
import { bodyView, forgetBodies } from './body.js';
import { discreet } from './discreet.js';
import { button, h } from './dom.js';
import { fieldTable } from './fields.js';
import { bytes, moment, ms, tone, verdict } from './format.js';
import { timingBar } from './timing.js';

class ExchangeDetail extends HTMLElement {
  #summary = null;
  #detail = null;
  #problem = '';
  #isKept = false;

  connectedCallback() {
    this.hidden = true;
  }

  get exchange() {
    return this.#summary;
  }

  /** All of it, once it is there. */
  get detail() {
    return this.#detail;
  }

  /** Are bodies kept now? */
  set isKept(isKept) {
    if (this.#isKept === isKept) return;
    this.#isKept = isKept;
    this.update();
  }

  /** Show this one. */
  async open(summary) {
    const isOther = this.#summary?.id !== summary.id;
    this.#summary = summary;
    this.hidden = false;
    if (isOther) {
      this.#detail = null;
      this.#problem = '';
      this.scrollTop = 0;
      this.update();
    }
    try {
      const detail = await api.exchange(summary.id);
      if (this.#summary?.id !== summary.id) return;
      this.#detail = detail;
      this.#problem = '';
    } catch (error) {
      if (this.#summary?.id !== summary.id) return;
      this.#problem = summary.live
        ? 'It goes on. All of it shows here when it has ended.'
        : error.status === 404 ? 'It is not kept any more.' : error.message;
    }
    this.update();
  }

  close() {
    this.hidden = true;
    this.#summary = this.#detail = null;
    this.replaceChildren();
    forgetBodies();
  }

  /** Show it anew. */
  update() {
    if (!this.#summary) return;
    forgetBodies();
    const shown = this.#detail ?? this.#summary;
    const hadFocus = this.contains(document.activeElement) && document.activeElement !== this;
    this.replaceChildren(this.#head(shown), ...(this.#detail ? this.#parts(this.#detail) : [this.#waiting()]));
    if (hadFocus) this.querySelector('h2').focus({ preventScroll: true });
  }

  #waiting() {
    return h('p', { class: 'why' }, discreet.sentence(this.#problem) || 'One moment …');
  }

  #head(shown) {
    const act = (name) => () => this.dispatchEvent(new CustomEvent('act', { detail: name }));
    return h(
      'header',
      { class: 'title' },
      h('div', { class: 'line' },
        button('Close', act('close'), { class: 'back', 'aria-label': 'Close the exchange' }),
        h('h2', { tabindex: -1 },
          h('span', { class: `status ${tone(shown)}`, title: verdict(shown) }, shown.status ? String(shown.status) : '…'),
          ` ${shown.method} `,
          h('span', { class: 'path' }, discreet.path(shown.path) + discreet.query(shown.query)))),
      h('div', { class: 'acts' },
        button('Replay', act('replay')),
        button('Edit and replay', act('edit'), { disabled: discreet.on || !this.#detail }),
        button('Copy as curl', act('curl'))),
    );
  }

  #parts(detail) {
    const keep = () => this.dispatchEvent(new CustomEvent('act', { detail: 'keep' }));
    const options = { isKept: this.#isKept, keep };
    const isRetried = detail.attempts.length > 1;
    return [
      h('p', { class: `why ${tone(detail)}` }, discreet.sentence(detail.why)),
      part('Timing', timingBar(detail.timing)),
      part('Facts', this.#facts(detail)),
      part(isRetried ? 'Both attempts' : 'Upstream', attemptsView(detail.attempts)),
      part('Request', ...(detail.request
        ? [fieldTable('Came', detail.request.fields), bodyView(detail.request.body, options)]
        : [h('p', { class: 'none' }, 'It could not be read.')])),
      part(`Response ${detail.response.status ?? ''}`,
        fieldTable('Went to the client', detail.response.fields), bodyView(detail.response.body, options)),
    ];
  }

  #facts(detail) {
    const rows = [
      ['At', moment(detail.at)],
      ['Client', discreet.host(detail.client)],
      ['Route', detail.route ?? 'none'],
      ['Credential', detail.credential ? `${detail.credential}, generation ${detail.generation}` : 'none'],
      ['Retried', detail.retried ? `yes, ${detail.refusals} refused` : 'no'],
      ['Bytes', `${bytes(detail.bytes_in)} in, ${bytes(detail.bytes_out)} out`],
      ['Took', ms(detail.ms)],
      ['Protocol', detail.request ? `HTTP/${detail.request.http}, ${detail.kind}` : detail.kind],
      ['Id', detail.id],
      ...(detail.error ? [['Error', detail.error]] : []),
    ];
    return h('dl', { class: 'facts' }, rows.map(([word, value]) => h('div', {}, h('dt', {}, word), h('dd', {}, value))));
  }
}

function part(title, ...children) {
  return h('section', { class: 'part', 'aria-label': title }, h('h3', {}, title), children);
}

customElements.define('exchange-detail', ExchangeDetail);
