/** Send an exchange again, as it was or changed; and the same as a command to copy. */

import { api } from './api.js';
import { button, h } from './dom.js';
import { bytes } from './format.js';

const MASK = '***';

/**
 * Fields that can be sent again: what has a note is not what came, or is the proxy's to write, but for what was rewritten,
 * which came so; and a body that is shown unpacked goes unpacked.
 */
export function sendable(request) {
  const isUnpacked = !!request?.body?.encoding;
  const isWhole = (note) => !note || note.startsWith('rewritten:');
  const stays = ([name, _value, note]) => isWhole(note) && !(isUnpacked && name.toLowerCase() === 'content-encoding');
  return (request?.fields ?? []).filter(stays).map(([name, value]) => [name, value]);
}

/** What a request that is sent again lacks, in a sentence; `lacks` are the proxy's words for it. */
export function leftOut(lacks) {
  return lacks.length ? ` Left out, since it is masked or was not kept: ${lacks.join(', ')}.` : '';
}

function maskedFields(request) {
  const count = (request?.fields ?? []).filter(([, , note]) => note?.startsWith('masked')).length;
  return count ? [`${count} of its fields`] : [];
}

function parsed(text) {
  const fields = [];
  for (const line of text.split('\n').filter((each) => each.trim())) {
    const cut = line.indexOf(':');
    if (cut < 1) throw new Error(`This is no field: ${line}`);
    fields.push([line.slice(0, cut).trim(), line.slice(cut + 1).trim()]);
  }
  return fields;
}

function input(label, value, given = {}) {
  const { rows, hint, ...more } = given;
  const made = rows ? h('textarea', { rows, spellcheck: 'false', ...more }) : h('input', { spellcheck: 'false', ...more });
  made.value = value;
  made.autocomplete = 'off';
  return { made, element: h('label', {}, h('span', {}, label), made, hint && h('small', {}, hint)) };
}

/** Ask what to change. `send(changes)` gives an error's sentence, or nothing. */
export function editDialog(detail, send) {
  const body = detail.request?.body;
  const isWhole = body && !body.truncated;
  const method = input('Method', detail.method, { name: 'method', required: true, maxlength: 32 });
  const path = input('Path', detail.path, { name: 'path', required: true });
  const query = input('Query', detail.query ?? '', {
    name: 'query', hint: detail.query?.includes(MASK) ? `${MASK} stands for a value that was masked: fill it in.` : null,
  });
  const fields = input('Fields, one a line', sendable(detail.request).map((each) => each.join(': ')).join('\n'), {
    name: 'fields', rows: 6, hint: `The credential is added by the proxy: the current token.${leftOut(maskedFields(detail.request))}`,
  });
  const text = input('Body', (isWhole && body.text) || '', { name: 'body', rows: 6, hint: detail.bytes_in ? bodyHint(body) : null });
  const problem = h('p', { class: 'error', role: 'alert' });
  const go = h('button', { type: 'submit', class: 'first' }, 'Send');
  const form = h(
    'form',
    {},
    h('h2', { id: 'edit-title' }, 'Edit and replay'),
    h('div', { class: 'pair' }, method.element, path.element),
    query.element, fields.element, text.element, problem,
    h('div', { class: 'acts' }, go, button('Cancel', () => dialog.close())),
  );
  const dialog = h('dialog', { class: 'edit', 'aria-labelledby': 'edit-title' }, form);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      const changes = {
        method: method.made.value.trim(), path: path.made.value, query: query.made.value, fields: parsed(fields.made.value),
      };
      if (text.made.value || !isWhole || !body.base64) changes.body = text.made.value;
      else changes.body_base64 = body.base64;
      await send(changes);
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
    } finally {
      go.disabled = false;
    }
  });
  return opened(dialog);
}

function bodyHint(body) {
  if (!body) return 'The body was not kept: write one, or leave it empty.';
  if (body.truncated) return `Only ${body.kept} of ${body.bytes} bytes were kept: write it anew.`;
  if (body.text?.includes(MASK)) return `${MASK} stands for a value that was masked: fill it in.`;
  return body.base64 ? `${bytes(body.bytes)} that are no text: sent unchanged while this is empty.` : null;
}

/** Put a dialog into the page, and take it out when it closes. The browser gives the focus back by itself. */
export function opened(dialog) {
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Copy the command; where the browser does not let us it is shown instead. Gives what to say. */
export async function copyCurl(id) {
  const command = await api.curl(id);
  try {
    await navigator.clipboard.writeText(command);
    if (command.startsWith('#')) return 'Copied, but for what is masked or was not kept: its first line says what.';
    return 'Copied. The command goes to the proxy, which adds the token.';
  } catch {
    const text = h('textarea', { rows: 8, readonly: true, 'aria-label': 'The command' });
    text.value = command;
    const dialog = h('dialog', { class: 'edit', 'aria-label': 'Copy as curl' }, h('h2', {}, 'Copy as curl'), text, h(
      'div', { class: 'acts' }, button('Close', () => dialog.close()),
    ));
    opened(dialog);
    text.select();
    return '';
  }
}
