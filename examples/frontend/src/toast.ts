/** Offers to undo an action for a few seconds, at the bottom of the page. */

const UNDO_SECONDS = 8;

export interface Toast {
  /** Returns whether the user chose to undo. Ends the previous offer, if there is one. */
  offerUndo(text: string): Promise<boolean>;
  undo(): void;
  /** Ends the offer now, as if its time had run out. */
  close(): void;
}

export function createToast(element: HTMLElement): Toast {
  const [message, button] = element.children as unknown as [HTMLElement, HTMLButtonElement];
  let timer: number | undefined;
  let settle: ((undone: boolean) => void) | undefined;

  function end(undone: boolean): void {
    window.clearTimeout(timer);
    element.hidden = true;
    settle?.(undone);
    settle = undefined;
  }

  function wait(): void {
    window.clearTimeout(timer);
    if (settle) timer = window.setTimeout(() => end(false), UNDO_SECONDS * 1000);
  }

  // The time stops while the pointer or the focus is on the offer.
  for (const type of ["pointerenter", "focusin"]) {
    element.addEventListener(type, () => window.clearTimeout(timer));
  }
  for (const type of ["pointerleave", "focusout"]) element.addEventListener(type, wait);
  button.addEventListener("click", () => end(true));

  return {
    offerUndo(text) {
      end(false);
      message.textContent = text;
      element.hidden = false;
      return new Promise((resolve) => {
        settle = resolve;
        wait();
      });
    },
    undo: () => end(true),
    close: () => end(false),
  };
}
