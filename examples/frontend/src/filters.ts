/** The search, the order and the filters, and the query that results from them. */

import type { Priority, Sort, TagCount, Task, TaskQuery, TaskStatus } from "./api";
import { addDays, dayOf } from "./dates";
import { find } from "./dom";

const SEARCH_AFTER_MILLISECONDS = 250; // after the last keystroke

type Due = "today" | "overdue" | "none";

interface Choice {
  q: string;
  sort: Sort;
  status: TaskStatus | "";
  due: Due | "";
  priority: Priority | "";
  tag: string;
}

const EMPTY: Record<TaskStatus | "", string> = {
  "": "No tasks yet. Add your first one above.",
  pending: "No pending tasks.",
  in_progress: "No tasks in progress.",
  completed: "No completed tasks yet.",
};

const OPEN: TaskStatus[] = ["pending", "in_progress"];

export function createFilters(changed: (query: TaskQuery) => unknown) {
  const form = find(document, "#filter", HTMLFormElement);
  const search = find(form, "#search", HTMLInputElement);
  const unfold = find(form, "#unfold", HTMLButtonElement);
  const tagFilter = find(form, "#tag-filter", HTMLFieldSetElement);
  let typing: number | undefined;
  let tags: TagCount[] = [];

  function chosen(): Choice {
    const choice = Object.fromEntries(new FormData(form)) as unknown as Choice;
    return { ...choice, q: search.value.trim() };
  }

  function filtersOf({ status, due, priority, tag }: Choice): string[] {
    return [status, due, priority, tag].filter(Boolean);
  }

  function query(): TaskQuery {
    const { q, sort, status, due, priority, tag } = chosen();
    return {
      ...(q && { q }),
      ...(status && { status: [status] }),
      ...(due && dueQuery(due, status)),
      ...(priority && { priority: [priority] }),
      ...(tag && { tag: [tag] }),
      sort,
    };
  }

  function change(): void {
    showFilterCount();
    changed(query());
  }

  function showFilterCount(): void {
    const count = filtersOf(chosen()).length;
    unfold.textContent = count ? `Filters (${count})` : "Filters";
    unfold.dataset.active = String(count > 0);
  }

  function choose(name: string, value: string): void {
    find(form, `[name=${name}][value="${CSS.escape(value)}"]`, HTMLInputElement).checked = true;
  }

  function showTags(next: TagCount[]): void {
    tags = next;
    const { tag: current } = chosen();
    // Keep the chosen tag, even if no task has it anymore.
    const gone = current && !next.some(({ tag }) => tag === current);
    const shown = gone ? [...next, { tag: current, tasks: 0 }] : next;
    const [any] = tagFilter.querySelectorAll("label");
    if (!any) return;
    const focused = tagFilter.contains(document.activeElement);
    tagFilter.querySelectorAll("label ~ label").forEach((label) => label.remove());
    for (const { tag, tasks } of shown) {
      const label = any.cloneNode() as HTMLLabelElement;
      const radio = document.createElement("input");
      const count = document.createElement("span");
      Object.assign(radio, { type: "radio", name: "tag", value: tag, checked: tag === current });
      count.className = "count";
      count.textContent = String(tasks);
      label.append(radio, tag, count);
      tagFilter.append(label);
    }
    if (focused) tagFilter.querySelector<HTMLElement>(":checked")?.focus();
    tagFilter.hidden = shown.length === 0;
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    window.clearTimeout(typing);
    const delay = target === search ? SEARCH_AFTER_MILLISECONDS : 0;
    typing = window.setTimeout(change, delay);
  });
  search.addEventListener("keydown", ({ key, isComposing }) => {
    if (key === "Escape" && !isComposing && !search.value) search.blur();
  });
  unfold.addEventListener("click", () => {
    unfold.ariaExpanded = String(unfold.ariaExpanded !== "true");
  });

  return {
    query,
    showTags,

    focusSearch: () => search.select(),

    /** Lists the tasks again if the query depends on the day. */
    renew(): void {
      if (chosen().due) change();
    },

    /** Lists the tasks with the tag. */
    showTag(tag: string): void {
      if (!tags.some((known) => known.tag === tag)) showTags([...tags, { tag, tasks: 1 }]);
      choose("tag", tag);
      change();
    },

    /** Lists all tasks, in the chosen order. */
    showAll(): TaskQuery {
      search.value = "";
      for (const name of ["status", "due", "priority", "tag"]) choose(name, "");
      showFilterCount();
      return query();
    },

    reset(): void {
      form.reset();
      showTags([]);
      unfold.ariaExpanded = "false";
      showFilterCount();
    },

    isSearching: () => chosen().q !== "",

    /** Returns whether any filter except the status is active. */
    isNarrow(): boolean {
      const { q, due, priority, tag } = chosen();
      return Boolean(q || due || priority || tag);
    },

    /** Returns whether the query may exclude the task. */
    hides(task: Task): boolean {
      const { q, status, due, priority, tag } = chosen();
      return (
        q !== "" ||
        due === "overdue" ||
        (status !== "" && status !== task.status) ||
        (due === "none" && task.due_date !== null) ||
        (due === "today" && !task.due_date?.startsWith(dayOf(new Date()))) ||
        (priority !== "" && priority !== task.priority) ||
        (tag !== "" && !task.tags.some((own) => own.toLowerCase() === tag.toLowerCase()))
      );
    },

    /** Explains why the list is empty. */
    emptyText(): string {
      const choice = chosen();
      if (choice.q) return `No tasks match “${choice.q}”.`;
      const filters = filtersOf(choice);
      if (filters.length > 1) return "No tasks match these filters.";
      if (choice.due === "today") return "No tasks due today.";
      if (choice.due === "overdue") return "No overdue tasks.";
      if (choice.due === "none") return "Every task has a due date.";
      if (choice.priority) return `No ${choice.priority}-priority tasks.`;
      if (choice.tag) return `No tasks tagged “${choice.tag}”.`;
      return EMPTY[choice.status];
    },
  };
}

/** The server compares dates as text, so a day sorts before the same day with a time. */
function dueQuery(due: Due, status: TaskStatus | ""): TaskQuery {
  const today = dayOf(new Date());
  if (due === "none") return { due: "none" };
  // A completed task is not overdue.
  if (due === "overdue") return { due_before: today, status: status ? [status] : OPEN };
  return { due_after: `${addDays(today, -1)}T23:59`, due_before: addDays(today, 1) };
}
