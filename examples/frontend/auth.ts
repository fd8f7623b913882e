/** The Better Auth server: users in memory, and a signed JWT for each who is signed in. */

import { randomBytes } from "node:crypto";

import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { APIError } from "better-auth/api";
import { jwt } from "better-auth/plugins";

const ALGORITHMS = ["EdDSA", "ES256", "ES512", "RS256", "PS256"] as const;

const ERASURE_TIMEOUT_SECONDS = 5;

const env = process.env;

export const port = Number(env.PORT ?? 3000);
export const apiUrl = env.API_URL ?? "http://localhost:8000";

const alg = ALGORITHMS.find((name) => name === (env.JWT_ALG ?? "EdDSA"));
if (alg === undefined) {
  throw new Error(`JWT_ALG must be one of ${ALGORITHMS.join(", ")}`);
}

export const auth = betterAuth({
  // Its origin is the `iss` and the `aud` of every JWT, and the BETTER_AUTH_URL of the task server.
  baseURL: env.BETTER_AUTH_URL ?? `http://localhost:${port}`,
  secret: env.BETTER_AUTH_SECRET ?? randomBytes(32).toString("base64url"),
  // All of it is gone when the server stops. Give Better Auth your database here.
  database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
  emailAndPassword: { enabled: true },
  // Before: while the tasks cannot be erased, the account stays, and its user can try again.
  user: { deleteUser: { enabled: true, beforeDelete: eraseTasks } },
  // Three sign-ins in ten seconds would be the most; turn it on where strangers can reach this.
  rateLimit: { enabled: false },
  plugins: [
    jwt({
      jwt: { expirationTime: `${Number(env.JWT_EXPIRES_IN_SECONDS ?? 900)}s` },
      jwks: { keyPairConfig: { alg } },
    }),
  ],
});

/** Has the task server erase all that it stores for the user, by a JWT of theirs. */
async function eraseTasks({ id }: { id: string }): Promise<void> {
  const { token } = await auth.api.signJWT({ body: { payload: { sub: id } } });
  const response = await fetch(`${apiUrl}/api/me`, {
    method: "DELETE",
    headers: { Authorization: `Bearer ${token}` },
    signal: AbortSignal.timeout(ERASURE_TIMEOUT_SECONDS * 1000),
  }).catch((cause: unknown) => console.error(cause));
  if (response?.ok) return;
  throw new APIError("SERVICE_UNAVAILABLE", {
    message: "Your tasks cannot be erased now; nothing was deleted",
  });
}
