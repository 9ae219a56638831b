/** Presentation mode: while it is on, hosts, ids, queries and bodies are not in the document at all. */

export const HIDDEN = '•••';

/** Fields whose values say nothing of whom one talks to. */
const HARMLESS = new Set(
  `accept accept-encoding accept-language age allow cache-control connection content-encoding content-length
  content-type date expires keep-alive retry-after server-timing te trailer transfer-encoding upgrade vary
  sec-fetch-mode sec-fetch-dest x-content-type-options`.split(/\s+/),
);
/** Words of a path that are names of things, not of one thing: letters, or a version. */
const WORD = /^(?:[a-z]{1,24}(?:[-_.][a-z]{1,24}){0,3}|v\d{1,3}|)$/i;
const ADDRESS = /\b[a-z][a-z0-9+.-]*:\/\/[^\s,;)"']+/gi;
const HOST = /\b(?:[\w-]+\.)+[\w-]+(?::\d+)?\b|\[[0-9a-f:]+\](?::\d+)?|\blocalhost(?::\d+)?\b/gi;
const CLIENT = /\b(the key of client )\S+/g;

export const discreet = {
  on: false,

  /** Why something is not to be had; null: it is. */
  get reason() {
    return this.on ? 'Not in presentation mode: it would show what is hidden.' : null;
  },

  /** The whole page, from now on; who shows something renders it anew. */
  set(on) {
    this.on = on;
    document.documentElement.classList.toggle('discreet', on);
  },

  /** A path without ids. */
  path(text) {
    if (!this.on) return text;
    return text.split('/').map((part) => (WORD.test(part) ? part : HIDDEN)).join('/');
  },

  /** A query, with its mark. */
  query(text) {
    if (!text) return '';
    return this.on ? `?${HIDDEN}` : `?${text}`;
  },

  /** A path and a query in one. */
  target(text) {
    const cut = text.indexOf('?');
    return cut < 0 ? this.path(text) : this.path(text.slice(0, cut)) + this.query(text.slice(cut + 1));
  },

  /** A host, a client, an address. */
  host(text) {
    return this.on && text ? HIDDEN : text;
  },

  /** Words in which an address, a client or a path may stand. */
  sentence(text) {
    if (!this.on || !text) return text;
    const bare = text.replace(ADDRESS, HIDDEN).replace(HOST, HIDDEN).replace(CLIENT, `$1${HIDDEN}`);
    return bare.replace(/(^|[\s(])(\/[^\s),]*)/g, (_whole, before, path) => before + this.target(path));
  },

  /** The value of a field. */
  field(name, value) {
    return this.on && !HARMLESS.has(name.toLowerCase()) ? HIDDEN : value;
  },
};
