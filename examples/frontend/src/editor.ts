/** The editor that takes a row's place while its task is edited; its reset event is the cancel. */

import type { Task, TaskUpdate } from "./api";
import { find, instantiate } from "./dom";

/** `save` is given only what was edited: the rest may have changed elsewhere meanwhile. */
export function createEditor(task: Task, save: (changes: TaskUpdate) => unknown): HTMLFormElement {
  const editor = instantiate("editor", HTMLFormElement);
  const title = find(editor, "input", HTMLInputElement);
  const description = find(editor, "textarea", HTMLTextAreaElement);
  title.value = task.title;
  description.value = task.description ?? "";

  editor.addEventListener("submit", (event) => {
    event.preventDefault();
    const described = description.value.trim() || null;
    save({
      ...(title.value.trim() !== task.title && { title: title.value }),
      ...(described !== task.description && { description: described }),
    });
  });
  editor.addEventListener("keydown", (event) => {
    // An Escape or Enter that ends a composition (Japanese, say) is not meant for the form.
    if (event.isComposing) return;
    if (event.key === "Escape") editor.reset();
    // Enter alone saves from the title, and begins a line in the description.
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) editor.requestSubmit();
  });
  return editor;
}
