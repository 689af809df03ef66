import { existsSync, readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";

const DOCUMENT = "generated/openapi.json";
const paths = existsSync(DOCUMENT) ? Object.keys(JSON.parse(readFileSync(DOCUMENT, "utf8")).paths) : null;

// Addresses are relative, so that one build serves every path prefix.
export default defineConfig({
  base: "./",
  define: { __PATHS__: JSON.stringify(paths) },
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 4000,
    rollupOptions: {
      input: { index: "index.html", docs: "docs.html" },
    },
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
