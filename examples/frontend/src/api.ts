/** The client of the task server, typed from its contract: an incompatible change breaks the build. */

import createClient from "openapi-fetch";

import type { Tokens } from "./account";
import type { components, paths } from "./contract";
import { RefusedError, UnavailableError } from "./errors";

const TIMEOUT_SECONDS = 10;
const CHANGES_MAX = 500; // the task server's limit
// The statuses of a proxy whose server is down, and of an unavailable server.
const UNAVAILABLE = [429, 502, 503, 504];

type Schemas = components["schemas"];
export type Task = Schemas["TaskPublic"];
export type TaskStatus = Schemas["TaskStatus"];
export type TaskUpdate = Schemas["TaskUpdate"];
export type NewTask = Schemas["TaskCreate"];
export type Priority = Task["priority"];

export type TaskQuery = NonNullable<paths["/api/tasks"]["get"]["parameters"]["query"]>;
export type Sort = Schemas["Sort"];
/** A tag, and the number of tasks that have it. */
export type TagCount =
  paths["/api/tags"]["get"]["responses"]["200"]["content"]["application/json"][number];

export type Changes = Schemas["Changes"];

/** A part of the list. */
export interface TaskPage {
  tasks: Task[];
  /** The number of tasks on all pages. */
  total: number;
  /** The cursor of the next page, if there is one. */
  next: string | undefined;
}

/** A task, and the ETag of its version. */
export interface TaskVersion {
  task: Task;
  etag: string;
}

const TASK = "/api/tasks/{task_id}";

export type Api = ReturnType<typeof createApi>;

/** Creates a client with the tokens of a user. The signal aborts its requests. */
export function createApi(baseUrl: string, tokens: Tokens, signal: AbortSignal) {
  const client = createClient<paths>({ baseUrl, fetch: sendWithToken });

  async function sendWithToken(request: Request): Promise<Response> {
    const token = await tokens();
    const response = await send(request.clone(), token);
    // The token may have expired in transit, or its key may have been replaced.
    return response.status === 401 ? send(request, await tokens(token)) : response;
  }

  async function send(request: Request, token: string): Promise<Response> {
    request.headers.set("Authorization", `Bearer ${token}`);
    const timeout = AbortSignal.timeout(TIMEOUT_SECONDS * 1000);
    try {
      const response = await fetch(request, {
        signal: AbortSignal.any([request.signal, signal, timeout]),
      });
      // Read it here: an incomplete response would otherwise fail in the parser, as if malformed.
      await response.clone().arrayBuffer();
      return response;
    } catch (cause) {
      request.signal.throwIfAborted();
      throw new UnavailableError("Cannot reach the task server", 0, { cause });
    }
  }

  return {
    async list(query: TaskQuery, signal: AbortSignal): Promise<TaskPage> {
      const { data, headers } = await answerOf(
        client.GET("/api/tasks", { params: { query }, signal }),
      );
      const total = Number(headers.get("X-Total-Count"));
      return { tasks: data, total, next: nextCursorOf(headers) };
    },

    /** Returns what has changed since the `next` of an earlier answer; without one, all tasks. */
    async changes(since?: string): Promise<Changes> {
      const query = { limit: CHANGES_MAX, ...(since && { since }) };
      return (await answerOf(client.GET("/api/tasks/changes", { params: { query } }))).data;
    },

    /** Returns the user's tags, to suggest them. */
    async tags(): Promise<TagCount[]> {
      return (await answerOf(client.GET("/api/tags"))).data;
    },

    /** A retry with the same key does not create a second task. */
    async create(task: NewTask, key: string): Promise<Task> {
      const header = { "idempotency-key": key };
      const call = client.POST("/api/tasks", { params: { header }, body: task });
      return (await answerOf(call)).data;
    },

    async read(task: Task): Promise<TaskVersion> {
      const { data, headers } = await answerOf(client.GET(TASK, { params: { path: pathOf(task) } }));
      // Proxies that compress make the tag weak, and a weak tag need not match in If-Match.
      return { task: data, etag: headers.get("ETag")?.replace(/^W\//, "") ?? "" };
    },

    /** With an ETag, the server refuses the update (412) if the task has another version. */
    async update(task: Task, changes: TaskUpdate, etag?: string): Promise<Task> {
      const params = { path: pathOf(task), ...(etag && { header: { "If-Match": etag } }) };
      return (await answerOf(client.PATCH(TASK, { params, body: changes }))).data;
    },

    /** The browser completes the request even if the user leaves the page. */
    async remove(task: Task, etag?: string): Promise<void> {
      const params = { path: pathOf(task), ...(etag && { header: { "If-Match": etag } }) };
      await answerOf(client.DELETE(TASK, { params, keepalive: true }));
    },

    /** Renews the token if it expires soon, which is impossible while the user leaves the page. */
    async renewToken(): Promise<void> {
      await tokens();
    },

    /** Returns how many tasks were deleted. */
    async removeCompleted(): Promise<number> {
      const query = { status: ["completed" as const] };
      const { data } = await answerOf(client.DELETE("/api/tasks", { params: { query } }));
      return data.deleted;
    },
  };
}

function pathOf(task: Task) {
  return { task_id: task.id };
}

/** Reads `Link: </api/tasks?cursor=…>; rel="next"` (RFC 8288). */
function nextCursorOf(headers: Headers): string | undefined {
  const url = /<([^>]*)>; rel="next"/.exec(headers.get("Link") ?? "")?.[1];
  return new URLSearchParams(url?.split("?")[1]).get("cursor") ?? undefined;
}

interface Answer<T> {
  data?: T;
  error?: Schemas["ErrorBody"];
  response: Response;
}

async function answerOf<T>(call: Promise<Answer<T>>): Promise<{ data: T; headers: Headers }> {
  const { data, error, response } = await call;
  if (response.ok) return { data: data as T, headers: response.headers };
  // An error of a proxy may have another body than those of the server.
  const message = error?.detail ?? `The task server returned an error (${response.status})`;
  if (!UNAVAILABLE.includes(response.status)) throw new RefusedError(response.status, message);
  throw new UnavailableError(message, Number(response.headers.get("Retry-After")) || 0);
}
