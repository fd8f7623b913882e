/** The changes that the server has not confirmed yet. They are stored per user and sent in order. */

import type { User } from "./account";
import type { Api, NewTask, Task, TaskUpdate, TaskVersion } from "./api";
import { RefusedError, UnavailableError } from "./errors";

/** A change by the user to the version `base`. A new task has a negative id until it is sent. */
export type Change = { base: Task } & (
  | { kind: "add"; draft: NewTask; key: string }
  | { kind: "edit"; changes: TaskUpdate }
  | { kind: "remove" }
);

/** `at` is the entry's key in localStorage. The keys sort in the order of the changes. */
type Entry = Change & { at: string };

export interface Dispute {
  theirs: TaskVersion;
  changes: TaskUpdate;
}

export interface Reports {
  isOffline(): boolean;
  unavailable(error: UnavailableError): void;
  /** `task` is undefined if the change deleted it. */
  sent(change: Change, task: Task | undefined): void;
  refused(change: Change, reason: string): void;
  disputed(task: Task): void;
}

export type Outbox = ReturnType<typeof createOutbox>;

export function createOutbox(user: User, api: Api, reports: Reports) {
  const prefix = `outbox/${user.id}/`;
  /** Changes that are being sent for the first time. Most succeed, so they are not shown as unsent. */
  const sending = new Set<string>();
  /** The server's versions of tasks in conflict, by the `at` of the change. */
  const disputes = new Map<string, TaskVersion>();
  /** The server's ids of tasks created offline, for editors that still use the negative id. */
  const realIds = new Map<number, number>();

  // Each change has its own key, so tabs that write at the same time do not overwrite each other.
  function stored(): Entry[] {
    const names = Object.keys(localStorage).filter((name) => name.startsWith(prefix));
    return names.sort().map((at) => ({ ...JSON.parse(localStorage.getItem(at) ?? ""), at }));
  }

  function waiting(): Entry[] {
    return stored().filter(({ at }) => !sending.has(at));
  }

  function add(change: Change): Entry {
    const last = stored().at(-1)?.at.slice(prefix.length) ?? "";
    const place = String((Number.parseInt(last, 10) || 0) + 1).padStart(9, "0");
    const entry = { ...change, at: `${prefix}${place}.${crypto.randomUUID()}` };
    store(entry);
    return entry;
  }

  function store(entry: Entry): void {
    localStorage.setItem(entry.at, JSON.stringify(entry));
  }

  function drop({ at }: Entry): void {
    localStorage.removeItem(at);
    disputes.delete(at);
  }

  /**
   * Sends the change now and returns true, or keeps it for later and returns false.
   * With an ETag, the server refuses it (412) if the task has changed; with an empty one, it is
   * compared with the server's version first, like every change that is sent later.
   */
  async function put(change: Change, etag?: string): Promise<boolean> {
    const id = realIds.get(change.base.id) ?? change.base.id;
    const others = waiting().some(({ at }) => !disputes.has(at));
    // Stored before it is sent: the user may leave the page before the server has answered.
    const entry = add({ ...change, base: { ...change.base, id } });
    if (others || etag === "" || reports.isOffline()) return false;
    sending.add(entry.at);
    try {
      done(entry, await send(entry, etag));
      return true;
    } catch (error) {
      if (!(error instanceof UnavailableError)) {
        drop(entry);
        throw error;
      }
      reports.unavailable(error);
      return false;
    } finally {
      sending.delete(entry.at);
    }
  }

  async function send(change: Change, etag?: string): Promise<Task | undefined> {
    if (change.kind === "add") return api.create(change.draft, change.key);
    if (change.kind === "edit") return api.update(change.base, change.changes, etag);
    await api.remove(change.base, etag).catch((error: unknown) => {
      // The task is already deleted, as the user wants.
      if (statusOf(error) !== 404) throw error;
    });
    return undefined;
  }

  function done(entry: Entry, task: Task | undefined): void {
    if (task && entry.kind === "add") realIds.set(entry.base.id, task.id);
    for (const later of stored()) {
      // Later changes of the task now apply to this version.
      const concerned = later.at > entry.at && later.base.id === entry.base.id;
      if (task && concerned) store({ ...later, base: task });
    }
    drop(entry);
    reports.sent(entry, task);
  }

  /** Sends all waiting changes. Throws if the server is unreachable, and keeps the rest. */
  async function flush(): Promise<void> {
    // One tab at a time: otherwise, each tab would treat the other's changes as conflicts.
    await navigator.locks.request(prefix, async () => {
      for (;;) {
        const entry = waiting().find(({ at }) => !disputes.has(at));
        if (!entry) return;
        try {
          await deliver(entry);
        } catch (error) {
          if (!(error instanceof RefusedError)) throw error;
          drop(entry);
          reports.refused(entry, error.message);
        }
      }
    });
  }

  /** Sends a waiting change, unless the task has changed in the meantime. */
  async function deliver(entry: Entry): Promise<void> {
    if (entry.kind === "add") return done(entry, await send(entry));
    if (entry.base.id < 0) throw new RefusedError(404, "It was not added");
    try {
      const { task, etag } = await api.read(entry.base);
      if (entry.kind === "edit" && has(task, entry.changes)) {
        // An earlier attempt succeeded, but its response was lost.
        drop(entry);
        reports.sent(entry, task);
      } else if (has(task, contentOf(entry.base))) {
        done(entry, await send(entry, etag));
      } else {
        dispute(entry, { task, etag });
      }
    } catch (error) {
      const status = statusOf(error);
      if (status === 412) dispute(entry, await api.read(entry.base));
      else if (status === 404 && entry.kind === "remove") done(entry, undefined);
      else throw error;
    }
  }

  /** Lets the user decide about all their changes to the task at once. */
  function dispute(entry: Entry, theirs: TaskVersion): void {
    const own = waiting().filter(({ at, base }) => at >= entry.at && base.id === entry.base.id);
    const removal = own.find(({ kind }) => kind === "remove");
    if (removal) {
      own.forEach(drop);
      const reason = "It was changed on another device. Delete it again if you no longer need it";
      reports.refused(removal, reason);
      return;
    }
    const changes = own.map((change) => (change.kind === "edit" ? change.changes : {}));
    own.slice(1).forEach(drop);
    store({ ...entry, kind: "edit", changes: Object.assign({}, ...changes) });
    disputes.set(entry.at, theirs);
    reports.disputed(theirs.task);
  }

  return {
    put,
    flush,

    /** Applies the changes to the listed tasks, and puts changed tasks that are not listed first. */
    foresee(listed: Task[]): Task[] {
      const tasks = new Map(listed.map((task) => [task.id, task]));
      const above = new Map<number, Task>();
      for (const change of waiting()) {
        const { id } = change.base;
        const place = tasks.has(id) ? tasks : above;
        const theirs = disputes.get(change.at)?.task;
        if (change.kind === "remove") place.delete(id);
        else if (theirs) place.set(id, theirs);
        else place.set(id, { ...(place.get(id) ?? change.base), ...changesOf(change) });
      }
      return [...[...above.values()].reverse(), ...tasks.values()];
    },

    /** Returns the ids of the tasks with unsent changes that are not in conflict. */
    unsent(): Set<number> {
      return new Set(waiting().flatMap(({ at, base }) => (disputes.has(at) ? [] : [base.id])));
    },

    disputes(): Dispute[] {
      return waiting().flatMap((entry) => {
        const theirs = disputes.get(entry.at);
        return theirs ? [{ theirs, changes: changesOf(entry) }] : [];
      });
    },

    /** Drops the changes of a task once the user has resolved its conflict. */
    settle(id: number): void {
      waiting().forEach((entry) => {
        if (entry.base.id === id && disputes.has(entry.at)) drop(entry);
      });
    },

    count: () => waiting().length,

    clear: () => stored().forEach(drop),
  };
}

/** Returns the change for a new task, which is shown until the server has created it. */
export function newTask(draft: NewTask, user: User): Change {
  const now = new Date().toISOString();
  const [random = 0] = crypto.getRandomValues(new Uint32Array(1));
  const base: Task = {
    id: -1 - random,
    description: null,
    status: "pending",
    due_date: null,
    priority: "medium",
    tags: [],
    user_id: user.id,
    created_at: now,
    updated_at: now,
    ...draft,
  };
  return { kind: "add", base, draft, key: crypto.randomUUID() };
}

function statusOf(error: unknown): number | undefined {
  return error instanceof RefusedError ? error.status : undefined;
}

function changesOf(change: Change): TaskUpdate {
  return change.kind === "edit" ? change.changes : {};
}

function contentOf({ title, description, status, due_date, priority, tags }: Task): TaskUpdate {
  return { title, description, status, due_date, priority, tags };
}

/** Compares values, not `updated_at`: a change to the same values is not a change. */
function has(task: Task, values: TaskUpdate): boolean {
  const now: TaskUpdate = contentOf(task);
  return JSON.stringify({ ...now, ...values }) === JSON.stringify(now);
}
