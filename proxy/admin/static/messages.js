/** The messages of a WebSocket or of a stream of events, the newest at the end. */

import { contentView } from './body.js';
import { discreet } from './discreet.js';
import { h } from './dom.js';
import { bytes, clock } from './format.js';

/** More of them make a page slow; HAR and the API have no more either. */
const SHOWN_MOST = 500;
/** So close to its end a list counts as scrolled to it. */
const NEAR = 24;
const FROM = { client: '→ client', upstream: '← upstream' };

function one(message) {
  const about = [clock(message.at), message.kind, bytes(message.bytes)];
  return h(
    'li',
    { class: `message by-${message.from === 'client' ? 'client' : 'upstream'}` },
    h('p', { class: 'about' }, h('b', {}, FROM[message.from] ?? message.from), ` ${about.join(' · ')}`,
      message.truncated && h('span', { class: 'cut' }, ' cut')),
    discreet.on
      ? h('p', { class: 'none' }, 'Hidden in presentation mode.')
      : message.bytes > 0 && contentView({ ...message, type: '' }),
  );
}

export class Messages {
  #numbers = new Set();
  #count = 0;

  /** `messages` as the API has them: how many there were, and those that are kept. */
  constructor(messages) {
    this.#said = h('p', { class: 'about', role: 'status' });
    this.#list = h('ol', { class: 'messages', tabindex: 0, 'aria-label': 'Messages' });
    this.element = h('div', {}, this.#said, this.#list);
    for (const message of messages.kept) this.add(message);
    this.#count = Math.max(this.#count, messages.count);
    this.#tell();
  }

  #said;
  #list;

  /** One more, unless it is there already. */
  add(message) {
    if (this.#numbers.has(message.number)) return;
    this.#numbers.add(message.number);
    this.#count = Math.max(this.#count, message.number);
    const list = this.#list;
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;
    list.append(one(message));
    while (list.childElementCount > SHOWN_MOST) list.firstElementChild.remove();
    if (isAtEnd) list.scrollTop = list.scrollHeight;
    this.#tell();
  }

  #tell() {
    const shown = this.#list.childElementCount;
    this.#said.textContent = shown < this.#count ? `The newest ${shown} of ${this.#count}` : `${this.#count} in all`;
  }
}
