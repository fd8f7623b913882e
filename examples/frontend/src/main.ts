/** Connects the page with the user's account and tasks, and says what went wrong. */

import * as account from "./account";
import { type Api, createApi, type Task, type TaskStatus } from "./api";
import { RefusedError, SessionEndedError, UnavailableError } from "./errors";
import { type Actions, createView } from "./view";

const PAGE_SIZE = 50;
const RETRY_SECONDS = 3;
const OPEN_FAILED = "Could not open the page";
const LIST_FAILED = "Could not load the tasks";

/** What lasts from one sign-in to the sign-out. */
interface Desk {
  api: Api;
  close: AbortController;
  status: TaskStatus | undefined;
  /** How many tasks the user has asked to see. */
  wanted: number;
  /** The latest call of list(); an earlier one that answers later is ignored. */
  listing: symbol | undefined;
}

let apiUrl: string;
let desk: Desk | undefined;
let draftOf: string | undefined;
let reconnection: number | undefined;

const actions: Actions = {
  signIn: (email, password) => enter(() => account.signIn(email, password)),

  signUp: (name, email, password) => enter(() => account.signUp(name, email, password)),

  signOut: () =>
    attempt("Could not sign out", async () => {
      await account.signOut();
      view.forgetDraft();
      leave();
    }),

  add: (title) =>
    change("Could not add the task", async (here) => {
      const task = await here.api.create(title);
      view.announce(`Added: ${task.title}`);
      if (here.status && here.status !== task.status) {
        here.status = undefined;
        view.showAllStatuses();
      }
    }),

  start: (task) =>
    change("Could not start the task", async ({ api }) => {
      const { title } = await api.update(task, { status: "in_progress" });
      view.announce(`Started: ${title}`);
    }),

  complete: (task) =>
    change("Could not complete the task", async ({ api }) => {
      const { title } = await api.complete(task);
      view.announce(`Completed: ${title}`);
    }),

  reopen: (task) =>
    change("Could not reopen the task", async ({ api }) => {
      const { title } = await api.update(task, { status: "pending" });
      view.announce(`Reopened: ${title}`);
    }),

  save: (task, changes) =>
    change("Could not save the task", async ({ api }) => {
      const { title } = await api.update(task, changes);
      view.announce(`Saved: ${title}`);
    }),

  remove: (task) =>
    change("Could not delete the task", async ({ api }) => {
      await api.remove(task);
      view.announce(`Deleted: ${task.title}`);
    }),

  filter: (status) =>
    attempt(LIST_FAILED, async (here) => {
      here.status = status;
      here.wanted = PAGE_SIZE;
      await list(here);
    }),

  showMore: () =>
    attempt(LIST_FAILED, async (here) => {
      here.wanted += PAGE_SIZE;
      await list(here);
    }),

  retry: () => (desk ? attempt(LIST_FAILED, list) : start()),
};

const view = createView(actions);
void start();

/** Goes on where the user is: at their tasks, or at the entrance. */
async function start(): Promise<void> {
  try {
    const [config, user] = await Promise.all([readConfig(), account.currentUser()]);
    apiUrl = config.apiUrl;
    connected();
    if (user) open(user);
    else view.showEntrance();
  } catch (error) {
    report(OPEN_FAILED, error);
  }
}

async function readConfig(): Promise<{ apiUrl: string }> {
  try {
    return await (await fetch("/config.json")).json();
  } catch (cause) {
    throw new UnavailableError("Its server cannot be reached", 0, { cause });
  }
}

async function enter(sign: () => Promise<account.User>): Promise<void> {
  try {
    open(await sign());
    view.focusNewTask();
  } catch (error) {
    view.showEntranceMessage(reasonOf(error));
  }
}

function open(user: account.User): void {
  const close = new AbortController();
  const api = createApi(apiUrl, account.tokensOf(user), close.signal);
  desk = { api, close, status: undefined, wanted: PAGE_SIZE, listing: undefined };
  // Whoever comes back after the end of a session finds the task that was being written.
  if (draftOf !== user.id) view.forgetDraft();
  draftOf = user.id;
  view.showDesk(user);
  void attempt(LIST_FAILED, list);
}

function leave(message = ""): void {
  desk?.close.abort();
  desk = undefined;
  connected();
  view.showEntrance(message);
}

/** Changes something, and then shows what the server has, also where it refused. */
async function change(failure: string, action: (here: Desk) => Promise<void>): Promise<boolean> {
  if (reconnection === undefined) view.hideError();
  const done = await attempt(failure, action);
  if (reconnection === undefined) await attempt(LIST_FAILED, list);
  return done;
}

/** Shows the server's tasks, as many as were asked for, unless a later call does. */
async function list(here: Desk): Promise<void> {
  const listing = (here.listing = Symbol());
  const isLatest = (): boolean => here === desk && here.listing === listing;
  view.showListBusy(true);
  try {
    const { tasks, hasMore } = await read(here);
    if (isLatest()) view.showTasks(tasks, hasMore);
  } finally {
    if (isLatest()) view.showListBusy(false);
  }
}

async function read({ api, status, wanted }: Desk): Promise<{ tasks: Task[]; hasMore: boolean }> {
  const tasks: Task[] = [];
  for (;;) {
    const page = await api.list({
      ...(status && { status: [status] }),
      limit: PAGE_SIZE,
      offset: tasks.length,
    });
    tasks.push(...page);
    const hasMore = page.length === PAGE_SIZE;
    if (!hasMore || tasks.length >= wanted) return { tasks, hasMore };
  }
}

/** Does it for the user who is signed in; tells whether it was done, and the user why not. */
async function attempt(failure: string, action: (here: Desk) => Promise<void>): Promise<boolean> {
  const here = desk;
  if (!here) return false;
  try {
    await action(here);
    if (here === desk) connected();
    return here === desk;
  } catch (error) {
    if (here === desk) report(failure, error);
    return false;
  }
}

function report(failure: string, error: unknown): void {
  if (error instanceof SessionEndedError) {
    leave("Your session has ended; sign in again.");
  } else if (error instanceof UnavailableError) {
    // A retry that fails leaves the banner alone: it says what the user could not do.
    if (reconnection === undefined || failure !== LIST_FAILED) {
      view.showError(`${failure}. ${error.message}. Reconnecting…`, "retry");
    }
    window.clearTimeout(reconnection);
    const seconds = Math.max(error.retryAfterSeconds, RETRY_SECONDS);
    reconnection = window.setTimeout(actions.retry, seconds * 1000);
  } else {
    connected();
    const reloads = failure === OPEN_FAILED || failure === LIST_FAILED;
    view.showError(`${failure}. ${reasonOf(error)}.`, reloads ? "retry" : "dismiss");
  }
}

function connected(): void {
  if (reconnection === undefined) return;
  window.clearTimeout(reconnection);
  reconnection = undefined;
  view.hideError();
  view.announce("Connected again");
}

function reasonOf(error: unknown): string {
  if (error instanceof RefusedError || error instanceof UnavailableError) return error.message;
  console.error(error);
  return "Something went wrong; reload the page";
}
