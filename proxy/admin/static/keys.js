/** The keys, and the page that tells of them. */

import { button, h } from './dom.js';
import { opened } from './replay.js';

/** Key, what it is called, what it does; the names are those of `acts` in `app.js`. */
const KEYS = [
  [['j', 'ArrowDown'], 'j  ↓', 'next exchange', 'down'],
  [['k', 'ArrowUp'], 'k  ↑', 'previous exchange', 'up'],
  [['PageDown'], 'Page down', 'a screenful down', 'far'],
  [['PageUp'], 'Page up', 'a screenful up', 'near'],
  [['g', 'Home'], 'g  Home', 'newest', 'newest'],
  [['G', 'End'], 'G  End', 'oldest', 'oldest'],
  [['Enter', 'o'], 'Enter', 'open it', 'open'],
  [['Escape'], 'Esc', 'close it, or leave the filter', 'close'],
  [['/'], '/', 'filter', 'filter'],
  [['p'], 'p', 'pause and go on', 'pause'],
  [['r'], 'r', 'replay', 'replay'],
  [['e'], 'e', 'edit and replay', 'edit'],
  [['c'], 'c', 'copy as curl', 'curl'],
  [['h'], 'h', 'this exchange as HAR', 'har'],
  [['t'], 't', 'dark or light', 'theme'],
  [['m'], 'm', 'presentation mode', 'discreet'],
  [['?'], '?', 'this help', 'help'],
];
/** Where these keys have a meaning of their own. */
const TYPED = 'input, textarea, select, [contenteditable]';
const PRESSED = 'button, a, summary, input, textarea, select';
const MOVES = ['down', 'up', 'far', 'near', 'newest', 'oldest'];

/** `act(name)` does it. */
export function listen(act) {
  const names = new Map(KEYS.flatMap(([keys, , , name]) => keys.map((key) => [key, name])));
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    const name = names.get(event.key);
    const isTyped = event.target.closest?.(TYPED);
    if (!name || (isTyped && event.key !== 'Escape')) return;
    if (event.key === 'Enter' && event.target.closest?.(PRESSED)) return;
    // In the detail these scroll.
    if (event.key.length > 1 && MOVES.includes(name) && event.target.closest?.('exchange-detail, .top')) return;
    event.preventDefault();
    act(name);
  });
}

/** Show what the keys are. */
export function help() {
  const rows = KEYS.map(([, word, what]) => h('div', {}, h('dt', {}, h('kbd', {}, word)), h('dd', {}, what)));
  const filters = [
    ['status:5xx', 'also 404, 400-499, >=400, error, ok'],
    ['route:billing', 'also credential: client: path: query: error: kind: id:'],
    ['method:POST', 'one method'],
    ['ms:>500', 'slower than half a second'],
    ['retried', 'any word: in path, route, error, id; also refused, live'],
    ['-path:health', 'a minus: all but those'],
  ].map(([word, what]) => h('div', {}, h('dt', {}, h('code', {}, word)), h('dd', {}, what)));
  const dialog = h(
    'dialog',
    { class: 'help', 'aria-labelledby': 'help-title' },
    h('h2', { id: 'help-title' }, 'Keys'),
    h('dl', {}, rows),
    h('h2', {}, 'Filter'),
    h('dl', {}, filters),
    h('div', { class: 'acts' }, button('Close', () => dialog.close(), { class: 'first' })),
  );
  opened(dialog);
}
