// Parses the Mermaid diagrams of a JSON list on standard input; prints the error of each, or null.

import { text } from "node:stream/consumers";

import { JSDOM } from "jsdom";

// Mermaid reads both while it is imported.
globalThis.window = new JSDOM("").window;
globalThis.document = window.document;
const { default: mermaid } = await import("mermaid");

const errors = [];
for (const diagram of JSON.parse(await text(process.stdin))) {
  errors.push(await mermaid.parse(diagram).then(() => null, (error) => error.message));
}
console.log(JSON.stringify(errors));
