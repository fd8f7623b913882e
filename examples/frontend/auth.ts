/** The Better Auth server. It keeps users in memory and signs a JWT for each signed-in user. */

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
  // The origin of this URL is the `iss` and `aud` of every JWT. The task server needs it as BETTER_AUTH_URL.
  baseURL: env.BETTER_AUTH_URL ?? `http://localhost:${port}`,
  secret: env.BETTER_AUTH_SECRET ?? randomBytes(32).toString("base64url"),
  // Everything is lost when the server stops. Use your own database here.
  database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
  emailAndPassword: { enabled: true },
  // beforeDelete: if the tasks cannot be erased, the account still exists and the user can try again.
  user: { deleteUser: { enabled: true, beforeDelete: eraseTasks } },
  // It would allow only three sign-ins in ten seconds. Enable it if others can reach the server.
  rateLimit: { enabled: false },
  plugins: [
    jwt({
      jwt: { expirationTime: `${Number(env.JWT_EXPIRES_IN_SECONDS ?? 900)}s` },
      jwks: { keyPairConfig: { alg } },
    }),
  ],
});

/** Erases everything that the task server stores for the user, with a JWT signed for them. */
async function eraseTasks({ id }: { id: string }): Promise<void> {
  const { token } = await auth.api.signJWT({ body: { payload: { sub: id } } });
  const response = await fetch(`${apiUrl}/api/me`, {
    method: "DELETE",
    headers: { Authorization: `Bearer ${token}` },
    signal: AbortSignal.timeout(ERASURE_TIMEOUT_SECONDS * 1000),
  }).catch((cause: unknown) => console.error(cause));
  if (response?.ok) return;
  throw new APIError("SERVICE_UNAVAILABLE", {
    message: "Could not delete your account. Try again later.",
  });
}
