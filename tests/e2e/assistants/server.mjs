/** A Better Auth server that issues tokens to assistants, with its two pages. auth.mjs is in docs/assistants-oauth.md. */

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

import { toNodeHandler } from "better-auth/node";

import { auth } from "./auth.mjs";

const { baseURL } = auth.options;
const handle = toNodeHandler(auth);

createServer(async (request, response) => {
  const { pathname } = new URL(request.url, baseURL);
  if (pathname !== "/sign-in" && pathname !== "/consent") return handle(request, response);
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  // Otherwise a page of another site could hide this one under its own buttons.
  response.setHeader("Content-Security-Policy", "frame-ancestors 'none'");
  response.end(await readFile(new URL(`.${pathname}.html`, import.meta.url)));
}).listen(new URL(baseURL).port, "127.0.0.1");
