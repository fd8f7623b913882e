/** One task in the list, and its editor in place. */

import type { Task, TaskStatus, TaskUpdate } from "./api";
import { find, whileBusy } from "./dom";

const STATUS_NAMES: Record<TaskStatus, string> = {
  pending: "Pending",
  in_progress: "In progress",
  completed: "Completed",
};

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** What the user can do to a task; each tells whether it was done. */
export interface RowActions {
  update(task: Task, changes: TaskUpdate): Promise<boolean>;
  complete(task: Task): Promise<boolean>;
  remove(task: Task): Promise<boolean>;
}

export interface Row {
  element: HTMLLIElement;
  show(task: Task): void;
}

export function createRow(template: HTMLTemplateElement, first: Task, actions: RowActions): Row {
  const element = find(
    document.importNode(template.content, true),
    "li",
    HTMLLIElement,
  );
  const part = <E extends Element>(name: string, type: new () => E): E =>
    find(element, `[data-part="${name}"]`, type);

  const check = part("check", HTMLButtonElement);
  const text = part("text", HTMLElement);
  const title = part("title", HTMLElement);
  const description = part("description", HTMLElement);
  const status = part("status", HTMLElement);
  const created = part("created", HTMLTimeElement);
  const buttons = part("actions", HTMLElement);
  const start = part("start", HTMLButtonElement);
  const edit = part("edit", HTMLButtonElement);
  const remove = part("delete", HTMLButtonElement);
  const editor = part("editor", HTMLFormElement);
  const cancel = part("cancel", HTMLButtonElement);
  const titleInput = find(editor, "input", HTMLInputElement);
  const descriptionInput = find(editor, "textarea", HTMLTextAreaElement);

  let task = first;

  function show(next: Task): void {
    task = next;
    element.dataset.status = task.status;
    title.textContent = task.title;
    description.textContent = task.description;
    status.textContent = STATUS_NAMES[task.status];
    created.dateTime = task.created_at;
    created.textContent = WHEN.format(new Date(task.created_at));
    start.hidden = task.status !== "pending";
    check.title = task.status === "completed" ? "Reopen" : "Complete";
    check.ariaLabel = `${check.title}: ${task.title}`;
    start.ariaLabel = `Start: ${task.title}`;
    edit.ariaLabel = `Edit: ${task.title}`;
    askBeforeDelete(false);
  }

  /** A deletion is for good, so it takes a second press. */
  function askBeforeDelete(asking: boolean): void {
    remove.dataset.asking = String(asking);
    remove.textContent = asking ? "Really?" : "Delete";
    remove.ariaLabel = `${asking ? "Really delete" : "Delete"}: ${task.title}`;
  }

  function openEditor(open: boolean): void {
    editor.hidden = !open;
    text.hidden = buttons.hidden = check.hidden = open;
  }

  /** Only what was edited: another device may have changed the rest meanwhile. */
  function changes(): TaskUpdate {
    const described = descriptionInput.value.trim() || null;
    return {
      ...(titleInput.value.trim() !== task.title && { title: titleInput.value }),
      ...(described !== task.description && { description: described }),
    };
  }

  check.addEventListener("click", () =>
    whileBusy(element, () =>
      task.status === "completed"
        ? actions.update(task, { status: "pending" })
        : actions.complete(task),
    ),
  );

  start.addEventListener("click", () =>
    whileBusy(element, async () => {
      // The button is not there any more once the task is in progress.
      if (await actions.update(task, { status: "in_progress" })) check.focus();
    }),
  );

  remove.addEventListener("click", () => {
    if (remove.dataset.asking === "true") void whileBusy(element, () => actions.remove(task));
    else askBeforeDelete(true);
  });
  remove.addEventListener("blur", () => askBeforeDelete(false));
  remove.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") askBeforeDelete(false);
  });

  edit.addEventListener("click", () => {
    titleInput.value = task.title;
    descriptionInput.value = task.description ?? "";
    openEditor(true);
    titleInput.select();
  });
  cancel.addEventListener("click", () => {
    openEditor(false);
    edit.focus();
  });
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Escape") cancel.click();
    // A plain Enter begins a line in the description, and saves in the title.
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) editor.requestSubmit();
  });
  editor.addEventListener("submit", (event) => {
    event.preventDefault();
    void whileBusy(element, async () => {
      const edited = changes();
      if (Object.keys(edited).length > 0 && !(await actions.update(task, edited))) return;
      openEditor(false);
      edit.focus();
    });
  });

  show(task);
  return { element, show };
}
