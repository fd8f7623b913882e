/** One task in the list, and its editor in place. */

import type { Task, TaskStatus, TaskUpdate, TaskVersion } from "./api";
import { find, instantiate, onSecondPress } from "./dom";
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

/** What the user can do to a task; each tells whether it was done, or gives what is asked for. */
export interface RowActions {
  start(task: Task): Promise<boolean>;
  complete(task: Task): Promise<boolean>;
  reopen(task: Task): Promise<boolean>;
  read(task: Task): Promise<TaskVersion | undefined>;
  /** Where the task is another version by now, it is not done, and that version is given. */
  save(version: TaskVersion, changes: TaskUpdate): Promise<boolean | TaskVersion>;
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

  /** As the server has it, as far as is known. */
  let actual = first;
  /** What the server is being asked to make of it, which is shown at once. */
  const foreseen: TaskUpdate[] = [];
  let lastAction: Promise<unknown> = Promise.resolve();

  function show(next: Task): void {
    actual = next;
    render();
  }

  function shown(): Task {
    return Object.assign({}, actual, ...foreseen);
  }

  function render(): void {
    const task = shown();
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
    remove.ariaLabel = `${asking ? "Really delete" : "Delete"}: ${actual.title}`;
  }

  /** Does it when what was asked before is done; its changes are seen from now to its end. */
  async function act<T>(action: () => Promise<T>, changes: TaskUpdate = {}): Promise<T> {
    foreseen.push(changes);
    element.ariaBusy = "true";
    render();
    const acting = lastAction.then(action);
    lastAction = acting;
    const done = await acting;
    foreseen.splice(foreseen.indexOf(changes), 1);
    if (foreseen.length === 0) element.ariaBusy = null;
    render();
    return done;
  }

  check.addEventListener("click", () =>
    shown().status === "completed"
      ? act(() => actions.reopen(actual), { status: "pending" })
      : act(() => actions.complete(actual), { status: "completed" }),
  );

  start.addEventListener("click", () => {
    // The button is not there any more once the task is in progress.
    check.focus();
    void act(() => actions.start(actual), { status: "in_progress" });
  });

  onSecondPress(remove, askBeforeDelete, () => act(() => actions.remove(actual)));

  edit.addEventListener("click", async () => {
    // A listed task comes without its ETag, and may have changed since.
    const version = await act(() => actions.read(actual));
    if (version && !element.querySelector(".editor")) openEditor(version);
  });

  function openEditor(version: TaskVersion): void {
    let latest = version;
    const editor = createEditor(latest.task, save);
    const input = find(editor.element, "input", HTMLInputElement);

    async function save(changes: TaskUpdate): Promise<void> {
      hide();
      const unchanged = Object.keys(changes).length === 0;
      const saved = unchanged || (await act(() => actions.save(latest, changes), changes));
      if (typeof saved === "object") latest = saved;
      // Nothing is left to ask where it was saved before, and only the answer did not arrive.
      if (saved === true || (saved && !editor.showConflict(latest.task))) {
        editor.element.remove();
        return;
      }
      // With what was typed; whoever has gone on elsewhere is not called back.
      const here = element.contains(document.activeElement);
      element.classList.add("edited");
      if (here) input.focus();
    }

    function hide(): void {
      element.classList.remove("edited");
      edit.focus();
    }

    editor.element.addEventListener("reset", () => {
      hide();
      editor.element.remove();
    });
    element.append(editor.element);
    element.classList.add("edited");
    input.select();
  }

  render();
  return { element, show };
}
