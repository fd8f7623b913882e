/** One task in the list, and its editor in place. */

import type { Task, TaskStatus, TaskUpdate } from "./api";
import { find, instantiate, whileBusy } from "./dom";
import { createEditor } from "./editor";

const STATUS_NAMES: Record<TaskStatus, string> = {
  pending: "Pending",
  in_progress: "In progress",
  completed: "Completed",
};

const WHEN = new Intl.DateTimeFormat(undefined, {
  month: "short",
  day: "numeric",
  hour: "numeric",
  minute: "2-digit",
});

/** What the user can do to a task; each tells whether it was done. */
export interface RowActions {
  start(task: Task): Promise<boolean>;
  complete(task: Task): Promise<boolean>;
  reopen(task: Task): Promise<boolean>;
  save(task: Task, changes: TaskUpdate): Promise<boolean>;
  remove(task: Task): Promise<boolean>;
}

export interface Row {
  element: HTMLLIElement;
  show(task: Task): void;
}

export function createRow(first: Task, actions: RowActions): Row {
  const element = instantiate("row", HTMLLIElement);
  const part = <E extends Element>(name: string, type: new () => E): E =>
    find(element, `[data-part="${name}"]`, type);

  const check = part("check", HTMLButtonElement);
  const title = part("title", HTMLElement);
  const description = part("description", HTMLElement);
  const status = part("status", HTMLElement);
  const created = part("created", HTMLTimeElement);
  const start = part("start", HTMLButtonElement);
  const edit = part("edit", HTMLButtonElement);
  const remove = part("delete", HTMLButtonElement);

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

  check.addEventListener("click", () =>
    whileBusy(element, () =>
      task.status === "completed" ? actions.reopen(task) : actions.complete(task),
    ),
  );

  start.addEventListener("click", () =>
    whileBusy(element, async () => {
      // The button is not there any more once the task is in progress.
      if (await actions.start(task)) check.focus();
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
    const editor = createEditor(task, (changes) =>
      whileBusy(element, async () => {
        const unchanged = Object.keys(changes).length === 0;
        if (unchanged || (await actions.save(task, changes))) close();
      }),
    );
    const close = (): void => {
      editor.remove();
      element.classList.remove("edited");
      edit.focus();
    };
    editor.addEventListener("reset", close);
    element.classList.add("edited");
    element.append(editor);
    find(editor, "input", HTMLInputElement).select();
  });

  show(task);
  return { element, show };
}
