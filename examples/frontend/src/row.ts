/** A task in the list, with its editor. */

import type { Priority, Task, TaskStatus, TaskUpdate, TaskVersion } from "./api";
import { find, instantiate } from "./dom";
import { showDue } from "./due";
import { createEditor, type Editor, type EditorField } from "./editor";

const STATUS_NAMES: Record<TaskStatus, string> = {
  pending: "Pending",
  in_progress: "In progress",
  completed: "Completed",
};

const PRIORITY_NAMES: Record<Priority, string> = { high: "High", medium: "Medium", low: "Low" };

/** What the user can do with a task. Each promise returns the result, or whether it succeeded. */
export interface RowActions {
  start(task: Task): Promise<boolean>;
  complete(task: Task): Promise<boolean>;
  reopen(task: Task): Promise<boolean>;
  read(task: Task): Promise<TaskVersion | undefined>;
  /** If the task has changed since this version, returns the current version instead of saving. */
  save(version: TaskVersion, changes: TaskUpdate): Promise<boolean | TaskVersion>;
  /** Called after an editor has closed. */
  closed(): void;
  /** Called when the user has decided which version to keep. */
  settle(task: Task): void;
  /** The user can undo this for a few seconds. */
  remove(task: Task): void;
  showTag(tag: string): void;
}

export interface Row {
  element: HTMLLIElement;
  show(task: Task, unsent?: boolean): void;
  isEdited(): boolean;
  /** Asks which version to keep of a task that was changed both here and elsewhere. */
  showDispute(theirs: TaskVersion, mine: TaskUpdate): void;
  /** Shows in the editor that the task was changed elsewhere or, without `theirs`, deleted. */
  tell(theirs?: Task): void;
  /** Renders the row again: a task that was due today may be overdue by now. */
  render(): void;
  /** For the keyboard shortcuts. */
  edit(): void;
  complete(): void;
  remove(): void;
}

export function createRow(first: Task, actions: RowActions): Row {
  const element = instantiate("row", HTMLLIElement);
  const part = <E extends Element>(name: string, type: new () => E): E =>
    find(element, `[data-part="${name}"]`, type);

  const check = part("check", HTMLButtonElement);
  const title = part("title", HTMLElement);
  const description = part("description", HTMLElement);
  const status = part("status", HTMLElement);
  const due = part("due", HTMLElement);
  const dueButton = part("due-button", HTMLButtonElement);
  const priority = part("priority", HTMLElement);
  const priorityButton = part("priority-button", HTMLButtonElement);
  const tags = part("tags", HTMLElement);
  const mark = part("unsent", HTMLElement);
  const start = part("start", HTMLButtonElement);
  const edit = part("edit", HTMLButtonElement);
  const remove = part("delete", HTMLButtonElement);

  /** The last known version of the server. */
  let actual = first;
  /** Changes that are being sent. They are shown immediately. */
  const foreseen: TaskUpdate[] = [];
  let lastAction: Promise<unknown> = Promise.resolve();
  let editing: { editor: Editor; task: Task } | undefined;

  function show(next: Task, unsent = false): void {
    actual = next;
    mark.textContent = unsent ? "Not yet sent" : "";
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
    dueButton.hidden = task.due_date === null;
    showDue(due, task.due_date, task.status !== "completed");
    dueButton.ariaLabel = `Change the due date of ${task.title}: ${due.textContent}`;
    element.dataset.priority = task.priority;
    priorityButton.hidden = task.priority === "medium";
    priority.textContent = priorityButton.hidden ? "" : PRIORITY_NAMES[task.priority];
    priorityButton.ariaLabel = `Change the priority of ${task.title}: ${priority.textContent}`;
    showTags(task.tags);
    start.hidden = task.status !== "pending";
    check.title = task.status === "completed" ? "Reopen" : "Complete";
    check.ariaLabel = `${check.title}: ${task.title}`;
    start.ariaLabel = `Start: ${task.title}`;
    edit.ariaLabel = `Edit: ${task.title}`;
    remove.ariaLabel = `Delete: ${task.title}`;
  }

  function showTags(next: string[]): void {
    // Update only on a change: a tag may have the focus.
    if (String(next) === tags.dataset.shown) return;
    tags.dataset.shown = String(next);
    tags.replaceChildren(
      ...next.map((tag) => {
        const button = document.createElement("button");
        button.className = "fact tag";
        button.textContent = tag;
        button.ariaLabel = `Show tasks tagged ${tag}`;
        button.addEventListener("click", () => actions.showTag(tag));
        return button;
      }),
    );
  }

  /** Runs the action after the previous ones. Until it ends, its changes are already shown. */
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

  function complete(): void {
    void (shown().status === "completed"
      ? act(() => actions.reopen(actual), { status: "pending" })
      : act(() => actions.complete(actual), { status: "completed" }));
  }

  async function startEditing(field: EditorField): Promise<void> {
    // The list has no ETags, and the task may have changed since.
    const version = await act(() => actions.read(actual));
    if (version && !editing) openEditor(version).focus(field);
  }

  check.addEventListener("click", complete);
  start.addEventListener("click", () => {
    // Move the focus, because this button disappears once the task is in progress.
    check.focus();
    void act(() => actions.start(actual), { status: "in_progress" });
  });

  edit.addEventListener("click", () => startEditing("title"));
  dueButton.addEventListener("click", () => startEditing("date"));
  priorityButton.addEventListener("click", () => startEditing("priority"));
  remove.addEventListener("click", () => actions.remove(shown()));

  function openEditor(version: TaskVersion, mine?: TaskUpdate): Editor {
    let latest = version;
    const editor = createEditor(latest.task, save);
    editing = { editor, task: latest.task };

    async function save(changes: TaskUpdate): Promise<void> {
      hide();
      if (mine) actions.settle(latest.task);
      const unchanged = Object.keys(changes).length === 0;
      const saved = unchanged || (await act(() => actions.save(latest, changes), changes));
      if (typeof saved === "object") latest = saved;
      // There is no conflict if an earlier attempt succeeded and its response was lost.
      if (saved === true || (saved && !editor.showConflict(latest.task))) {
        close();
        return;
      }
      if (editing) editing.task = latest.task;
      // Reopen the editor with what was typed, but move the focus only if it is still in this row.
      const here = element.contains(document.activeElement);
      element.classList.add("edited");
      if (here) editor.focus("title");
    }

    function hide(): void {
      element.classList.remove("edited");
      edit.focus();
    }

    function close(): void {
      editor.element.remove();
      editing = undefined;
      actions.closed();
    }

    editor.element.addEventListener("reset", () => {
      hide();
      if (mine) actions.settle(latest.task);
      close();
    });
    element.append(editor.element);
    element.classList.add("edited");
    if (mine) editor.showConflict(latest.task, mine);
    return editor;
  }

  render();
  return {
    element,
    show,
    isEdited: () => editing !== undefined,

    showDispute(theirs, mine) {
      // Wait until the current edit is finished.
      if (editing) return;
      show(theirs.task);
      openEditor(theirs, mine);
    },

    tell(theirs) {
      if (!editing || !element.classList.contains("edited")) return;
      const { editor, task } = editing;
      if (!theirs) {
        editor.tell(
          "This task was deleted on another device. " +
            "You cannot save your changes, but you can copy them.",
        );
      } else if (theirs.updated_at > task.updated_at) {
        editor.tell(
          "This task was changed on another device. " +
            "When you save, you can choose which version to keep.",
        );
      }
    },

    render,
    edit: () => void startEditing("title"),
    complete,
    remove: () => actions.remove(shown()),
  };
}
