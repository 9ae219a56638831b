/** JSON for reading. It goes by tokens, not by values: large numbers stay as they are, and a cut text shows as well. */

import { h } from './dom.js';

const TOKEN = /"(?:[^"\\]|\\.)*"?|[{}[\],:]|[^\s{}[\],:"]+/g;
/** Colours cost an element a token. */
const COLOURED_MOST = 4000;

function kindOf(token, next) {
  if (token[0] === '"') return next === ':' ? 'j-key' : 'j-text';
  return /^[-\d]/.test(token) ? 'j-number' : 'j-word';
}

/** Pieces `[text, kind]` of the text, indented. */
export function pieces(text) {
  const tokens = text.match(TOKEN) ?? [];
  const found = [];
  let depth = 0;
  const fresh = () => `\n${'  '.repeat(Math.max(0, depth))}`;
  tokens.forEach((token, at) => {
    const next = tokens[at + 1];
    if (token === '{' || token === '[') {
      const isEmpty = next === '}' || next === ']';
      depth += 1;
      found.push([token + (isEmpty ? '' : fresh()), null]);
    } else if (token === '}' || token === ']') {
      depth -= 1;
      const isEmpty = ['{', '['].includes(tokens[at - 1]);
      found.push([(isEmpty ? '' : fresh()) + token, null]);
    } else if (token === ',') found.push([token + fresh(), null]);
    else if (token === ':') found.push([': ', null]);
    else found.push([token, kindOf(token, next)]);
  });
  return found;
}

/** A `pre` of it. */
export function pretty(text) {
  const found = pieces(text);
  if (found.length > COLOURED_MOST) return h('pre', { tabindex: 0 }, found.map(([part]) => part).join(''));
  return h('pre', { tabindex: 0 }, found.map(([part, kind]) => (kind ? h('span', { class: kind }, part) : part)));
}

/** Is it JSON, or the beginning of some? */
export function isJSON(type, text, isCut) {
  if (isCut) return /[/+]json\b/i.test(type);
  if (!/^\s*[[{"\d-]/.test(text) && !/[/+]json\b/i.test(type)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
