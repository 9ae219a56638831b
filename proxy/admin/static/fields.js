/** The fields of a message, and what happened to each: by colour and in a word. */

import { discreet } from './discreet.js';
import { h } from './dom.js';

/** Notes begin with one of these; all else is a rewriting. */
const WORDS = ['added', 'dropped', 'masked'];

function parted(note) {
  const cut = note.indexOf(':');
  const word = cut < 0 ? note : note.slice(0, cut);
  const kind = WORDS.includes(word) ? word : 'rewritten';
  return { kind, word, reason: cut < 0 ? '' : note.slice(cut + 1).trim() };
}

function line([name, value, note]) {
  const told = note ? parted(note) : null;
  return h(
    'tr',
    { class: told && `f-${told.kind}` },
    h('th', { scope: 'row' }, name),
    h(
      'td',
      {},
      h('span', { class: 'value' }, discreet.field(name, value)),
      told && h('span', { class: 'note' }, h('span', { class: `word n-${told.kind}` }, told.word), ` ${told.reason}`),
    ),
  );
}

/** `fields` are `[name, value, note]`; `title` says of what. */
export function fieldTable(title, fields) {
  if (!fields?.length) return h('p', { class: 'none' }, 'No fields.');
  return h(
    'table',
    { class: 'fields' },
    h('caption', {}, `${title} (${fields.length})`),
    h('tbody', {}, fields.map(line)),
  );
}
