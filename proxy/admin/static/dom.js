/** Makes elements. Law: what was captured becomes text, never markup; no attribute that is a script or an address. */

const SVG = 'http://www.w3.org/2000/svg';

function fill(made, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') made.addEventListener(name, value);
    else made.setAttribute(name, value === true ? '' : String(value));
  }
  // `append` makes a text node of a string.
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** An HTML element: functions among `given` are listeners, all else is attributes. */
export function h(tag, given = {}, ...children) {
  return fill(document.createElement(tag), given, children);
}

/** The same of SVG. */
export function s(tag, given = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), given, children);
}

/** Put `text` into `element`, unless it is there. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A button with a word on it. */
export function button(word, click, given = {}) {
  return h('button', { type: 'button', click, ...given }, word);
}

/** Call `work` once in the next frame, however often it is asked for until then. */
export function inFrame(work) {
  let waits = false;
  return () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      work();
    });
  };
}

/** Have the browser keep this as a file. */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = h('a', { download: name, href: address, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  // The browser has begun by then to read it.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
