/** Signs users up, in and out with Better Auth, and gives their JWT. */

import { type BetterFetchError, createAuthClient } from "better-auth/client";
import { jwtClient } from "better-auth/client/plugins";

import { RefusedError, SessionEndedError, UnavailableError } from "./errors";

const TIMEOUT_SECONDS = 10;
// Of a token's life; what is left is for requests that are slow, and for a renewal that is.
const RENEW_AFTER = 0.9;

const client = createAuthClient({
  plugins: [jwtClient()],
  fetchOptions: { throw: true, timeout: TIMEOUT_SECONDS * 1000 },
});

export interface User {
  id: string;
  name: string;
  email: string;
}

/** Gives a JWT that is not the refused one. */
export type Tokens = (refused?: string) => Promise<string>;

export async function currentUser(): Promise<User | undefined> {
  return (await answerOf(client.getSession()))?.user;
}

export async function signUp(name: string, email: string, password: string): Promise<User> {
  return (await answerOf(client.signUp.email({ name, email, password }))).user;
}

export async function signIn(email: string, password: string): Promise<User> {
  return (await answerOf(client.signIn.email({ email, password }))).user;
}

export async function signOut(): Promise<void> {
  await answerOf(client.signOut());
}

/** Erases the account and, as auth.ts has it, all the user's tasks before. */
export async function erase(password: string): Promise<void> {
  await answerOf(client.deleteUser({ password }));
}

/**
 * Keeps the user's JWT, in memory only: what is stored, an injected script could take along.
 * It is renewed before it expires, once for all who ask meanwhile.
 */
export function tokensOf(user: User): Tokens {
  let current: { jwt: string; renewAt: number } | undefined;
  let renewal: Promise<string> | undefined;

  async function renew(): Promise<string> {
    const { token } = await answerOf(client.token()).catch((error: unknown) => {
      const ended = error instanceof RefusedError && error.status === 401;
      throw ended ? new SessionEndedError() : error;
    });
    const { sub, iat, exp } = claimsOf(token);
    // The cookie is shared with other tabs, where somebody else may have signed in.
    if (sub !== user.id) throw new SessionEndedError();
    // Counted from now: the clock here need not agree with the server's.
    current = { jwt: token, renewAt: Date.now() + (exp - iat) * 1000 * RENEW_AFTER };
    return token;
  }

  return async (refused) => {
    if (current && current.jwt !== refused && Date.now() < current.renewAt) return current.jwt;
    renewal ??= renew().finally(() => {
      renewal = undefined;
    });
    return renewal;
  };
}

function claimsOf(jwt: string): { sub: string; iat: number; exp: number } {
  const payload = jwt.split(".")[1] ?? "";
  return JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
}

async function answerOf<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (cause) {
    // Of this error better-auth exports the type alone; one without a status is the network's.
    const { status, statusText, error } = cause as Partial<BetterFetchError>;
    if (status === undefined) {
      throw new UnavailableError("The sign-in server cannot be reached", 0, { cause });
    }
    if (status === 429 || status >= 500) {
      const message = error?.message ?? "The sign-in server cannot answer now";
      throw new UnavailableError(message, 0, { cause });
    }
    throw new RefusedError(status, error?.message ?? statusText);
  }
}
