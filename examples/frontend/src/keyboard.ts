/** Keyboard shortcuts: single keys, ignored while the user types into a field. */

import { find } from "./dom";

const OFF = "shortcuts-off";

/** Maps a key to what it does. */
export type Shortcuts = Record<string, () => void>;

export function listenForShortcuts(shortcuts: Shortcuts): void {
  const help = find(document, "#shortcuts", HTMLDialogElement);
  const enabled = find(help, "[type=checkbox]", HTMLInputElement);
  // Speech input can press single keys by accident, so they can be turned off (WCAG 2.1.4).
  enabled.checked = localStorage.getItem(OFF) === null;
  enabled.addEventListener("change", () => {
    if (enabled.checked) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "true");
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const shortcut = shortcuts[event.key];
    if (!shortcut || !enabled.checked || isTyping(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    event.preventDefault();
    shortcut();
  });
}

function isTyping(target: EventTarget | null): boolean {
  if (target instanceof HTMLInputElement) return target.type !== "radio";
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}
