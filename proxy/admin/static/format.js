/** Numbers as people read them. */

const two = (number) => String(number).padStart(2, '0');

/** Epoch milliseconds of an instant: ISO text, or epoch seconds. */
export function instant(at) {
  return typeof at === 'number' ? at * 1000 : Date.parse(at);
}

/** The time of day, here. */
export function clock(at) {
  const date = new Date(instant(at));
  if (Number.isNaN(date.getTime())) return '';
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** The same with its day and milliseconds. */
export function moment(at) {
  const date = new Date(instant(at));
  if (Number.isNaN(date.getTime())) return '';
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${clock(at)}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

/** Milliseconds. */
export function ms(value) {
  if (value === null || value === undefined) return '–';
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return value >= 100 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
}

/** Bytes. */
export function bytes(value) {
  if (value === null || value === undefined) return '–';
  if (value < 1024) return `${value} B`;
  if (value < 1024 * 1024) return `${(value / 1024).toFixed(1)} KB`;
  return `${(value / 1024 / 1024).toFixed(1)} MB`;
}

/** Seconds that are left, in the two largest units. */
export function left(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const days = Math.floor(whole / 86400);
  const hours = Math.floor((whole % 86400) / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${two(minutes)} min`;
  return minutes ? `${minutes} min ${two(whole % 60)} s` : `${whole} s`;
}

/** Which colour a status has; the word beside it says the same. */
export function tone(exchange) {
  if (exchange.error) return 'ours';
  if (!exchange.status) return 'none';
  return `s${Math.floor(exchange.status / 100)}`;
}

/** A bad, a doubtful or a good status, in a word for who cannot see the colour. */
export function verdict(exchange) {
  if (exchange.error) return `the proxy said ${exchange.error}`;
  if (!exchange.status) return exchange.live ? 'no answer yet' : 'no answer';
  if (exchange.status >= 500) return 'server error';
  return exchange.status >= 400 ? 'client error' : 'fine';
}
