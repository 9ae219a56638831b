/** What became of a credential's token, on a line of time, and as a list. */

import { discreet } from './discreet.js';
import { h, s } from './dom.js';
import { clock, instant } from './format.js';

const WIDTH = 240;
const HEIGHT = 26;
/** The line shows at least so much of the past. */
const LEAST_MS = 10 * 60_000;
const GOOD = new Set(['obtained', 'refreshed']);
const BAD = new Set(['failed', 'rejected', 'refused']);

function kindOf(what) {
  if (GOOD.has(what)) return 'good';
  return BAD.has(what) ? 'bad' : 'other';
}

function mark(kind, x, words) {
  const y = HEIGHT / 2;
  const title = s('title', {}, words);
  if (kind === 'bad') return s('path', { class: 'm-bad', d: `M${x - 4} ${y - 4}l8 8m0-8l-8 8` }, title);
  return s('circle', { class: `m-${kind}`, cx: x, cy: y, r: kind === 'good' ? 4 : 3 }, title);
}

/** `now`, and when it expires and is tried next, in epoch milliseconds or null. */
export function timeline(events, now, expires, next) {
  const recent = events.filter((each) => !Number.isNaN(instant(each.at)));
  const ahead = [expires, next].filter((at) => at !== null && at > now);
  const past = Math.max(LEAST_MS, now - (recent.length ? instant(recent[0].at) : now));
  // What is far ahead would press all the rest into a corner.
  const start = now - past;
  const end = Math.min(Math.max(now + past / 8, ...ahead), now + past * 2);
  const place = (at) => 6 + ((Math.min(at, end) - start) / (end - start)) * (WIDTH - 12);
  const line = s(
    'svg',
    {
      class: 'timeline', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img',
      'aria-label': `Timeline of ${recent.length} events; the list below says the same`,
    },
    s('line', { class: 'past', x1: 6, x2: place(now), y1: HEIGHT / 2, y2: HEIGHT / 2 }),
    s('line', { class: 'ahead', x1: place(now), x2: WIDTH - 6, y1: HEIGHT / 2, y2: HEIGHT / 2 }),
    s('line', { class: 'now', x1: place(now), x2: place(now), y1: 3, y2: HEIGHT - 3 }, s('title', {}, 'now')),
    expires !== null && expires > start && s(
      'line', { class: 'end', x1: place(expires), x2: place(expires), y1: 3, y2: HEIGHT - 3 }, s('title', {}, 'expires'),
    ),
    next !== null && next > now && s('circle', { class: 'm-next', cx: place(next), cy: HEIGHT / 2, r: 4 },
      s('title', {}, 'next attempt')),
    recent.map((each) => mark(kindOf(each.what), place(instant(each.at)), `${clock(each.at)} ${each.what}`)),
  );
  return line;
}

/** The same as a list, the newest first. */
export function history(events) {
  return h('ol', { class: 'history' }, [...events].reverse().map((each) => h(
    'li',
    { class: `w-${kindOf(each.what)}` },
    h('time', {}, clock(each.at)),
    ` ${each.what}`,
    each.generation ? `, generation ${each.generation}` : '',
    each.detail ? h('span', { class: 'because' }, ` – ${discreet.sentence(String(each.detail))}`) : null,
  )));
}
