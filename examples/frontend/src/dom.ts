/** What the page asks of the DOM again and again. */

/** Gives the element, which must be there and of this type. */
export function find<E extends Element>(root: ParentNode, selector: string, type: new () => E): E {
  const element = root.querySelector(selector);
  if (!(element instanceof type)) throw new Error(`There is no ${type.name} ${selector}`);
  return element;
}

/** Gives a copy of what is in the template of this id. */
export function instantiate<E extends Element>(id: string, type: new () => E): E {
  const template = find(document, `template#${id}`, HTMLTemplateElement);
  const element = document.importNode(template.content, true).firstElementChild;
  if (!(element instanceof type)) throw new Error(`There is no ${type.name} in template#${id}`);
  return element;
}

/** Does what is for good at the second press only; `ask` shows whether the first has come. */
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
  // Not `disabled`, which would take the keyboard's focus away.
  if (element.ariaBusy === "true") return;
  element.ariaBusy = "true";
  try {
    await action();
  } finally {
    element.ariaBusy = null;
  }
}

/** Draws the symbol of this id. */
export function icon(symbol: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${symbol}`);
  svg.append(use);
  return svg;
}
