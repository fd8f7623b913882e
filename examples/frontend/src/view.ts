/** The page: what it shows, and what the user does there. */

import type { User } from "./account";
import type { Task, TaskStatus } from "./api";
import { find, whileBusy } from "./dom";
import { createRow, type Row, type RowActions } from "./row";

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
  add(title: string): Promise<boolean>;
  filter(status: TaskStatus | undefined): Promise<boolean>;
  showMore(): Promise<unknown>;
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
  const list = page("tasks", HTMLUListElement);
  const notice = page("notice", HTMLElement);
  const more = page("more", HTMLButtonElement);

  const banner = page("banner", HTMLElement);
  const bannerMessage = page("banner-message", HTMLElement);
  const retry = page("retry", HTMLButtonElement);
  const dismiss = page("dismiss", HTMLButtonElement);
  const announcement = page("announcement", HTMLElement);

  const rows = new Map<number, Row>();
  let signingUp = false;

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
    return (new FormData(filter).get("status") ?? "") as TaskStatus | "";
  }

  /** Rows are kept, not made anew: one may be in the user's hands. */
  function showTasks(tasks: Task[], hasMore: boolean): void {
    const focused = document.activeElement?.closest("li");
    const next = focused?.nextElementSibling ?? focused?.previousElementSibling;
    const shown = new Set(tasks.map((task) => task.id));
    for (const [id, row] of rows) {
      if (shown.has(id)) continue;
      row.element.remove();
      rows.delete(id);
    }
    tasks.forEach((task, index) => {
      const row = rows.get(task.id) ?? createRow(task, actions);
      rows.set(task.id, row);
      row.show(task);
      const place = list.children[index] ?? null;
      if (place !== row.element) list.insertBefore(row.element, place);
    });
    if (focused && !focused.isConnected) {
      (next?.querySelector("button") ?? newTask).focus();
    }
    notice.textContent = EMPTY[chosenStatus()];
    notice.hidden = tasks.length > 0;
    more.hidden = !hasMore;
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
  add.addEventListener("submit", (event) => {
    event.preventDefault();
    void whileBusy(add, async () => {
      const title = newTask.value;
      // What was typed meanwhile is the next task's.
      if ((await actions.add(title)) && newTask.value === title) newTask.value = "";
    });
  });
  filter.addEventListener("change", async () => {
    if (!(await actions.filter(chosenStatus() || undefined))) return;
    announcement.textContent = `${rows.size}${more.hidden ? "" : " or more"} shown`;
  });
  more.addEventListener("click", () => whileBusy(more, actions.showMore));
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
      rows.clear();
      list.replaceChildren();
      (emailInput.value ? passwordInput : emailInput).focus();
    },

    showEntranceMessage(text: string): void {
      message.textContent = text;
    },

    showDesk(user: User): void {
      credentials.reset();
      filter.reset();
      opening.hidden = entrance.hidden = banner.hidden = true;
      desk.hidden = false;
      userName.textContent = user.name;
      userName.title = user.email;
      notice.textContent = "Loading your tasks…";
      notice.hidden = false;
      more.hidden = true;
    },

    showAllStatuses(): void {
      filter.reset();
    },

    showListBusy(busy: boolean): void {
      list.ariaBusy = String(busy);
    },

    showTasks,

    focusNewTask(): void {
      newTask.focus();
    },

    forgetDraft(): void {
      newTask.value = "";
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
