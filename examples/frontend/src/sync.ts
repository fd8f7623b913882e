/** Keeps the page current: asks the server every few seconds what has changed. See docs/sync.md. */

import type { Api, Task } from "./api";
import { RefusedError, UnavailableError } from "./errors";

const POLL_SECONDS = 3;
const BACKOFF_MAX_SECONDS = 60;

/** What has changed since the last successful request. */
export interface News {
  tasks: Task[];
  deleted: number[];
  /** The first response lists all tasks, so it does not show which of them are new to the page. */
  isFirst: boolean;
}

export interface Listener {
  /** Called after each successful request. */
  online(news: News): Promise<void>;
  /** Called after each failed request. */
  failed(error: unknown): void;
}

export type Sync = ReturnType<typeof startSync>;

/** Polls while the page is visible, with one request at a time, until the signal aborts. */
export function startSync(api: Api, signal: AbortSignal, listener: Listener) {
  /** The last known state of each task, as JSON, to ignore repeated changes and the page's own. */
  const seen = new Map<number, string>();
  let since: string | undefined;
  let news = nothing(true);
  let timer: number | undefined;
  let asking = false;
  let failures = 0;
  let waitSeconds = POLL_SECONDS;
  let notBefore = 0;

  function nothing(isFirst: boolean): News {
    return { tasks: [], deleted: [], isFirst };
  }

  /** Remembers the state of a task, and returns whether it has changed. */
  function isNew(id: number, state: Task | "deleted"): boolean {
    const text = JSON.stringify(state);
    const isOther = seen.get(id) !== text;
    seen.set(id, text);
    return isOther;
  }

  async function ask(): Promise<void> {
    if (asking || document.hidden || signal.aborted) return;
    asking = true;
    try {
      await collect();
      failures = 0;
      waitSeconds = POLL_SECONDS;
      const collected = news;
      news = nothing(false);
      await listener.online(collected);
    } catch (error) {
      if (error instanceof RefusedError) startOver();
      if (error instanceof UnavailableError) {
        failures += 1;
        backOff(error);
      }
      listener.failed(error);
    } finally {
      asking = false;
      schedule(waitSeconds);
    }
  }

  async function collect(): Promise<void> {
    let more: boolean;
    do {
      const page = await api.changes(since);
      // The first time, all tasks are listed; there is no need to remember them.
      news.tasks.push(...page.tasks.filter((task) => news.isFirst || isNew(task.id, task)));
      news.deleted.push(...page.deleted.filter((id) => isNew(id, "deleted")));
      ({ next: since, more } = page);
    } while (more);
  }

  /** Forgets the sync token, which is too old (410) or from an older version of the server. */
  function startOver(): void {
    since = undefined;
    seen.clear();
    news = nothing(true);
  }

  /** Waits longer after each failure, and at least for Retry-After. */
  function backOff(error: UnavailableError): void {
    failures = Math.max(failures, 1);
    const seconds = Math.max(error.retryAfterSeconds, POLL_SECONDS * 2 ** (failures - 1));
    waitSeconds = Math.min(seconds, BACKOFF_MAX_SECONDS);
    notBefore = Date.now() + Math.min(error.retryAfterSeconds, BACKOFF_MAX_SECONDS) * 1000;
    schedule(waitSeconds);
  }

  function schedule(seconds: number): void {
    window.clearTimeout(timer);
    if (!document.hidden && !signal.aborted) timer = window.setTimeout(ask, seconds * 1000);
  }

  /** Polls immediately, or as soon as Retry-After allows. */
  function wake(): void {
    schedule(Math.max(0, notBefore - Date.now()) / 1000);
  }

  for (const type of ["focus", "online", "offline"]) {
    window.addEventListener(type, wake, { signal });
  }
  document.addEventListener("visibilitychange", wake, { signal });
  wake();

  return {
    wake,
    backOff,
    isOffline: () => failures > 0,

    /** Remembers what another request has returned, so that it is not reported as a change. */
    know(tasks: Task[]): void {
      for (const task of tasks) isNew(task.id, task);
    },

    knowDeleted(id: number): void {
      isNew(id, "deleted");
    },
  };
}
