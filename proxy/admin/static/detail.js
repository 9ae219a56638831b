/** One exchange in full, why first. */

import { api } from './api.js';
import { attemptsView } from './attempts.js';
import { bodyView, forgetBodies } from './body.js';
import { discreet } from './discreet.js';
import { button, h } from './dom.js';
import { fieldTable } from './fields.js';
import { bytes, moment, ms, tone, verdict } from './format.js';
import { Messages } from './messages.js';
import { timingBar } from './timing.js';

/** So many messages are remembered beside those that the proxy keeps. */
const HEARD_MOST = 500;

class ExchangeDetail extends HTMLElement {
  #summary = null;
  #detail = null;
  #problem = '';
  #isKept = false;
  /** Those that are shown, and those that came since the exchange was opened. */
  #messages = null;
  #heard = [];

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
      this.#heard = [];
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
      this.#problem = error.status === 404 ? 'It is not kept any more.' : error.message;
    }
    this.update();
  }

  /** A message of some exchange came. */
  said(message) {
    if (message.id !== this.#summary?.id) return;
    this.#heard.push(message);
    if (this.#heard.length > HEARD_MOST) this.#heard.shift();
    if (this.#messages) this.#messages.add(message);
    else if (this.#detail) this.update();
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
    this.#messages = null;
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
        button('Edit and replay', act('edit'), { disabled: discreet.on || !this.#detail, title: discreet.reason }),
        button('Copy as curl', act('curl'), { disabled: discreet.on, title: discreet.reason }),
        button('HAR', act('har'), { disabled: discreet.on || shown.live, title: discreet.reason ?? 'This exchange as a HAR file' })),
    );
  }

  #parts(detail) {
    const keep = () => this.dispatchEvent(new CustomEvent('act', { detail: 'keep' }));
    const options = { isKept: this.#isKept, keep, size: detail.live ? undefined : detail.bytes_in };
    const response = { ...options, size: detail.live ? undefined : detail.bytes_out, isTold: !!detail.messages && detail.kind === 'sse' };
    const isRetried = detail.attempts.length > 1;
    return [
      h('p', { class: `why ${tone(detail)}` }, discreet.sentence(detail.why)),
      detail.live && h('p', { class: 'goes' }, 'It goes on: this is what there is of it so far.'),
      part('Timing', timingBar(detail.timing)),
      part('Facts', this.#facts(detail)),
      part(isRetried ? 'Both attempts' : 'Upstream', attemptsView(detail.attempts, { isKept: this.#isKept, keep })),
      this.#conversation(detail),
      part('Request', ...(detail.request
        ? [fieldTable('Came', detail.request.fields), bodyView(detail.request.body, options)]
        : [h('p', { class: 'none' }, 'It could not be read.')])),
      part(`Response ${detail.response.status ?? ''}`,
        fieldTable('Went to the client', detail.response.fields), bodyView(detail.response.body, response)),
    ].filter(Boolean);
  }

  /** What was said, for streams; where it would stand, and why it does not. */
  #conversation(detail) {
    const { messages, kind } = detail;
    if (messages || this.#heard.length) {
      const kept = [...(messages?.kept ?? []), ...this.#heard].sort((one, other) => one.number - other.number);
      this.#messages = new Messages({ count: messages?.count ?? 0, kept });
      return part('Messages', this.#messages.element);
    }
    if (kind !== 'websocket') return null;
    const why = this.#isKept ? 'Not kept: bodies were off when it began.' : 'Messages are kept where bodies are, from the handshake on.';
    return part('Messages', h('p', { class: 'none' }, why));
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
