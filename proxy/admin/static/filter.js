/** What is typed into the one box: `status:5xx route:billing method:POST -client:ada retried "two words"`. */

const TERM = /(-?)(?:([a-z]+):)?(?:"([^"]*)"?|(\S+))/gi;

const holds = (text, wanted) => String(text ?? '').toLowerCase().includes(wanted);

/** As many of its digits as matter, an x for any one. */
const STATUS = /^\d[\dx]{0,2}$/;

/** What a key takes that does not take every word. */
const TAKES = { status: '200, 4xx, 400-499, >=400, error or ok', ms: 'milliseconds, such as 500, >500 or <=20' };

function within(wanted) {
  const named = { error: (x) => x.status >= 400 || !!x.error, ok: (x) => x.status < 400 && !x.error };
  if (named[wanted]) return named[wanted];
  const [, sign, low, high] = /^(>=|<=|>|<)?(\d+)(?:-(\d+))?$/.exec(wanted) ?? [];
  if (high) return (x) => x.status >= Number(low) && x.status <= Number(high);
  if (sign) return (x) => compare(x.status, sign, Number(low));
  return STATUS.test(wanted) ? (x) => digits(wanted, String(x.status)) : null;
}

function digits(wanted, status) {
  return [...wanted].every((each, at) => each === 'x' || status[at] === each);
}

function compare(value, sign, limit) {
  if (sign === '>') return value > limit;
  if (sign === '>=') return value >= limit;
  return sign === '<' ? value < limit : value <= limit;
}

function lasts(wanted) {
  const [, sign, limit] = /^(>=|<=|>|<)?(\d+(?:\.\d+)?)$/.exec(wanted) ?? [];
  return limit === undefined ? null : (x) => compare(x.ms, sign ?? '>=', Number(limit));
}

const KEYS = {
  status: within,
  ms: lasts,
  route: (wanted) => (x) => holds(x.route, wanted),
  method: (wanted) => (x) => (x.method ?? '').toLowerCase() === wanted,
  path: (wanted) => (x) => holds(x.path, wanted),
  query: (wanted) => (x) => holds(x.query, wanted),
  client: (wanted) => (x) => holds(x.client, wanted),
  credential: (wanted) => (x) => holds(x.credential, wanted),
  error: (wanted) => (x) => holds(x.error, wanted),
  kind: (wanted) => (x) => holds(x.kind, wanted),
  id: (wanted) => (x) => holds(x.id, wanted),
};

/** All words of an exchange. */
function words(x) {
  return [
    x.method, x.status, `${x.path}${x.query ? `?${x.query}` : ''}`, x.route, x.credential, x.error, x.client, x.id,
    x.kind, x.retried && 'retried', x.refusals > 0 && 'refused', x.live && 'live',
  ].filter(Boolean).join(' ').toLowerCase();
}

/** The terms of a text: `{key, value, not}`; `key` is null for a word that may stand anywhere. */
export function terms(text) {
  return [...text.matchAll(TERM)].map(([whole, minus, key, quoted, plain]) => {
    const known = key && Object.hasOwn(KEYS, key.toLowerCase());
    const value = (quoted ?? plain).toLowerCase();
    if (known) return { key: key.toLowerCase(), value, not: !!minus };
    return { key: null, value: whole.slice(minus.length).replaceAll('"', '').toLowerCase(), not: !!minus };
  });
}

/** Says of an exchange whether it is one of those; of what a key does not take there are none. */
export function filter(text) {
  const tests = terms(text).filter((term) => term.value).map(({ key, value, not }) => {
    const test = key ? KEYS[key](value) : (x) => words(x).includes(value);
    if (!test) return () => false;
    return not ? (x) => !test(x) : test;
  });
  return (exchange) => tests.every((test) => test(exchange));
}

/** What is wrong with a text, in a sentence; nothing where all of it can be meant. */
export function mistake(text) {
  const wrong = terms(text).find(({ key, value }) => key && value && !KEYS[key](value));
  return wrong ? `${wrong.key}: takes ${TAKES[wrong.key]}.` : '';
}

/** `text` with `term`, or without it where it stood there. */
export function toggled(text, term) {
  const parts = text.split(/\s+/).filter(Boolean);
  const rest = parts.filter((part) => part !== term);
  return (rest.length < parts.length ? rest : [...parts, term]).join(' ');
}
