/** The editor that replaces a row while its task is edited. Its reset event means "cancel". */

import type { Priority, Task, TaskStatus, TaskUpdate } from "./api";
import { find, instantiate } from "./dom";
import { createDueField } from "./due";
import { createTagField } from "./tags";

/** A field of the editor, by its name. */
export type EditorField = "title" | "date" | "priority";

export interface Editor {
  element: HTMLFormElement;
  focus(field: EditorField): void;
  /**
   * Asks which version to keep. Fields that the user has not edited take the values of `theirs`.
   * Returns false if the versions do not differ.
   */
  showConflict(theirs: Task, mine?: TaskUpdate): boolean;
  /** Shows what happened to the task elsewhere. */
  tell(text: string): void;
}

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** `save` receives only the edited fields: the others may have changed elsewhere. */
export function createEditor(first: Task, save: (changes: TaskUpdate) => unknown): Editor {
  const element = instantiate("editor", HTMLFormElement);
  const title = find(element, "[name=title]", HTMLInputElement);
  const description = find(element, "textarea", HTMLTextAreaElement);
  const date = find(element, "[name=date]", HTMLInputElement);
  const due = createDueField(date, find(element, "[name=time]", HTMLInputElement));
  const priority = find(element, "[name=priority]", HTMLSelectElement);
  const status = find(element, "[name=status]", HTMLSelectElement);
  const tags = createTagField(find(element, "[data-part=tags]", HTMLElement));
  const created = find(element, "time", HTMLTimeElement);
  const message = find(element, "[role=alert]", HTMLElement);
  let task = first;

  function fill(next: Task): void {
    title.value = next.title;
    description.value = next.description ?? "";
    due.value = next.due_date;
    priority.value = next.priority;
    status.value = next.status;
    tags.value = next.tags;
    created.dateTime = next.created_at;
    created.textContent = WHEN.format(new Date(next.created_at));
  }

  function edited(): Partial<Task> {
    const described = description.value.trim() || null;
    return {
      ...(title.value.trim() !== task.title && { title: title.value.trim() }),
      ...(described !== task.description && { description: described }),
      ...(due.value !== task.due_date && { due_date: due.value }),
      ...(priority.value !== task.priority && { priority: priority.value as Priority }),
      ...(status.value !== task.status && { status: status.value as TaskStatus }),
      ...(String(tags.value) !== String(task.tags) && { tags: tags.value }),
    };
  }

  element.addEventListener("submit", (event) => {
    event.preventDefault();
    save(edited());
  });
  element.addEventListener("keydown", (event) => {
    // Ignore an Escape or Enter that ends an IME composition, for example in Japanese.
    if (event.isComposing) return;
    if (event.key === "Escape") element.reset();
    // Enter alone saves in the title, and starts a new line in the description.
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element.requestSubmit();
  });

  function showConflict(theirs: Task, mine: TaskUpdate = edited()): boolean {
    fill({ ...theirs, ...mine });
    task = theirs;
    if (Object.keys(edited()).length === 0) return false;
    element.classList.add("disputed");
    message.textContent =
      "This task was changed on another device. The new version is above. " +
      "Choose which one to keep.";
    find(element, "[type=reset]", HTMLElement).textContent = "Discard mine";
    find(element, ".primary", HTMLElement).textContent = "Keep mine";
    return true;
  }

  fill(task);
  return {
    element,
    focus(field) {
      if (field === "title") title.select();
      else find(element, `[name=${field}]`, HTMLElement).focus();
    },
    showConflict,
    tell(text) {
      message.textContent = text;
    },
  };
}
