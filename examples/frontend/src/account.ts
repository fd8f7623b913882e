/** Signs users up, in and out with Better Auth, and returns their JWT. */

import { type BetterFetchError, createAuthClient } from "better-auth/client";
import { jwtClient } from "better-auth/client/plugins";

import { RefusedError, SessionEndedError, UnavailableError } from "./errors";

const TIMEOUT_SECONDS = 10;
// The fraction of a token's lifetime. The rest is a reserve for slow requests and renewals.
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

/** Returns a JWT other than the refused one. */
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

/** Erases the account. The server (auth.ts) first erases all tasks of the user. */
export async function erase(password: string): Promise<void> {
  await answerOf(client.deleteUser({ password }));
}

/**
 * Keeps the user's JWT, in memory only: an injected script could read a stored one.
 * Renews it before it expires. Concurrent callers share one renewal.
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
    // Relative to now, because the clocks of browser and server may differ.
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
    // better-auth exports only the type of this error. Without a status, it is a network error.
    const { status, statusText, error } = cause as Partial<BetterFetchError>;
    if (status === undefined) {
      throw new UnavailableError("Cannot reach the sign-in server", 0, { cause });
    }
    if (status === 429 || status >= 500) {
      const message = error?.message ?? "The sign-in server is unavailable";
      throw new UnavailableError(message, 0, { cause });
    }
    throw new RefusedError(status, error?.message ?? statusText);
  }
}
