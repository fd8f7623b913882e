/** The Better Auth server: users in memory, and a signed JWT for each who is signed in. */

import { randomBytes } from "node:crypto";

import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";

const ALGORITHMS = ["EdDSA", "ES256", "ES512", "RS256", "PS256"] as const;

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
  // Three sign-ins in ten seconds would be the most; turn it on where strangers can reach this.
  rateLimit: { enabled: false },
  plugins: [
    jwt({
      jwt: { expirationTime: `${Number(env.JWT_EXPIRES_IN_SECONDS ?? 900)}s` },
      jwks: { keyPairConfig: { alg } },
    }),
  ],
});
