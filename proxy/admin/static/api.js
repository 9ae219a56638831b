/** What the page asks of the admin listener. The cookie is the key; it is never in the page's hands. */

/** It said no; `message` is its sentence. */
export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function asked(path, { method = 'GET', send } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      cache: 'no-store',
      credentials: 'same-origin',
      ...(send === undefined ? {} : { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(send) }),
    });
  } catch {
    throw new Refused(0, 'The proxy does not answer.');
  }
  if (!answer.ok) throw new Refused(answer.status, await sentence(answer));
  return answer;
}

async function sentence(answer) {
  try {
    const said = await answer.json();
    const words = said.detail || said.title;
    if (typeof words === 'string') return words;
  } catch {
    // It is no JSON: the status must do.
  }
  return `The proxy answered ${answer.status}.`;
}

const json = async (path, options) => (await asked(path, options)).json();
const exchange = (id) => `/api/exchanges/${encodeURIComponent(id)}`;

export const api = {
  exchanges: (limit) => json(`/api/exchanges?limit=${limit}`),
  exchange: (id) => json(exchange(id)),
  replay: (id, changes = {}) => json(`${exchange(id)}/replay`, { method: 'POST', send: changes }),
  curl: async (id) => (await asked(`${exchange(id)}/curl`)).text(),
  har: async (ids) => (await asked('/api/exchanges.har', { method: 'POST', send: { ids } })).blob(),
  timelines: () => json('/api/timelines'),
  credentials: async () => (await json('/api/credentials')).credentials,
  refresh: (name) => json(`/api/credentials/${encodeURIComponent(name)}/refresh`, { method: 'POST' }),
  settings: () => json('/api/inspector'),
  keepBodies: (bytes) => json('/api/inspector', { method: 'POST', send: { bodies: bytes } }),
  clear: () => asked('/api/inspector/clear', { method: 'POST' }),
};
