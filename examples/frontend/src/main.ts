/** Connects the page with the user's account and tasks, and reports errors. */

import * as account from "./account";
import {
  type Api,
  createApi,
  type Task,
  type TaskPage,
  type TaskQuery,
  type TaskVersion,
} from "./api";
import { RefusedError, SessionEndedError, UnavailableError } from "./errors";
import { type Change, createOutbox, newTask, type Outbox } from "./outbox";
import { type News, startSync, type Sync } from "./sync";
import { type Actions, createView } from "./view";

const PAGE_SIZE = 20;
const LIMIT_MAX = 100; // the task server's limit
const NOTHING: TaskPage = { tasks: [], total: 0, next: undefined };
const RETRY_SECONDS = 3;
const OPEN_FAILED = "Could not load the page";
const LIST_FAILED = "Could not load your tasks";
const VERBS = { add: "add", edit: "update", remove: "delete" };

/** The state between sign-in and sign-out. */
interface Desk {
  user: account.User;
  api: Api;
  outbox: Outbox;
  sync: Sync;
  close: AbortController;
  query: TaskQuery;
  /** How many tasks the user has asked to see. */
  wanted: number;
  /** The listed tasks, as the server returned them. */
  page: TaskPage;
  /** Whether the query may return different tasks now. */
  stale: boolean;
  /** Aborts the latest call of list(), for example when the next one starts. */
  listing: AbortController;
}

let apiUrl: string;
let desk: Desk | undefined;
let draftOf: string | undefined;
let reconnecting = false;
let restart: number | undefined;
let problems: string[] = [];

const actions: Actions = {
  signIn: (email, password) => enter(() => account.signIn(email, password)),

  signUp: (name, email, password) => enter(() => account.signUp(name, email, password)),

  signOut: () =>
    attempt("Could not sign out", async ({ outbox }) => {
      const unsent = outbox.count();
      const question =
        unsent === 1
          ? "You have 1 change that is not yet sent. Sign out and discard it?"
          : `You have ${unsent} changes that are not yet sent. Sign out and discard them?`;
      if (unsent > 0 && !window.confirm(question)) return;
      await account.signOut();
      outbox.clear();
      view.forgetDraft();
      leave();
    }),

  erase: async (password) => {
    try {
      await account.erase(password);
      desk?.outbox.clear();
      view.forgetDraft();
      leave("Your account and all your tasks were deleted.");
      return "";
    } catch (error) {
      return reasonOf(error);
    }
  },

  add: (draft) =>
    change("Could not add the task", async (here) => {
      const added = newTask(draft, here.user);
      await perform(here, added, "Added");
      if (!view.hides(added.base)) return;
      here.query = view.showAll();
      here.stale = true;
    }),

  start: (task) => setStatus("Could not start the task", "Started", task, "in_progress"),

  complete: (task) => setStatus("Could not complete the task", "Completed", task, "completed"),

  reopen: (task) => setStatus("Could not reopen the task", "Reopened", task, "pending"),

  read: async (task) => {
    let version: TaskVersion | undefined;
    await attempt("Could not open the task", async ({ api, outbox, sync }) => {
      // The server does not have unsent changes yet.
      const isOurs = outbox.unsent().has(task.id);
      if (!isOurs && !sync.isOffline()) version = await readIfReachable(api, task);
      version ??= { task, etag: "" };
    });
    return version;
  },

  save: async ({ task, etag }, changes) => {
    let theirs: TaskVersion | undefined;
    const done = await change("Could not save the task", async (here) => {
      try {
        await perform(here, { kind: "edit", base: task, changes }, "Saved", etag);
      } catch (error) {
        if (!(error instanceof RefusedError && error.status === 412)) throw error;
        theirs = await here.api.read(task);
        view.showTask(theirs.task);
      }
    });
    return theirs ?? done;
  },

  closed: () => {
    if (desk) show(desk);
  },

  settle: (task) => desk?.outbox.settle(task.id),

  // If this fails, the deletion itself reports why.
  prepareRemoval: () => void desk?.api.renewToken().catch(() => undefined),

  remove: (task) =>
    change("Could not delete the task", (here) =>
      perform(here, { kind: "remove", base: task }, "Deleted"),
    ),

  clearCompleted: () =>
    change("Could not clear the completed tasks", async ({ api }) => {
      const deleted = await api.removeCompleted();
      view.announce(`Deleted ${deleted} completed ${deleted === 1 ? "task" : "tasks"}`);
    }),

  filter: (query) =>
    attempt(LIST_FAILED, async (here) => {
      here.query = query;
      here.wanted = PAGE_SIZE;
      here.stale = true;
      await list(here);
    }),

  showMore: () =>
    attempt(LIST_FAILED, async (here) => {
      here.wanted += PAGE_SIZE;
      await list(here, here.stale ? NOTHING : here.page);
    }),

  retry: () => (desk ? attempt(LIST_FAILED, refresh) : start()),
};

const view = createView(actions);
void start();

/** Shows the tasks of the signed-in user, or the sign-in form. */
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
    throw new UnavailableError("Cannot reach the server", 0, { cause });
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
  // A user who signs in again after the session ended gets their unfinished task back.
  if (draftOf !== user.id) view.forgetDraft();
  draftOf = user.id;
  const query = view.showDesk(user);
  const outbox = createOutbox(user, api, {
    isOffline: () => here.sync.isOffline(),
    unavailable: (error) => here.sync.backOff(error),
    sent: (change, task) => showSent(here, change, task),
    refused: (change, reason) => {
      if (change.kind === "remove") view.restore(change.base);
      complain(`Could not ${VERBS[change.kind]} “${change.base.title}”. ${reason}.`);
    },
    disputed: (task) => {
      complain(`“${task.title}” was changed on another device. Choose which version to keep.`);
      show(here);
    },
  });
  const sync = startSync(api, close.signal, {
    online: (news) => catchUp(here, news),
    failed: (error) => {
      if (here !== desk) return;
      if (error instanceof SessionEndedError) report(LIST_FAILED, error);
      else if (!(error instanceof UnavailableError)) console.error(error);
      else showConnection(here);
    },
  });
  const here: Desk = {
    user,
    api,
    outbox,
    sync,
    close,
    query,
    wanted: PAGE_SIZE,
    page: NOTHING,
    stale: true,
    listing: new AbortController(),
  };
  desk = here;
  if (outbox.count() > 0) show(here);
  else showConnection(here);
  void attempt(LIST_FAILED, refresh);
}

function leave(message = ""): void {
  desk?.close.abort();
  desk?.listing.abort();
  desk = undefined;
  connected();
  view.showEntrance(message);
}

/** Performs a change and then reloads the list, even if the server refused the change. */
async function change(failure: string, action: (here: Desk) => Promise<void>): Promise<boolean> {
  if (!reconnecting) view.hideError();
  const done = await attempt(failure, action);
  if (!reconnecting && !desk?.sync.isOffline()) void attempt(LIST_FAILED, refresh);
  return done;
}

function setStatus(failure: string, words: string, task: Task, status: Task["status"]) {
  return change(failure, (here) =>
    perform(here, { kind: "edit", base: task, changes: { status } }, words),
  );
}

/** Sends the change, or shows that it is not yet sent. */
async function perform(here: Desk, change: Change, words: string, etag?: string): Promise<void> {
  const sent = await here.outbox.put(change, etag);
  if (here !== desk) return;
  const title = change.kind === "edit" ? change.changes.title : undefined;
  view.announce(`${words}: ${title ?? change.base.title}${sent ? "" : ". Not yet sent."}`);
  if (sent) return;
  show(here);
  here.sync.wake();
}

async function readIfReachable(api: Api, task: Task): Promise<TaskVersion | undefined> {
  try {
    return await api.read(task);
  } catch (error) {
    if (error instanceof UnavailableError) return undefined;
    throw error;
  }
}

/** Shows the server's result of the change immediately, before the list is reloaded. */
function showSent(here: Desk, { kind, base }: Change, task: Task | undefined): void {
  if (here !== desk) return;
  if (task) here.sync.know([task]);
  else here.sync.knowDeleted(base.id);
  const before = here.page.tasks;
  const isShown = kind === "add" && task && view.renameTask(base.id, task);
  const tasks = isShown
    ? [task, ...before]
    : before.flatMap((old) => (old.id === base.id ? (task ?? []) : old));
  here.page = { ...here.page, tasks, total: here.page.total + tasks.length - before.length };
  show(here);
}

/** Shows the server's tasks with the unsent changes applied. */
function show(here: Desk): void {
  const tasks = here.outbox.foresee(here.page.tasks);
  const total = here.page.total + tasks.length - here.page.tasks.length;
  view.showTasks({ ...here.page, tasks, total }, here.outbox.unsent());
  for (const { theirs, changes } of here.outbox.disputes()) view.showDispute(theirs, changes);
  showConnection(here);
}

function showConnection({ outbox, sync }: Desk): void {
  view.showConnection(sync.isOffline(), outbox.unsent().size > 0 ? changesIn(outbox.count()) : "");
}

function changesIn(count: number): string {
  return count === 1 ? "1 change" : `${count} changes`;
}

/**
 * Sends the unsent changes, and shows what has changed elsewhere.
 * The list is loaded again instead of being computed here, because only the server knows how to
 * search, sort and filter; the page itself needs no copy of all tasks.
 */
async function catchUp(here: Desk, { tasks, deleted, isFirst }: News): Promise<void> {
  if (here !== desk) return;
  const unsent = here.outbox.count();
  here.stale ||= isFirst || tasks.length + deleted.length > 0;
  problems = [];
  tasks.forEach(view.tellChanged);
  deleted.forEach(view.tellDeleted);
  await here.outbox.flush();
  if (here !== desk) return;
  showConnection(here);
  const sent = unsent - here.outbox.count();
  if (sent > 0) view.announce(`Sent ${changesIn(sent)}`);
  if (here.stale || sent > 0) await attempt(LIST_FAILED, refresh);
}

/** Reports the changes that the server refused, in one message. */
function complain(problem: string): void {
  problems.push(problem);
  reconnecting = false;
  view.showError(problems.join(" "), "dismiss");
}

async function refresh(here: Desk): Promise<void> {
  await Promise.all([list(here), listTags(here)]);
}

async function listTags(here: Desk): Promise<void> {
  const tags = await here.api.tags();
  if (here === desk) view.showTags(tags);
}

/** Loads and shows as many tasks as the user wants to see, continuing after the given page. */
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
    here.stale = false;
    here.sync.know(page.tasks);
    show(here);
    connected();
    if (here.sync.isOffline()) here.sync.wake();
  } finally {
    if (!signal.aborted) view.showListBusy(false);
  }
}

async function readOn(here: Desk, page: TaskPage, signal: AbortSignal): Promise<TaskPage> {
  const limit = Math.min(here.wanted - page.tasks.length, LIMIT_MAX);
  const cursor = page.next && { cursor: page.next };
  const { tasks, total, next } = await here.api.list({ ...here.query, limit, ...cursor }, signal);
  // A task that changes meanwhile may move to a later page and appear twice.
  const byId = new Map([...page.tasks, ...tasks].map((task) => [task.id, task]));
  return { tasks: [...byId.values()], total, next };
}

/** Runs the action for the signed-in user. Returns whether it succeeded, and reports errors. */
async function attempt(failure: string, action: (here: Desk) => Promise<void>): Promise<boolean> {
  const here = desk;
  if (!here) return false;
  try {
    await action(here);
    return here === desk;
  } catch (error) {
    if (here === desk && !isAborted(error)) report(failure, error);
    return false;
  }
}

function report(failure: string, error: unknown): void {
  if (error instanceof SessionEndedError) {
    leave("Your session has ended. Sign in again.");
  } else if (error instanceof UnavailableError) {
    // If a retry fails, keep the banner: it says which action of the user failed.
    if (!reconnecting || failure !== LIST_FAILED) {
      view.showError(`${failure}. ${error.message}. Reconnecting…`, "retry");
    }
    reconnecting = true;
    if (desk) {
      desk.stale = true;
      desk.sync.backOff(error);
      showConnection(desk);
    } else {
      window.clearTimeout(restart);
      const seconds = Math.max(error.retryAfterSeconds, RETRY_SECONDS);
      restart = window.setTimeout(start, seconds * 1000);
    }
  } else {
    connected();
    const reloads = failure === OPEN_FAILED || failure === LIST_FAILED;
    view.showError(`${failure}. ${reasonOf(error)}.`, reloads ? "retry" : "dismiss");
  }
}

/** Returns whether the page itself aborted the request. */
function isAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

function connected(): void {
  if (!reconnecting) return;
  reconnecting = false;
  view.hideError();
  view.announce("Back online");
}

function reasonOf(error: unknown): string {
  if (error instanceof RefusedError || error instanceof UnavailableError) return error.message;
  console.error(error);
  return "Something went wrong; reload the page";
}
