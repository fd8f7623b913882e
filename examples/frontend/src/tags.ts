/** The field for a task's tags, with suggestions from the user's tags. */

import type { TagCount } from "./api";
import { find } from "./dom";

export interface TagField {
  value: string[];
}

/** Each tag is a button that removes it. Enter or a comma turns what was typed into a tag. */
export function createTagField(field: HTMLElement): TagField {
  const input = find(field, "input", HTMLInputElement);
  const chips = find(field, "[data-part=chips]", HTMLElement);
  let tags: string[] = [];

  function set(next: string[]): void {
    tags = next;
    chips.replaceChildren(...tags.map(createChip));
  }

  function createChip(tag: string): HTMLButtonElement {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = "chip tag";
    chip.textContent = tag;
    chip.ariaLabel = `Remove the tag ${tag}`;
    chip.addEventListener("click", () => {
      set(tags.filter((other) => other !== tag));
      input.focus();
    });
    return chip;
  }

  function addTyped(): void {
    set(withTyped());
    input.value = "";
  }

  function withTyped(): string[] {
    const tag = input.value.trim().replace(/^#/, "").replace(/,$/, "").trim();
    const known = tags.some((other) => other.toLowerCase() === tag.toLowerCase());
    return tag && !known ? [...tags, tag] : tags;
  }

  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && input.value.trim() && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      addTyped();
    } else if (event.key === ",") {
      event.preventDefault();
      addTyped();
    } else if (event.key === "Backspace" && !input.value) {
      set(tags.slice(0, -1));
    }
  });
  // Choosing a suggestion replaces the text without a key press.
  input.addEventListener("input", (event) => {
    if (!(event instanceof InputEvent) || event.inputType === "insertReplacementText") addTyped();
  });

  return {
    /** Includes the tag that is still being typed. */
    get value() {
      return withTyped();
    },
    set value(next) {
      input.value = "";
      set(next);
    },
  };
}

/** Suggests the tags in every tag field. */
export function suggestTags(tags: TagCount[]): void {
  find(document, "#known-tags", HTMLDataListElement).replaceChildren(
    ...tags.map(({ tag }) => new Option(tag, tag)),
  );
}

/** Returns the tags that complete the `#word` at the end of the line. */
export function completionsOf(line: string, tags: TagCount[]): string[] {
  const begun = /(?:^|\s)#([^\s#]*)$/.exec(line)?.[1]?.toLowerCase();
  if (begun === undefined) return [];
  return tags
    .map(({ tag }) => tag)
    .filter((tag) => !/[\s#]/.test(tag))
    .filter((tag) => tag.toLowerCase().startsWith(begun) && tag.toLowerCase() !== begun)
    .slice(0, 5);
}
