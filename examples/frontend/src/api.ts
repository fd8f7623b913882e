/** The task server, typed from its contract: a change there that concerns this page breaks its build. */

import createClient from "openapi-fetch";

import type { Tokens } from "./account";
import type { components, paths } from "./contract";
import { RefusedError, UnavailableError } from "./errors";

const TIMEOUT_SECONDS = 10;
// What a proxy answers for a server that is down, and a server for itself.
const UNAVAILABLE = [429, 502, 503, 504];

type Schemas = components["schemas"];
export type Task = Schemas["TaskPublic"];
export type TaskStatus = Schemas["TaskStatus"];
export type TaskUpdate = Schemas["TaskUpdate"];

export type TaskQuery = NonNullable<paths["/api/tasks"]["get"]["parameters"]["query"]>;

export type Api = ReturnType<typeof createApi>;

/** Gives the tasks of the user whose tokens these are, until the signal ends it. */
export function createApi(baseUrl: string, tokens: Tokens, signal: AbortSignal) {
  const client = createClient<paths>({ baseUrl, fetch: sendWithToken });

  async function sendWithToken(request: Request): Promise<Response> {
    const token = await tokens();
    const response = await send(request.clone(), token);
    // It may have expired on the way, or its key may have been replaced.
    return response.status === 401 ? send(request, await tokens(token)) : response;
  }

  async function send(request: Request, token: string): Promise<Response> {
    request.headers.set("Authorization", `Bearer ${token}`);
    const timeout = AbortSignal.timeout(TIMEOUT_SECONDS * 1000);
    try {
      return await fetch(request, { signal: AbortSignal.any([signal, timeout]) });
    } catch (cause) {
      throw new UnavailableError("The task server cannot be reached", 0, { cause });
    }
  }

  return {
    list: (query: TaskQuery) => answerOf(client.GET("/api/tasks", { params: { query } })),

    create: (title: string) => answerOf(client.POST("/api/tasks", { body: { title } })),

    update: (task: Task, changes: TaskUpdate) =>
      answerOf(client.PATCH("/api/tasks/{task_id}", { ...pathOf(task), body: changes })),

    complete: (task: Task) =>
      answerOf(client.PATCH("/api/tasks/{task_id}/complete", pathOf(task))),

    remove: (task: Task) => answerOf(client.DELETE("/api/tasks/{task_id}", pathOf(task))),
  };
}

function pathOf(task: Task) {
  return { params: { path: { task_id: task.id } } };
}

interface Answer<T> {
  data?: T;
  error?: Schemas["ErrorBody"];
  response: Response;
}

async function answerOf<T>(call: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await call;
  if (response.ok) return data as T;
  // A proxy's error need not have the server's body.
  const message = error?.detail ?? `The task server answered ${response.status}`;
  if (!UNAVAILABLE.includes(response.status)) throw new RefusedError(response.status, message);
  throw new UnavailableError(message, Number(response.headers.get("Retry-After")) || 0);
}
