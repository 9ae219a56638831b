/** The events as they happen, again and again: a proxy that restarts is found again. */

const KINDS = ['exchange', 'credential', 'token', 'message', 'lost'];
const SHORTEST_MS = 500;
const LONGEST_MS = 8000;

/** `happened(kind, document)` is told each event, `changed(state)` whether it is `live` or `gone`. */
export class Stream {
  #source = null;
  #pause = SHORTEST_MS;
  #happened;
  #changed;

  constructor(happened, changed) {
    this.#happened = happened;
    this.#changed = changed;
  }

  open() {
    this.#source?.close();
    const source = new EventSource('/api/events');
    this.#source = source;
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => this.#happened(kind, JSON.parse(event.data)));
    }
    source.addEventListener('open', () => {
      this.#pause = SHORTEST_MS;
      this.#changed('live');
    });
    // Left alone, a browser waits as long as it likes, and not at all again after an answer other than 200.
    source.addEventListener('error', () => {
      source.close();
      this.#changed('gone');
      setTimeout(() => this.open(), this.#pause);
      this.#pause = Math.min(this.#pause * 2, LONGEST_MS);
    });
  }
}
