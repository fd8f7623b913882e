/** Connects the page with the user's account and tasks, and says what went wrong. */

import * as account from "./account";
import { type Api, createApi, type TaskPage, type TaskQuery, type TaskVersion } from "./api";
import { RefusedError, SessionEndedError, UnavailableError } from "./errors";
import { type Actions, createView } from "./view";

const PAGE_SIZE = 20;
const LIMIT_MAX = 100; // the task server's
const NOTHING: TaskPage = { tasks: [], total: 0, next: undefined };
const RETRY_SECONDS = 3;
const OPEN_FAILED = "Could not open the page";
const LIST_FAILED = "Could not load the tasks";

/** What lasts from one sign-in to the sign-out. */
interface Desk {
  api: Api;
  close: AbortController;
  query: TaskQuery;
  /** How many tasks the user has asked to see. */
  wanted: number;
  /** What they see of them. */
  page: TaskPage;
  /** Ends the latest call of list(), which the next one does. */
  listing: AbortController;
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

  erase: async (password) => {
    try {
      await account.erase(password);
      view.forgetDraft();
      leave("Your account and your tasks are erased.");
      return "";
    } catch (error) {
      return reasonOf(error);
    }
  },

  add: (draft, key) =>
    change("Could not add the task", async (here) => {
      const task = await here.api.create(draft, key);
      view.announce(`Added: ${task.title}`);
      if (view.hides(task)) here.query = view.showAll();
    }),

  start: (task) =>
    change("Could not start the task", async ({ api }) => {
      view.showTask(await api.update(task, { status: "in_progress" }));
      view.announce(`Started: ${task.title}`);
    }),

  complete: (task) =>
    change("Could not complete the task", async ({ api }) => {
      view.showTask(await api.complete(task));
      view.announce(`Completed: ${task.title}`);
    }),

  reopen: (task) =>
    change("Could not reopen the task", async ({ api }) => {
      view.showTask(await api.update(task, { status: "pending" }));
      view.announce(`Reopened: ${task.title}`);
    }),

  read: async (task) => {
    let version: TaskVersion | undefined;
    await attempt("Could not open the task", async ({ api }) => {
      version = await api.read(task);
    });
    return version;
  },

  save: async ({ task, etag }, changes) => {
    let theirs: TaskVersion | undefined;
    const done = await change("Could not save the task", async ({ api }) => {
      try {
        const saved = await api.update(task, changes, etag);
        view.showTask(saved);
        view.announce(`Saved: ${saved.title}`);
      } catch (error) {
        if (!(error instanceof RefusedError && error.status === 412)) throw error;
        theirs = await api.read(task);
        view.showTask(theirs.task);
      }
    });
    return theirs ?? done;
  },

  // If this fails, the deletion itself reports why.
  prepareRemoval: () => void desk?.api.renewToken().catch(() => undefined),

  remove: (task) =>
    change("Could not delete the task", async ({ api }) => {
      await api.remove(task);
      view.announce(`Deleted: ${task.title}`);
    }),

  clearCompleted: () =>
    change("Could not clear the completed tasks", async ({ api }) => {
      view.announce(`Deleted: ${await api.removeCompleted()} completed`);
    }),

  filter: (query) =>
    attempt(LIST_FAILED, async (here) => {
      here.query = query;
      here.wanted = PAGE_SIZE;
      here.page = NOTHING;
      await list(here);
    }),

  showMore: () =>
    attempt(LIST_FAILED, async (here) => {
      here.wanted += PAGE_SIZE;
      await list(here, here.page);
    }),

  retry: () => (desk ? attempt(LIST_FAILED, refresh) : start()),
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
  // Whoever comes back after the end of a session finds the task that was being written.
  if (draftOf !== user.id) view.forgetDraft();
  draftOf = user.id;
  const query = view.showDesk(user);
  const listing = new AbortController();
  desk = { api, close, query, wanted: PAGE_SIZE, page: NOTHING, listing };
  void attempt(LIST_FAILED, refresh);
}

function leave(message = ""): void {
  desk?.close.abort();
  desk?.listing.abort();
  desk = undefined;
  connected();
  view.showEntrance(message);
}

/** Changes something, and then shows what the server has, also where it refused. */
async function change(failure: string, action: (here: Desk) => Promise<void>): Promise<boolean> {
  if (reconnection === undefined) view.hideError();
  const done = await attempt(failure, action);
  if (reconnection === undefined) void attempt(LIST_FAILED, refresh);
  return done;
}

async function refresh(here: Desk): Promise<void> {
  await Promise.all([list(here), listTags(here)]);
}

async function listTags(here: Desk): Promise<void> {
  const tags = await here.api.tags();
  if (here === desk) view.showTags(tags);
}

/** Shows the server's tasks, on from a page of them to as many as were asked for. */
async function list(here: Desk, page = NOTHING): Promise<void> {
  here.listing.abort();
  here.listing = new AbortController();
  const { signal } = here.listing;
  view.showListBusy(true);
  try {
    do {
      page = await readOn(here, page, signal);
    } while (page.next && page.tasks.length < here.wanted);
    signal.throwIfAborted();
    here.page = page;
    view.showTasks(page);
  } finally {
    if (!signal.aborted) view.showListBusy(false);
  }
}

async function readOn(here: Desk, page: TaskPage, signal: AbortSignal): Promise<TaskPage> {
  const limit = Math.min(here.wanted - page.tasks.length, LIMIT_MAX);
  const cursor = page.next && { cursor: page.next };
  const { tasks, total, next } = await here.api.list({ ...here.query, limit, ...cursor }, signal);
  // A task that changes meanwhile may move from a page that was read to one that was not.
  const byId = new Map([...page.tasks, ...tasks].map((task) => [task.id, task]));
  return { tasks: [...byId.values()], total, next };
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
    if (here === desk && !isAborted(error)) report(failure, error);
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

/** Tells whether we ended it ourselves. */
function isAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
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
