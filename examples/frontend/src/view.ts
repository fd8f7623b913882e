/** What the page shows, and how it responds to the user. */

import type { User } from "./account";
import { createAddForm } from "./adding";
import type {
  NewTask,
  TagCount,
  Task,
  TaskPage,
  TaskQuery,
  TaskUpdate,
  TaskVersion,
} from "./api";
import { dayOf } from "./dates";
import { find, onSecondPress, whileBusy } from "./dom";
import { type AccountActions, createEntrance } from "./entrance";
import { createFilters } from "./filters";
import { listenForShortcuts } from "./keyboard";
import { createRow, type Row, type RowActions } from "./row";
import { suggestTags } from "./tags";
import { createToast } from "./toast";

const NOTHING: TaskPage = { tasks: [], total: 0, next: undefined };
const MINUTE_MILLISECONDS = 60_000;

export interface Actions extends AccountActions, Omit<RowActions, "remove" | "showTag"> {
  signOut(): Promise<unknown>;
  add(task: NewTask): Promise<boolean>;
  /** Prepares for a deletion that may be sent while the user leaves the page. */
  prepareRemoval(): void;
  remove(task: Task): Promise<boolean>;
  filter(query: TaskQuery): Promise<boolean>;
  clearCompleted(): Promise<unknown>;
  showMore(): Promise<boolean>;
  retry(): Promise<unknown>;
}

export function createView(actions: Actions) {
  const page = <E extends Element>(id: string, type: new () => E): E =>
    find(document, `#${id}`, type);

  const opening = page("opening", HTMLElement);
  const desk = page("desk", HTMLElement);
  const userName = page("user-name", HTMLElement);
  const signOut = page("sign-out", HTMLButtonElement);
  const list = page("tasks", HTMLUListElement);
  const notice = page("notice", HTMLElement);
  const foot = page("foot", HTMLElement);
  const count = page("count", HTMLElement);
  const more = page("more", HTMLButtonElement);
  const clear = page("clear", HTMLButtonElement);
  const shortcuts = page("shortcuts", HTMLDialogElement);
  const banner = page("banner", HTMLElement);
  const bannerMessage = page("banner-message", HTMLElement);
  const retry = page("retry", HTMLButtonElement);
  const dismiss = page("dismiss", HTMLButtonElement);
  const connection = page("connection", HTMLElement);
  const announcement = page("announcement", HTMLElement);

  const entrance = createEntrance(actions);
  const toast = createToast(page("toast", HTMLElement));
  const addForm = createAddForm(actions.add);
  const filters = createFilters(async (query) => {
    if (await actions.filter(query)) announceCount();
  });

  const rows = new Map<number, Row>();
  /** The server's list, with the unsent changes applied. */
  let listed = NOTHING;
  let unsent: ReadonlySet<number> = new Set();
  /** The ids of tasks that are deleted, or will be unless the user undoes the deletion. */
  const removed = new Set<number>();
  let removal: Promise<boolean> = Promise.resolve(true);
  let day = dayOf(new Date());

  /** Reuses existing rows, because the user may be editing one. */
  function showTasks(next: TaskPage, unsentIds = unsent): void {
    listed = next;
    unsent = unsentIds;
    const tasks = listed.tasks.filter((task) => !removed.has(task.id));
    const total = listed.total - (listed.tasks.length - tasks.length);
    const elements = tasks.map((task) => {
      const row = rows.get(task.id) ?? createRow(task, rowActions);
      rows.set(task.id, row);
      row.show(task, unsent.has(task.id));
      return row.element;
    });
    const shown = new Set(tasks.map((task) => task.id));
    for (const [id, row] of rows) {
      if (shown.has(id)) continue;
      if (row.isEdited()) {
        // Keep the row with what the user is typing until they close the editor.
        elements.splice([...list.children].indexOf(row.element), 0, row.element);
        continue;
      }
      passFocusOn(row.element);
      row.element.remove();
      rows.delete(id);
    }
    arrange(elements);
    notice.textContent = filters.emptyText();
    notice.hidden = tasks.length > 0;
    foot.hidden = tasks.length === 0;
    count.textContent = listed.next ? `${tasks.length} of ${total}` : tasksIn(total);
    showIf(listed.next !== undefined, more);
    // The button deletes all completed tasks, so hide it while filters hide some of them.
    const clearable = tasks.some((task) => task.status === "completed");
    showIf(clearable && !filters.isNarrow(), clear);
  }

  /** Puts the rows in this order without moving the row that has the focus. */
  function arrange(elements: Element[]): void {
    let place = list.firstElementChild;
    for (const element of elements) {
      while (place && place !== element && element.contains(document.activeElement)) {
        const after: Element | null = place.nextElementSibling;
        list.append(place);
        place = after;
      }
      if (place === element) place = element.nextElementSibling;
      else list.insertBefore(element, place);
    }
  }

  const rowActions: RowActions = {
    ...actions,
    remove: (task) => {
      removal = remove(task);
    },
    showTag: filters.showTag,
  };

  /** Hides the task immediately, and deletes it unless the user undoes the deletion. */
  async function remove(task: Task): Promise<boolean> {
    removed.add(task.id);
    showTasks(listed);
    actions.prepareRemoval();
    announcement.textContent = `Deleted: ${task.title}. Press u to undo.`;
    const undone = await toast.offerUndo(`Deleted “${task.title}”`);
    if (!undone && (await actions.remove(task))) return true;
    removed.delete(task.id);
    showTasks(listed);
    if (undone) rows.get(task.id)?.element.focus();
    return undone;
  }

  /** Moves the focus from a row that disappears to the next one. */
  function passFocusOn(row: HTMLLIElement): void {
    if (!row.contains(document.activeElement)) return;
    const next = row.nextElementSibling ?? row.previousElementSibling;
    if (!(next instanceof HTMLLIElement)) addForm.focus();
    else if (document.activeElement === row) next.focus();
    else next.querySelector("button")?.focus();
  }

  function showIf(shown: boolean, button: HTMLButtonElement): void {
    if (!shown && document.activeElement === button) {
      const last = list.lastElementChild?.querySelector("button");
      if (last) last.focus();
      else addForm.focus();
    }
    button.hidden = !shown;
  }

  function announceCount(): void {
    announcement.textContent = (notice.hidden ? count : notice).textContent;
  }

  function currentRow(): Row | undefined {
    return [...rows.values()].find(({ element }) => element.contains(document.activeElement));
  }

  /** Moves the focus to the next or previous row; from outside the list, to the first. */
  function move(step: 1 | -1): void {
    const elements = [...list.children] as HTMLLIElement[];
    const current = currentRow();
    const next = current ? elements.indexOf(current.element) + step : 0;
    elements[Math.min(Math.max(next, 0), elements.length - 1)]?.focus();
  }

  listenForShortcuts({
    n: () => addForm.focus(),
    "/": () => filters.focusSearch(),
    j: () => move(1),
    k: () => move(-1),
    e: () => currentRow()?.edit(),
    x: () => currentRow()?.complete(),
    d: () => currentRow()?.remove(),
    u: () => toast.undo(),
    "?": () => shortcuts.showModal(),
  });
  page("show-shortcuts", HTMLButtonElement).addEventListener("click", () => shortcuts.showModal());

  signOut.addEventListener("click", () =>
    whileBusy(signOut, async () => {
      toast.close();
      if (await removal) await actions.signOut();
    }),
  );
  more.addEventListener("click", () =>
    whileBusy(more, async () => {
      if (await actions.showMore()) announceCount();
    }),
  );
  onSecondPress(
    clear,
    (asking) => {
      clear.dataset.asking = String(asking);
      clear.textContent = asking ? "Delete completed?" : "Clear completed";
    },
    () => whileBusy(clear, actions.clearCompleted),
  );
  retry.addEventListener("click", () => whileBusy(banner, actions.retry));
  dismiss.addEventListener("click", () => {
    banner.hidden = true;
    addForm.focus();
  });
  window.addEventListener("pagehide", () => toast.close());
  window.setInterval(() => {
    for (const row of rows.values()) row.render();
    const today = dayOf(new Date());
    if (today !== day) filters.renew();
    day = today;
  }, MINUTE_MILLISECONDS);

  return {
    showEntrance(text = ""): void {
      toast.close();
      opening.hidden = desk.hidden = banner.hidden = true;
      entrance.show(text);
      shortcuts.close();
      rows.clear();
      listed = NOTHING;
      list.replaceChildren();
    },

    showEntranceMessage: entrance.showMessage,

    /** Returns the initial query. */
    showDesk(user: User): TaskQuery {
      entrance.hide(user);
      filters.reset();
      removal = Promise.resolve(true);
      opening.hidden = banner.hidden = true;
      desk.hidden = false;
      userName.textContent = user.name;
      userName.title = user.email;
      notice.textContent = "Loading your tasks…";
      notice.hidden = false;
      foot.hidden = true;
      return filters.query();
    },

    showAll: filters.showAll,

    /** Returns whether the filters may exclude the task. */
    hides: filters.hides,

    showListBusy(busy: boolean): void {
      list.ariaBusy = String(busy);
    },

    showTasks,

    showTags(tags: TagCount[]): void {
      filters.showTags(tags);
      addForm.suggest(tags);
      suggestTags(tags);
    },

    showTask(task: Task): void {
      rows.get(task.id)?.show(task);
    },

    /** Assigns the server's id to the row of a new task. Returns whether there is such a row. */
    renameTask(id: number, task: Task): boolean {
      const row = rows.get(id);
      // If the response was lost and the list was reloaded since, the task already has a row.
      if (!row || rows.has(task.id)) return false;
      rows.delete(id);
      rows.set(task.id, row);
      return true;
    },

    showDispute(theirs: TaskVersion, mine: TaskUpdate): void {
      rows.get(theirs.task.id)?.showDispute(theirs, mine);
    },

    tellChanged(task: Task): void {
      rows.get(task.id)?.tell(task);
    },

    tellDeleted(id: number): void {
      rows.get(id)?.tell();
    },

    /** Restores a task that could not be deleted. */
    restore(task: Task): void {
      removed.delete(task.id);
    },

    /** Shows in the header whether the server is unreachable, and which changes are unsent. */
    showConnection(offline: boolean, unsentChanges: string): void {
      const text = [offline && "Offline", unsentChanges && `${unsentChanges} not yet sent`]
        .filter(Boolean)
        .join(" · ");
      if (offline && !connection.textContent?.startsWith("Offline")) {
        announcement.textContent =
          "You are offline. Your changes will be sent when you are back online.";
      }
      connection.textContent = text;
    },

    focusNewTask: addForm.focus,

    forgetDraft: addForm.forget,

    showError(text: string, remedy: "retry" | "dismiss"): void {
      bannerMessage.textContent = text;
      retry.hidden = remedy !== "retry";
      dismiss.hidden = remedy !== "dismiss";
      banner.hidden = false;
    },

    hideError(): void {
      banner.hidden = true;
    },

    announce(text: string): void {
      announcement.textContent = text;
    },
  };
}

function tasksIn(total: number): string {
  return total === 1 ? "1 task" : `${total} tasks`;
}
