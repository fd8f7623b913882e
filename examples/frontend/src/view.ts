/** The page: what it shows, and what the user does there. */

import type { User } from "./account";
import { createAddForm } from "./adding";
import type { NewTask, TagCount, Task, TaskPage, TaskQuery } from "./api";
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
  /** The key is the submission's: the same for one that is tried again. */
  add(task: NewTask, key: string): Promise<boolean>;
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
  const announcement = page("announcement", HTMLElement);

  const entrance = createEntrance(actions);
  const toast = createToast(page("toast", HTMLElement));
  const addForm = createAddForm(actions.add);
  const filters = createFilters(async (query) => {
    if (await actions.filter(query)) announceCount();
  });

  const rows = new Map<number, Row>();
  /** The list as the server has it. */
  let listed = NOTHING;
  /** The ids of tasks that are deleted, or will be unless the user undoes it. */
  const removed = new Set<number>();
  let removal: Promise<boolean> = Promise.resolve(true);
  let day = dayOf(new Date());

  /** Rows are kept, not made anew: one may be in the user's hands. */
  function showTasks(next: TaskPage): void {
    listed = next;
    const tasks = listed.tasks.filter((task) => !removed.has(task.id));
    const total = listed.total - (listed.tasks.length - tasks.length);
    const shown = new Set(tasks.map((task) => task.id));
    for (const [id, row] of rows) {
      if (shown.has(id)) continue;
      passFocusOn(row.element);
      row.element.remove();
      rows.delete(id);
    }
    const focused = document.activeElement;
    tasks.forEach((task, index) => {
      const row = rows.get(task.id) ?? createRow(task, rowActions);
      rows.set(task.id, row);
      row.show(task);
      const place = list.children[index] ?? null;
      if (place !== row.element) list.insertBefore(row.element, place);
    });
    // A row that moves loses it.
    if (focused !== document.activeElement && focused instanceof HTMLElement) focused.focus();
    notice.textContent = filters.emptyText();
    notice.hidden = tasks.length > 0;
    foot.hidden = tasks.length === 0;
    count.textContent = listed.next ? `${tasks.length} of ${total}` : tasksIn(total);
    showIf(listed.next !== undefined, more);
    // It clears all of them, so it is not offered beside a few that were searched for.
    const clearable = tasks.some((task) => task.status === "completed");
    showIf(clearable && !filters.isNarrow(), clear);
  }

  const rowActions: RowActions = {
    ...actions,
    remove: (task) => {
      removal = remove(task);
    },
    showTag: filters.showTag,
  };

  /** Hides the task immediately, and deletes it unless the user undoes that. */
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

  /** Lets whoever is in a row that goes be in the next one. */
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
      clear.textContent = asking ? "Really delete all?" : "Clear completed";
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

    /** Gives what the user begins with. */
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

    /** Tells whether the filters may leave the task out. */
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
