/** The body of a message: JSON indented, images shown, events one by one, bytes as hex. */

import { discreet } from './discreet.js';
import { button, h } from './dom.js';
import { bytes } from './format.js';
import { isJSON, pretty } from './json.js';

const IMAGES = /^image\/(?:png|jpeg|gif|webp|avif|bmp|x-icon|vnd\.microsoft\.icon|svg\+xml)\b/i;
const HEX_FIRST = 4096;
/** How much is kept of a body once that is switched on here. */
export const BODY_BYTES = 65536;

/** Addresses of what is shown now; the next exchange gives them back. */
const addresses = [];

/** Nothing of what was shown is looked at any more. */
export function forgetBodies() {
  for (const address of addresses.splice(0)) URL.revokeObjectURL(address);
}

function octets(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function image(data, type) {
  const address = URL.createObjectURL(new Blob([data], { type }));
  addresses.push(address);
  return h('img', { class: 'shown', src: address, alt: `The body: an image, ${type}` });
}

function dump(data) {
  const lines = [];
  for (let at = 0; at < data.length; at += 16) {
    const part = [...data.subarray(at, at + 16)];
    const hex = part.map((each) => each.toString(16).padStart(2, '0')).join(' ').padEnd(47);
    const text = part.map((each) => (each > 31 && each < 127 ? String.fromCharCode(each) : '.')).join('');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${hex}  ${text}`);
  }
  return lines.join('\n');
}

function hex(data) {
  const shown = h('pre', { class: 'hex', tabindex: 0 }, dump(data.subarray(0, HEX_FIRST)));
  if (data.length <= HEX_FIRST) return [shown];
  const more = button(`Show all ${bytes(data.length)}`, () => {
    shown.textContent = dump(data);
    more.remove();
  });
  return [shown, more];
}

/** Server-sent events, one by one (HTML section 9.2). */
function events(text) {
  const found = text.split(/\r\n\r\n|\n\n|\r\r/).filter((each) => each.trim());
  return h('ol', { class: 'messages' }, found.map((each) => h('li', {}, h('pre', {}, each))));
}

function form(text) {
  return h('table', { class: 'fields' }, h('caption', {}, 'Form'), h('tbody', {}, [...new URLSearchParams(text)].map(
    ([name, value]) => h('tr', {}, h('th', { scope: 'row' }, name), h('td', {}, value)),
  )));
}

/** What stands in a body or a message. */
export function contentView(body) {
  const { type = '', text, base64, truncated } = body;
  if (typeof text === 'string') {
    if (IMAGES.test(type) && !truncated) return [image(text, type), h('pre', { tabindex: 0 }, text)];
    if (/^text\/event-stream\b/i.test(type)) return [events(text)];
    if (/^application\/x-www-form-urlencoded\b/i.test(type)) return [form(text)];
    return [isJSON(type, text, truncated) ? pretty(text) : h('pre', { tabindex: 0 }, text)];
  }
  if (typeof base64 !== 'string') {
    return [h('p', { class: 'none' }, body.note || 'Nothing of it was kept.')];
  }
  const data = octets(base64);
  if (IMAGES.test(type) && !truncated) return [image(data, type)];
  return hex(data);
}

/**
 * `keep` switches bodies on; `isKept`: they are; `isTold`: it is shown as messages; `size`: how many bytes there were,
 * undefined while it still comes, null where nobody knows.
 */
export function bodyView(body, { isKept, keep, isTold = false, size }) {
  if (!body) {
    if (size === 0) return h('p', { class: 'none' }, 'No body.');
    if (isKept && size === undefined) return h('p', { class: 'none' }, 'Nothing of it so far.');
    if (isKept) return h('p', { class: 'none' }, 'Not kept: bodies were off then.');
    return h('p', { class: 'none' }, 'Bodies are off. ', button('Switch on', keep, { class: 'keep' }));
  }
  if (!body.bytes && !body.truncated) return h('p', { class: 'none' }, 'No body.');
  if (discreet.on) return h('p', { class: 'none' }, `${bytes(body.bytes)}, hidden in presentation mode.`);
  const about = [bytes(body.bytes), body.type || 'no type', body.encoding && `sent as ${body.encoding}`];
  return h(
    'div',
    { class: 'body' },
    h('p', { class: 'about' }, about.filter(Boolean).join(' · '), body.truncated && h(
      'span', { class: 'cut' }, ` cut at ${body.kept} bytes`,
    )),
    isTold ? h('p', { class: 'none' }, 'Its events stand above, one by one.')
      : body.kept ? contentView(body) : h('p', { class: 'none' }, 'Nothing of it was kept.'),
  );
}
