/** The editor that takes a row's place while its task is edited; its reset event is the cancel. */

import type { Task, TaskUpdate } from "./api";
import { find, instantiate } from "./dom";

export interface Editor {
  element: HTMLFormElement;
  /**
   * Asks whose words to take; what the user has not edited is theirs already.
   * Tells whether there is anything to ask.
   */
  showConflict(theirs: Task): boolean;
}

/** `save` is given only what was edited: the rest may have changed elsewhere meanwhile. */
export function createEditor(first: Task, save: (changes: TaskUpdate) => unknown): Editor {
  const element = instantiate("editor", HTMLFormElement);
  const title = find(element, "input", HTMLInputElement);
  const description = find(element, "textarea", HTMLTextAreaElement);
  let task = first;

  function fill(words: TaskUpdate): void {
    title.value = words.title ?? "";
    description.value = words.description ?? "";
  }

  function edited(): TaskUpdate {
    const described = description.value.trim() || null;
    return {
      ...(title.value.trim() !== task.title && { title: title.value }),
      ...(described !== task.description && { description: described }),
    };
  }

  element.addEventListener("submit", (event) => {
    event.preventDefault();
    save(edited());
  });
  element.addEventListener("keydown", (event) => {
    // An Escape or Enter that ends a composition (Japanese, say) is not meant for the form.
    if (event.isComposing) return;
    if (event.key === "Escape") element.reset();
    // Enter alone saves from the title, and begins a line in the description.
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element.requestSubmit();
  });

  function showConflict(theirs: Task): boolean {
    fill({ ...theirs, ...edited() });
    task = theirs;
    if (Object.keys(edited()).length === 0) return false;
    element.classList.add("disputed");
    find(element, "[role=alert]", HTMLElement).textContent =
      "This was changed elsewhere meanwhile; above is how it is now.";
    find(element, "[type=reset]", HTMLElement).textContent = "Take theirs";
    find(element, ".primary", HTMLElement).textContent = "Keep mine";
    return true;
  }

  fill(task);
  return { element, showConflict };
}
