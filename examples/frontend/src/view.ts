/** The page: what it shows, and what the user does there. */

import type { User } from "./account";
import type { Sort, Task, TaskPage, TaskQuery, TaskStatus } from "./api";
import { find, onSecondPress, whileBusy } from "./dom";
import { createRow, type Row, type RowActions } from "./row";

const SEARCH_AFTER_MILLISECONDS = 250; // without another letter

const EMPTY: Record<TaskStatus | "", string> = {
  "": "No tasks yet. Add your first one above.",
  pending: "Nothing is pending.",
  in_progress: "Nothing is in progress.",
  completed: "Nothing is completed yet.",
};

export interface Actions extends RowActions {
  signIn(email: string, password: string): Promise<void>;
  signUp(name: string, email: string, password: string): Promise<void>;
  signOut(): Promise<unknown>;
  /** Gives the reason where it was not done. */
  erase(password: string): Promise<string>;
  /** The key is the submission's: the same for one that is tried again. */
  add(title: string, key: string): Promise<boolean>;
  filter(query: TaskQuery): Promise<boolean>;
  clearCompleted(): Promise<unknown>;
  showMore(): Promise<boolean>;
  retry(): Promise<unknown>;
}

export function createView(actions: Actions) {
  const page = <E extends Element>(id: string, type: new () => E): E =>
    find(document, `#${id}`, type);

  const opening = page("opening", HTMLElement);
  const entrance = page("entrance", HTMLElement);
  const credentials = page("credentials", HTMLFormElement);
  const heading = page("entrance-heading", HTMLElement);
  const nameField = page("name-field", HTMLLabelElement);
  const nameInput = find(nameField, "input", HTMLInputElement);
  const emailInput = find(credentials, "[name=email]", HTMLInputElement);
  const passwordInput = find(credentials, "[name=password]", HTMLInputElement);
  const message = page("entrance-message", HTMLElement);
  const enter = page("enter", HTMLButtonElement);
  const question = page("switch-question", HTMLElement);
  const switchButton = page("switch", HTMLButtonElement);

  const desk = page("desk", HTMLElement);
  const userName = page("user-name", HTMLElement);
  const signOut = page("sign-out", HTMLButtonElement);
  const add = page("add", HTMLFormElement);
  const newTask = page("new-task", HTMLInputElement);
  const filter = page("filter", HTMLFormElement);
  const search = page("search", HTMLInputElement);
  const list = page("tasks", HTMLUListElement);
  const notice = page("notice", HTMLElement);
  const foot = page("foot", HTMLElement);
  const count = page("count", HTMLElement);
  const more = page("more", HTMLButtonElement);
  const clear = page("clear", HTMLButtonElement);

  const askToErase = page("ask-to-erase", HTMLButtonElement);
  const erasure = page("erasure", HTMLDialogElement);
  const erase = find(erasure, "form", HTMLFormElement);
  const eraseEmail = find(erasure, "[type=email]", HTMLInputElement);
  const erasePassword = find(erasure, "[type=password]", HTMLInputElement);
  const eraseMessage = find(erasure, "[role=alert]", HTMLElement);
  const keep = find(erasure, "[type=button]", HTMLButtonElement);

  const banner = page("banner", HTMLElement);
  const bannerMessage = page("banner-message", HTMLElement);
  const retry = page("retry", HTMLButtonElement);
  const dismiss = page("dismiss", HTMLButtonElement);
  const announcement = page("announcement", HTMLElement);

  const rows = new Map<number, Row>();
  let signingUp = false;
  let submission: { title: string; key: string } | undefined;
  let typing: number | undefined;

  function askFor(account: "existing" | "new"): void {
    signingUp = account === "new";
    nameField.hidden = nameInput.disabled = !signingUp;
    heading.textContent = signingUp ? "Create your account" : "Sign in";
    enter.textContent = signingUp ? "Sign up" : "Sign in";
    question.textContent = signingUp ? "Have an account?" : "No account yet?";
    switchButton.textContent = signingUp ? "Sign in instead" : "Create an account";
    passwordInput.autocomplete = signingUp ? "new-password" : "current-password";
    passwordInput.minLength = signingUp ? 8 : 0;
    message.textContent = "";
  }

  function chosenStatus(): TaskStatus | "" {
    return new FormData(filter).get("status") as TaskStatus | "";
  }

  function chosen(): TaskQuery {
    const [q, status] = [search.value.trim(), chosenStatus()];
    return {
      ...(q && { q }),
      ...(status && { status: [status] }),
      sort: new FormData(filter).get("sort") as Sort,
    };
  }

  /** Rows are kept, not made anew: one may be in the user's hands. */
  function showTasks({ tasks, total, next }: TaskPage): void {
    const shown = new Set(tasks.map((task) => task.id));
    for (const [id, row] of rows) {
      if (shown.has(id)) continue;
      passFocusOn(row.element);
      row.element.remove();
      rows.delete(id);
    }
    const focused = document.activeElement;
    tasks.forEach((task, index) => {
      const row = rows.get(task.id) ?? createRow(task, { ...actions, remove });
      rows.set(task.id, row);
      row.show(task);
      const place = list.children[index] ?? null;
      if (place !== row.element) list.insertBefore(row.element, place);
    });
    // A row that moves loses it.
    if (focused !== document.activeElement && focused instanceof HTMLElement) focused.focus();
    const q = search.value.trim();
    notice.textContent = q ? `Nothing matches “${q}”.` : EMPTY[chosenStatus()];
    notice.hidden = tasks.length > 0;
    foot.hidden = tasks.length === 0;
    count.textContent = next ? `${tasks.length} of ${total}` : `${total} in all`;
    showIf(next !== undefined, more);
    // It clears all of them, so it is not offered beside a few that were searched for.
    showIf(!q && tasks.some((task) => task.status === "completed"), clear);
  }

  /** Hides the row at once, and shows it again where the task could not be deleted. */
  async function remove(task: Task): Promise<boolean> {
    const element = rows.get(task.id)?.element;
    if (!element) return false;
    passFocusOn(element);
    element.hidden = true;
    const removed = await actions.remove(task);
    element.hidden = removed;
    return removed;
  }

  /** Lets whoever is in a row that goes be in the next one. */
  function passFocusOn(row: HTMLLIElement): void {
    if (!row.contains(document.activeElement)) return;
    const next = row.nextElementSibling ?? row.previousElementSibling;
    (next?.querySelector("button") ?? newTask).focus();
  }

  function showIf(shown: boolean, button: HTMLButtonElement): void {
    if (!shown && document.activeElement === button) {
      (list.lastElementChild?.querySelector("button") ?? newTask).focus();
    }
    button.hidden = !shown;
  }

  function announceCount(): void {
    announcement.textContent = (notice.hidden ? count : notice).textContent;
  }

  switchButton.addEventListener("click", () => {
    askFor(signingUp ? "existing" : "new");
    (signingUp ? nameInput : emailInput).focus();
  });
  credentials.addEventListener("submit", (event) => {
    event.preventDefault();
    message.textContent = "";
    const [email, password] = [emailInput.value, passwordInput.value];
    void whileBusy(credentials, () =>
      signingUp
        ? actions.signUp(nameInput.value, email, password)
        : actions.signIn(email, password),
    );
  });

  signOut.addEventListener("click", () => whileBusy(signOut, actions.signOut));
  askToErase.addEventListener("click", () => erasure.showModal());
  keep.addEventListener("click", () => erasure.close());
  erasure.addEventListener("close", () => {
    erase.reset();
    eraseMessage.textContent = "";
  });
  erase.addEventListener("submit", (event) => {
    event.preventDefault();
    eraseMessage.textContent = "";
    void whileBusy(erase, async () => {
      eraseMessage.textContent = await actions.erase(erasePassword.value);
    });
  });
  add.addEventListener("submit", (event) => {
    event.preventDefault();
    void whileBusy(add, async () => {
      const title = newTask.value;
      // After a failure: the server may have the task, so it is the same submission again.
      if (submission?.title !== title) submission = { title, key: crypto.randomUUID() };
      if (!(await actions.add(title, submission.key))) return;
      submission = undefined;
      // What was typed meanwhile is the next task's.
      if (newTask.value === title) newTask.value = "";
    });
  });
  filter.addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("input", ({ target }) => {
    window.clearTimeout(typing);
    const delay = target === search ? SEARCH_AFTER_MILLISECONDS : 0;
    typing = window.setTimeout(async () => {
      if (await actions.filter(chosen())) announceCount();
    }, delay);
  });
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
    newTask.focus();
  });

  return {
    showEntrance(text = ""): void {
      askFor("existing");
      message.textContent = text;
      opening.hidden = desk.hidden = banner.hidden = true;
      entrance.hidden = false;
      erasure.close();
      rows.clear();
      list.replaceChildren();
      (emailInput.value ? passwordInput : emailInput).focus();
    },

    showEntranceMessage(text: string): void {
      message.textContent = text;
    },

    /** Gives what the user begins with. */
    showDesk(user: User): TaskQuery {
      credentials.reset();
      filter.reset();
      opening.hidden = entrance.hidden = banner.hidden = true;
      desk.hidden = false;
      userName.textContent = user.name;
      userName.title = eraseEmail.defaultValue = user.email;
      notice.textContent = "Loading your tasks…";
      notice.hidden = false;
      foot.hidden = true;
      return chosen();
    },

    showAll(): TaskQuery {
      search.value = "";
      find(filter, "[name=status]", HTMLInputElement).checked = true;
      return chosen();
    },

    showListBusy(busy: boolean): void {
      list.ariaBusy = String(busy);
    },

    showTasks,

    showTask(task: Task): void {
      rows.get(task.id)?.show(task);
    },

    focusNewTask(): void {
      newTask.focus();
    },

    forgetDraft(): void {
      newTask.value = "";
      submission = undefined;
    },

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
