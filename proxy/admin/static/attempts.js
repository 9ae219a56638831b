/** What went upstream and what came back; both attempts of a retried exchange stand side by side. */

import { bodyView } from './body.js';
import { discreet } from './discreet.js';
import { h } from './dom.js';
import { fieldTable } from './fields.js';
import { ms } from './format.js';

function outcome(attempt) {
  if (attempt.error) return `no answer: ${attempt.error}`;
  if (attempt.status === null) return 'no answer';
  return attempt.refused ? `${attempt.status}, token refused` : String(attempt.status);
}

function facts(attempt) {
  const said = attempt.reason ? [['Status text', discreet.host(attempt.reason)]] : [];
  return [
    ['Went to', discreet.host(attempt.upstream) ?? '–'],
    ['Target', discreet.target(attempt.target)],
    ['Token', attempt.generation ? `generation ${attempt.generation}` : 'none'],
    ['Connection', { new: 'new', kept: 'used before' }[attempt.connection] ?? '–'],
    ['Began after', ms(attempt.at_ms)],
    ['Connect', ms(attempt.connect_ms)],
    ['First byte', ms(attempt.first_byte_ms)],
    ...said,
  ];
}

/** What the answer of an attempt said that nobody got; `keeping` is as `bodyView` has it. */
function unheard(attempt, keeping) {
  return h('div', { class: 'unheard' }, h('h5', {}, 'What it said'), bodyView(attempt.body, { ...keeping, size: null }));
}

function one(attempt, at, isLast, keeping) {
  const isBad = attempt.refused || attempt.error || attempt.status === null;
  return h(
    'article',
    { class: `attempt ${isBad ? 'bad' : 'good'}`, 'aria-label': `Attempt ${at + 1}` },
    h('h4', {}, `Attempt ${at + 1}: ${outcome(attempt)}`),
    h('dl', {}, facts(attempt).map(([word, value]) => h('div', {}, h('dt', {}, word), h('dd', {}, value)))),
    fieldTable('Sent', attempt.fields),
    fieldTable('Answered', attempt.answer),
    !isLast && unheard(attempt, keeping),
  );
}

/** `attempts` as the API has them; `keeping` is as `bodyView` has it. */
export function attemptsView(attempts, keeping) {
  if (!attempts.length) return h('p', { class: 'none' }, 'Nothing went upstream.');
  return h('div', { class: `attempts n${Math.min(attempts.length, 2)}` }, attempts.map(
    (attempt, at) => one(attempt, at, at === attempts.length - 1, keeping),
  ));
}
