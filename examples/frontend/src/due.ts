/** Shows a due date, and lets the user choose one with the browser's own pickers. */

import { dayOf, describe, urgencyOf } from "./dates";

/** Shows the date in words. The style sheet makes it red if it has passed and the task is open. */
export function showDue(element: HTMLElement, due: string | null, open: boolean): void {
  const now = new Date();
  const urgency = due && open ? urgencyOf(due, now) : "later";
  const words = due ? describe(due, now) : "";
  element.dataset.urgency = urgency;
  element.textContent = urgency === "overdue" ? `Overdue: ${words}` : words;
}

export interface DueField {
  value: string | null;
}

/** Reads and fills a date input and the time input beside it, which may stay empty. */
export function createDueField(date: HTMLInputElement, time: HTMLInputElement): DueField {
  time.addEventListener("input", () => {
    if (time.value && !date.value) date.value = dayOf(new Date());
  });
  date.addEventListener("input", () => {
    if (!date.value) time.value = "";
  });
  return {
    get value() {
      if (!date.value) return null;
      return time.value ? `${date.value}T${time.value}` : date.value;
    },
    set value(due) {
      [date.value = "", time.value = ""] = due?.split("T") ?? [];
    },
  };
}
