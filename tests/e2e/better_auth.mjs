/** A Better Auth server on the given port. It signs with keys of $JWT_ALG or, for HS256, with its secret. */

import { createServer } from "node:http";

import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";
import { SignJWT } from "jose";

const { JWT_ALG, BETTER_AUTH_SECRET } = process.env;
const port = Number(process.argv[2]);
const baseURL = `http://127.0.0.1:${port}`;
const sent = [];

const withKeys = {
  sessionCookieCache: true,
  jwks: {
    keyPairConfig: { alg: JWT_ALG },
    rotationInterval: Number(process.env.ROTATION_SECONDS),
    jwksPath: process.env.JWKS_PATH,
  },
};
const withSecret = {
  jwks: { remoteUrl: `${baseURL}/none`, keyPairConfig: { alg: "EdDSA" } },
  jwt: {
    sign: (payload) =>
      new SignJWT(payload)
        .setProtectedHeader({ alg: "HS256" })
        .setIssuedAt()
        .setExpirationTime("15m")
        .sign(new TextEncoder().encode(BETTER_AUTH_SECRET)),
  },
};

const auth = betterAuth({
  baseURL,
  basePath: process.env.BASE_PATH,
  secret: BETTER_AUTH_SECRET,
  database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
  emailAndPassword: { enabled: true },
  emailVerification: { sendOnSignUp: true, sendVerificationEmail: async ({ token }) => void sent.push(token) },
  session: { cookieCache: { enabled: true, strategy: "jwt" } },
  rateLimit: { enabled: false },
  plugins: [jwt(JWT_ALG === "HS256" ? withSecret : withKeys)],
});
const handle = toNodeHandler(auth);

/** In addition to Better Auth's endpoints: /sent returns the mailed tokens, /sign signs any payload. */
createServer(async (request, response) => {
  if (request.url === "/sent") return response.end(JSON.stringify(sent));
  if (request.url !== "/sign") return handle(request, response);
  let body = "";
  for await (const chunk of request) body += chunk;
  const { token } = await auth.api.signJWT({ body: { payload: JSON.parse(body) } });
  response.end(JSON.stringify({ token }));
}).listen(port, "127.0.0.1");
