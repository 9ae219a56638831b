/** Dark or light: as the system has it, until somebody chooses. */

const KEPT = 'bearer-proxy-theme';
const ORDER = { auto: 'dark', dark: 'light', light: 'auto' };
const root = document.documentElement;

function kept() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

/** What is chosen now. */
export function theme() {
  return root.dataset.theme ?? 'auto';
}

function choose(name) {
  if (name === 'auto') delete root.dataset.theme;
  else root.dataset.theme = name;
  try {
    localStorage.setItem(KEPT, name);
  } catch {
    // It lasts as long as the page.
  }
}

/** The next one. Gives its name. */
export function turn() {
  choose(ORDER[theme()]);
  return theme();
}

const before = kept();
if (before && Object.hasOwn(ORDER, before)) choose(before);
