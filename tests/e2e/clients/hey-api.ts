import assert from "node:assert/strict";

import { file, headers, url } from "./actor";
import {
  createTask,
  deleteTask,
  deleteTasks,
  exportTasks,
  importTasks,
  listTasks,
  type TaskCreate,
} from "./generated/hey-api";
import { client } from "./generated/hey-api/client.gen";

client.setConfig({ baseUrl: url, headers });

async function main(): Promise<void> {
  const task: TaskCreate = { title: "made" };
  const created = await createTask({ body: task, throwOnError: true });
  assert.equal(created.data.status, "pending");

  const imported = await importTasks({ body: new Blob([file]) });
  assert.deepEqual(imported.data, { imported: 2 });

  const listed = await listTasks({ query: { sort: "title", status: ["pending"] } });
  assert.deepEqual(listed.data?.map(({ title }) => title), ["first", "made"]);

  const exported = await exportTasks({ parseAs: "blob", throwOnError: true });
  assert.equal((await exported.data.text()).trim().split("\n").length, 3);

  const deleted = await deleteTask({ path: { task_id: created.data.id } });
  assert.equal(deleted.response?.status, 204);
  const cleared = await deleteTasks({ query: { status: ["pending", "completed"] } });
  assert.deepEqual(cleared.data, { deleted: 2 });
}

void main();
