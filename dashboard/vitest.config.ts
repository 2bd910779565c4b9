import { defineConfig } from "vitest/config";

/** In a browser, in front of a coordinator: one file at a time, because each brings its own of both. */
const browser = {
  fileParallelism: false,
  testTimeout: 60_000,
  hookTimeout: 120_000,
};

export default defineConfig({
  test: {
    reporters: ["./browser/reporter.ts"],
    expect: { requireAssertions: true },
    projects: [
      { extends: true, test: { name: "pure", include: ["src/**/*.test.ts"] } },
      { extends: true, test: { name: "browser", include: ["browser/**/*.test.ts"], ...browser } },
      ...(process.env["ASIDE"]
        ? [
            {
              extends: true as const,
              test: { name: "aside", include: [process.env["ASIDE"] ?? ""], ...browser },
            },
          ]
        : []),
    ],
  },
});
