/** The forms for signing in, signing up, and deleting the account. */

import type { User } from "./account";
import { find, whileBusy } from "./dom";

export interface AccountActions {
  signIn(email: string, password: string): Promise<void>;
  signUp(name: string, email: string, password: string): Promise<void>;
  /** Returns the reason if the account was not deleted, or an empty string. */
  erase(password: string): Promise<string>;
}

export function createEntrance(actions: AccountActions) {
  const page = <E extends Element>(id: string, type: new () => E): E =>
    find(document, `#${id}`, type);

  const entrance = page("entrance", HTMLElement);
  const credentials = page("credentials", HTMLFormElement);
  const heading = page("entrance-heading", HTMLElement);
  const nameField = page("name-field", HTMLLabelElement);
  const nameInput = find(nameField, "input", HTMLInputElement);
  const emailInput = find(credentials, "[name=email]", HTMLInputElement);
  const passwordInput = find(credentials, "[name=password]", HTMLInputElement);
  const message = page("entrance-message", HTMLElement);
  const enter = page("enter", HTMLButtonElement);
  const question = page("switch-question", HTMLElement);
  const switchButton = page("switch", HTMLButtonElement);

  const askToErase = page("ask-to-erase", HTMLButtonElement);
  const erasure = page("erasure", HTMLDialogElement);
  const erase = find(erasure, "form", HTMLFormElement);
  const eraseEmail = find(erasure, "[type=email]", HTMLInputElement);
  const erasePassword = find(erasure, "[type=password]", HTMLInputElement);
  const eraseMessage = find(erasure, "[role=alert]", HTMLElement);
  const keep = find(erasure, "[type=button]", HTMLButtonElement);

  let signingUp = false;

  function askFor(account: "existing" | "new"): void {
    signingUp = account === "new";
    nameField.hidden = nameInput.disabled = !signingUp;
    heading.textContent = signingUp ? "Create your account" : "Sign in";
    enter.textContent = signingUp ? "Sign up" : "Sign in";
    question.textContent = signingUp ? "Have an account?" : "No account yet?";
    switchButton.textContent = signingUp ? "Sign in instead" : "Create an account";
    passwordInput.autocomplete = signingUp ? "new-password" : "current-password";
    passwordInput.minLength = signingUp ? 8 : 0;
    message.textContent = "";
  }

  switchButton.addEventListener("click", () => {
    askFor(signingUp ? "existing" : "new");
    (signingUp ? nameInput : emailInput).focus();
  });
  credentials.addEventListener("submit", (event) => {
    event.preventDefault();
    message.textContent = "";
    const [email, password] = [emailInput.value, passwordInput.value];
    void whileBusy(credentials, () =>
      signingUp
        ? actions.signUp(nameInput.value, email, password)
        : actions.signIn(email, password),
    );
  });

  askToErase.addEventListener("click", () => erasure.showModal());
  keep.addEventListener("click", () => erasure.close());
  erasure.addEventListener("close", () => {
    erase.reset();
    eraseMessage.textContent = "";
  });
  erase.addEventListener("submit", (event) => {
    event.preventDefault();
    eraseMessage.textContent = "";
    void whileBusy(erase, async () => {
      eraseMessage.textContent = await actions.erase(erasePassword.value);
    });
  });

  return {
    show(text: string): void {
      askFor("existing");
      message.textContent = text;
      entrance.hidden = false;
      erasure.close();
      (emailInput.value ? passwordInput : emailInput).focus();
    },

    showMessage(text: string): void {
      message.textContent = text;
    },

    hide(user: User): void {
      credentials.reset();
      entrance.hidden = true;
      eraseEmail.defaultValue = user.email;
    },
  };
}
