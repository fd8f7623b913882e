/** The field for a new task, with a preview of what was recognized in it. */

import type { NewTask, TagCount } from "./api";
import { describe } from "./dates";
import { find, icon, whileBusy } from "./dom";
import { type Part, readLine } from "./line";
import { completionsOf } from "./tags";

const TITLE_MAX_CHARS = 200; // the task server's limit, in code points
const EXAMPLE = "Try: Call Bob tomorrow 17:00 #work !high";

export function createAddForm(add: (task: NewTask) => Promise<boolean>) {
  const form = find(document, "#add", HTMLFormElement);
  const input = find(form, "#new-task", HTMLInputElement);
  const pick = find(form, "#pick", HTMLButtonElement);
  const picked = find(form, "#picked", HTMLInputElement);
  const preview = find(form, "#preview", HTMLElement);

  let tags: TagCount[] = [];
  /** Parts that the user wants to keep in the title, as they were typed. */
  const kept = new Set<string>();
  let previewed = "";

  function read() {
    return readLine(input.value, new Date(), kept);
  }

  function setLine(line: string): void {
    input.value = line;
    show();
  }

  function show(): void {
    if (!input.value.trim()) kept.clear();
    const { task, parts } = read();
    const tooLong = [...task.title].length > TITLE_MAX_CHARS;
    input.setCustomValidity(tooLong ? `Use at most ${TITLE_MAX_CHARS} characters for the title.` : "");
    const completions = completionsOf(input.value, tags);
    // Update only on a change: a part may have the focus, or be read out by a screen reader.
    const next = JSON.stringify([parts.length > 0 && task, parts, completions]);
    if (next === previewed) return;
    previewed = next;
    preview.replaceChildren(
      ...(parts.length > 0 ? [strong(task.title), ...chipsOf(task, parts)] : []),
      ...completions.map(completionOf),
    );
    if (preview.childNodes.length === 0) preview.textContent = EXAMPLE;
  }

  function chipsOf(task: NewTask, parts: Part[]): HTMLElement[] {
    const typedAs = (kind: Part["kind"]) =>
      parts.filter((part) => part.kind === kind).map(({ typed }) => typed);
    const due = task.due_date ? [chipOf("due", describe(task.due_date, new Date()), typedAs("due"))] : [];
    const priority = task.priority ? [chipOf("priority", task.priority, typedAs("priority"))] : [];
    const tagged = typedAs("tag").map((typed) => chipOf("tag", typed.slice(1), [typed]));
    priority[0]?.setAttribute("data-priority", String(task.priority));
    return [...due, ...priority, ...tagged];
  }

  /** Pressing a chip moves its text back into the title. */
  function chipOf(kind: Part["kind"], text: string, typed: string[]): HTMLButtonElement {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = `chip ${kind}`;
    const words = document.createElement("span");
    words.textContent = text;
    if (kind !== "tag") chip.append(icon(kind === "due" ? "calendar" : "flag"));
    chip.append(words);
    chip.title = `Keep “${typed.join(" ")}” in the title`;
    chip.ariaLabel = `${text}: keep in the title`;
    chip.addEventListener("click", () => {
      for (const part of typed) kept.add(part);
      show();
      input.focus();
    });
    return chip;
  }

  function completionOf(tag: string): HTMLButtonElement {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip suggestion";
    button.textContent = `#${tag}`;
    button.addEventListener("click", () => {
      setLine(`${input.value.replace(/#[^\s#]*$/, `#${tag}`)} `);
      input.focus();
    });
    return button;
  }

  input.addEventListener("input", show);
  input.addEventListener("keydown", ({ key, isComposing }) => {
    if (key === "Escape" && !isComposing) input.blur();
  });
  pick.addEventListener("click", () => picked.showPicker());
  picked.addEventListener("input", () => {
    const { parts } = read();
    const rest = parts
      .filter(({ kind }) => kind === "due")
      .reduce((line, { typed }) => line.replace(typed, ""), input.value);
    setLine(`${rest.trim()} ${picked.value}`.trim());
    input.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void whileBusy(form, async () => {
      const line = input.value;
      const { task } = read();
      if (!(await add(task))) return;
      // Keep what was typed in the meantime for the next task.
      if (input.value === line) setLine("");
    });
  });

  show();
  return {
    focus: () => input.focus(),

    suggest(next: TagCount[]): void {
      tags = next;
    },

    forget: () => setLine(""),
  };
}

function strong(text: string): HTMLElement {
  const element = document.createElement("strong");
  element.textContent = text;
  return element;
}
