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
} from "./generated/orval";

// The client requests paths without an origin, like a page of the same origin.
const { fetch } = globalThis;
globalThis.fetch = (path, options) => fetch(`${url}${path}`, options);

async function main(): Promise<void> {
  const task: TaskCreate = { title: "made" };
  const created = await createTask(task, { headers });
  assert(created.status === 201);
  assert.equal(created.data.status, "pending");

  const imported = await importTasks(new Blob([file]), { headers });
  assert.deepEqual(imported.data, { imported: 2 });

  const listed = await listTasks({ sort: "title", status: ["pending"] }, { headers });
  assert(listed.status === 200);
  assert.deepEqual(listed.data.map(({ title }) => title), ["first", "made"]);

  const exported = await exportTasks({ headers });
  assert(exported.status === 200);
  assert.equal((await exported.data.text()).trim().split("\n").length, 3);

  const deleted = await deleteTask(created.data.id, { headers });
  assert.equal(deleted.status, 204);
  const cleared = await deleteTasks({ status: ["pending", "completed"] }, { headers });
  assert.deepEqual(cleared.data, { deleted: 2 });
}

void main();
