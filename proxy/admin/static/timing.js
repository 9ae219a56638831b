/** How the time of an exchange was spent, as a bar and in words. */

import { h, s } from './dom.js';
import { ms } from './format.js';

const PARTS = [
  ['guard_ms', 'Guard', 'guard'],
  ['token_wait_ms', 'Token wait', 'token'],
  ['connect_ms', 'Connect', 'connect'],
  ['first_byte_ms', 'First byte', 'first'],
  ['body_ms', 'Body', 'body'],
];

/** `timing` as the API has it. */
export function timingBar(timing) {
  const parts = PARTS.map(([key, word, kind]) => ({ word, kind, value: timing[key] }));
  const known = parts.reduce((sum, part) => sum + (part.value ?? 0), 0);
  const whole = Math.max(timing.total_ms ?? 0, known, 0.001);
  parts.push({ word: 'Rest', kind: 'rest', value: whole - known });
  const told = `${parts.map((part) => `${part.word} ${ms(part.value)}`).join(', ')}. In all ${ms(timing.total_ms)}.`;
  let x = 0;
  const bars = parts.filter((part) => part.value > 0).map((part) => {
    const width = (part.value / whole) * 100;
    const made = s('rect', { class: `t-${part.kind}`, x: `${x}%`, y: 0, width: `${width}%`, height: '100%' });
    x += width;
    return made;
  });
  return h(
    'div',
    { class: 'timing' },
    s('svg', { class: 'spent', role: 'img', 'aria-label': told }, bars),
    h('ul', { class: 'legend', 'aria-hidden': 'true' }, parts.map((part) => h(
      'li', {}, h('span', { class: `key t-${part.kind}` }), `${part.word} `, h('b', {}, ms(part.value)),
    )), h('li', {}, 'In all ', h('b', {}, ms(timing.total_ms)))),
  );
}
