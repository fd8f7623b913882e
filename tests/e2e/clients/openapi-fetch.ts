import assert from "node:assert/strict";
import createClient from "openapi-fetch";

import { file, headers, url } from "./actor";
import type { components, paths } from "./generated/openapi-typescript";

const client = createClient<paths>({ baseUrl: url, headers });

async function main(): Promise<void> {
  const task: components["schemas"]["TaskCreate"] = { title: "made" };
  const created = await client.POST("/api/tasks", { body: task });
  assert.equal(created.data?.status, "pending");

  const imported = await client.POST("/api/tasks/import", {
    body: file,
    bodySerializer: (body) => body,
    headers: { "Content-Type": "application/jsonl" },
  });
  assert.deepEqual(imported.data, { imported: 2 });

  const query = { sort: "title" as const, status: ["pending" as const] };
  const listed = await client.GET("/api/tasks", { params: { query } });
  assert.deepEqual(listed.data?.map(({ title }) => title), ["first", "made"]);

  const exported = await client.GET("/api/tasks/export", { parseAs: "text" });
  assert.equal(exported.data?.trim().split("\n").length, 3);

  const path = { task_id: created.data.id };
  const deleted = await client.DELETE("/api/tasks/{task_id}", { params: { path } });
  assert.equal(deleted.response.status, 204);
  const cleared = await client.DELETE("/api/tasks", {
    params: { query: { status: ["pending", "completed"] } },
  });
  assert.deepEqual(cleared.data, { deleted: 2 });
}

void main();
