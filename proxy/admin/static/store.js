/** The exchanges the page knows, the oldest first, and which of them the filter lets through. */

/** Where in `list` a number stands, or would. */
function place(list, number) {
  let low = 0;
  let high = list.length;
  // The newest come last: look there first.
  if (high && list[high - 1].number < number) return high;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].number < number) low = middle + 1;
    else high = middle;
  }
  return low;
}

function put(list, exchange) {
  const at = place(list, exchange.number);
  if (list[at]?.number === exchange.number) list[at] = exchange;
  else list.splice(at, 0, exchange);
}

function drop(list, exchange) {
  const at = place(list, exchange.number);
  if (list[at]?.number === exchange.number) list.splice(at, 1);
}

export class Store {
  all = [];
  shown = [];
  capacity = 500;
  paused = false;
  #ids = new Map();
  #held = new Map();
  #matches = () => true;

  /** How many came since it was paused. */
  get waiting() {
    return [...this.#held.keys()].filter((id) => !this.#ids.has(id)).length;
  }

  get newest() {
    return this.all.at(-1)?.number ?? 0;
  }

  find(id) {
    return this.#ids.get(id) ?? this.#held.get(id);
  }

  /** Where it stands among the shown; -1: it does not. */
  position(exchange) {
    const at = exchange ? place(this.shown, exchange.number) : -1;
    return at >= 0 && this.shown[at]?.id === exchange.id ? at : -1;
  }

  /** Something came, or changed. */
  add(exchange) {
    if (this.paused) {
      this.#held.set(exchange.id, exchange);
      if (this.#held.size > this.capacity) this.#held.delete(this.#held.keys().next().value);
      return;
    }
    this.#ids.set(exchange.id, exchange);
    put(this.all, exchange);
    if (this.#matches(exchange)) put(this.shown, exchange);
    else drop(this.shown, exchange);
    while (this.all.length > this.capacity) {
      const oldest = this.all.shift();
      this.#ids.delete(oldest.id);
      drop(this.shown, oldest);
    }
  }

  pause(on) {
    this.paused = on;
    if (on) return;
    const held = [...this.#held.values()];
    this.#held.clear();
    for (const exchange of held) this.add(exchange);
  }

  /** Show what `matches` lets through; `mistake` is why that may be nothing. */
  filter(matches, mistake = '') {
    this.#matches = matches;
    this.mistake = mistake;
    this.shown = this.all.filter(matches);
  }

  /** These are all there are. */
  replace(exchanges) {
    this.all = [...exchanges].sort((one, other) => one.number - other.number).slice(-this.capacity);
    this.#ids = new Map(this.all.map((each) => [each.id, each]));
    this.#held.clear();
    this.filter(this.#matches, this.mistake);
  }
}
