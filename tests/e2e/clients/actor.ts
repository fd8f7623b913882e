/** The user, and the steps that every client performs in the same way. */

export const url = process.env.TASKS_URL!;
export const headers = { Authorization: `Bearer ${process.env.TASKS_TOKEN!}` };
export const file = '{"title": "first"}\n{"title": "second", "status": "completed"}\n';
