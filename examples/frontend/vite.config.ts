/** Serves the page and Better Auth on one origin: `vite` from the sources, `vite preview` as built. */

import { toNodeHandler } from "better-auth/node";
import { type Connect, defineConfig } from "vite";

import { apiUrl, auth, port } from "./auth.ts";

// The task server of compose.yaml asks for the keys under this name.
const listen = { port, strictPort: true, allowedHosts: ["frontend"] };

export default defineConfig({
  server: listen,
  preview: listen,
  plugins: [
    {
      name: "auth-server",
      configureServer: ({ middlewares }) => mount(middlewares),
      configurePreviewServer: ({ middlewares }) => mount(middlewares),
    },
  ],
});

function mount(middlewares: Connect.Server): void {
  const answer = toNodeHandler(auth);
  middlewares.use((request, response, next) => {
    // Not mounted at the prefix, which would cut it off the URL that Better Auth matches.
    if (request.url?.startsWith("/api/auth/")) void answer(request, response);
    else next();
  });
  // Read by the page when it starts, so that one build serves wherever the task server is.
  middlewares.use("/config.json", (_, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ apiUrl }));
  });
}
