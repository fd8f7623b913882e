/** Serves the page and Better Auth on one origin: `vite` from the sources, `vite preview` from the build. */

import { toNodeHandler } from "better-auth/node";
import { type Connect, defineConfig } from "vite";

import { apiUrl, auth, port } from "./auth.ts";

// The task server in compose.yaml fetches the keys from this host name.
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
    // Do not mount it at the prefix: that would remove the prefix from the URL, which Better Auth needs.
    if (request.url?.startsWith("/api/auth/")) void answer(request, response);
    else next();
  });
  // The page reads this when it starts, so one build works with any task server.
  middlewares.use("/config.json", (_, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ apiUrl }));
  });
}
