/** Helpers for the DOM. */

/** Returns the element. Throws if it is missing or has another type. */
export function find<E extends Element>(root: ParentNode, selector: string, type: new () => E): E {
  const element = root.querySelector(selector);
  if (!(element instanceof type)) throw new Error(`There is no ${type.name} ${selector}`);
  return element;
}

/** Returns a copy of the content of the template with this id. */
export function instantiate<E extends Element>(id: string, type: new () => E): E {
  const template = find(document, `template#${id}`, HTMLTemplateElement);
  const element = document.importNode(template.content, true).firstElementChild;
  if (!(element instanceof type)) throw new Error(`There is no ${type.name} in template#${id}`);
  return element;
}

/** Runs an irreversible action on the second press. `ask` shows whether the first has happened. */
export function onSecondPress(
  button: HTMLButtonElement,
  ask: (asking: boolean) => void,
  action: () => unknown,
): void {
  button.addEventListener("click", () => {
    const asked = button.dataset.asking === "true";
    ask(!asked);
    if (asked) action();
  });
  button.addEventListener("blur", () => ask(false));
  button.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") ask(false);
  });
}

/** Runs the action, unless one is still running on this element. */
export async function whileBusy(element: Element, action: () => Promise<unknown>): Promise<void> {
  // Do not use `disabled`: it would remove the keyboard focus.
  if (element.ariaBusy === "true") return;
  element.ariaBusy = "true";
  try {
    await action();
  } finally {
    element.ariaBusy = null;
  }
}

/** Creates an icon from the symbol with this id. */
export function icon(symbol: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${symbol}`);
  svg.append(use);
  return svg;
}
