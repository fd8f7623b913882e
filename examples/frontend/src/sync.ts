/** Keeps the page current: asks the server every few seconds what has changed. See docs/sync.md. */

import type { Api, Task } from "./api";
import { RefusedError, UnavailableError } from "./errors";

const POLL_SECONDS = 3;
const BACKOFF_MAX_SECONDS = 60;

/** What has changed since the last time. */
export interface News {
  tasks: Task[];
  deleted: number[];
  /** The first time, it cannot be told which changes the page has not shown yet. */
  isFirst: boolean;
}

export interface Listener {
  /** Called each time that the server has answered. */
  online(news: News): Promise<void>;
  /** Called each time that it has not. */
  failed(error: unknown): void;
}

export type Sync = ReturnType<typeof startSync>;

/** Asks while the page is visible, until the signal ends it; one request at a time. */
export function startSync(api: Api, signal: AbortSignal, listener: Listener) {
  /** The tasks that the page knows, as text: a change may be listed again, or be our own. */
  const known = new Map<number, string>();
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

  /** Returns whether the page did not know the task like this. */
  function learn(task: Task): boolean {
    const text = JSON.stringify(task);
    const isNew = known.get(task.id) !== text;
    known.set(task.id, text);
    return isNew;
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
      news.tasks.push(...page.tasks.filter(learn));
      news.deleted.push(...page.deleted.filter((id) => known.delete(id)));
      ({ next: since, more } = page);
    } while (more);
  }

  /** Forgets the token: it is too old (410), or of an older version of the server. */
  function startOver(): void {
    since = undefined;
    known.clear();
    news = nothing(true);
  }

  /** Waits longer after each failure, and at least as long as the server asks for. */
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

  /** Asks at once, or when the server allows it. */
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

    /** Remembers what another request has returned, so that it is no news. */
    know(tasks: Task[]): void {
      tasks.forEach(learn);
    },

    knowDeleted(id: number): void {
      known.delete(id);
    },
  };
}
