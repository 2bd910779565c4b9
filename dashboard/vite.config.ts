import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

const OUT = "dist/site";

/** Writes each file beside itself as `.br` and `.gz`, as the coordinator serves them. */
function precompress(): Plugin {
  return {
    name: "precompress",
    apply: "build",
    closeBundle() {
      for (const entry of readdirSync(OUT, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || /\.(br|gz)$/.test(entry.name)) continue;
        const path = join(entry.parentPath, entry.name);
        const bytes = readFileSync(path);
        const params = { [constants.BROTLI_PARAM_QUALITY]: 11 };
        writeFileSync(`${path}.br`, brotliCompressSync(bytes, { params }));
        writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }));
      }
    },
  };
}

const coordinator = process.env["API_HOST"] ?? "http://127.0.0.1:11400";

export default defineConfig({
  base: "./",
  plugins: [svelte(), precompress()],
  build: {
    outDir: OUT,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    // What every page needs is one file, so that few requests come before anything is seen.
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [{ name: "shared", test: /node_modules\/svelte\/|state\/fleet\.svelte\.ts$/ }],
        },
      },
    },
  },
  server: {
    host: "127.0.0.1",
    proxy: { "/api": coordinator, "/v1": coordinator, "/healthz": coordinator },
  },
});
