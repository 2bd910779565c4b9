import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const css = readFileSync("src/styles.css", "utf8");

/** Returns the colours of one theme: the first or the second of each pair. */
function theme(at: 2 | 3): Map<string, string> {
  const pairs = css.matchAll(/--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);/g);
  return new Map([...pairs].map((pair) => [pair[1] ?? "", pair[at] ?? ""]));
}

function luminance(color: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(a: string, b: string): number {
  const [dark = 0, light = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

const THEMES = { light: theme(2), dark: theme(3) };
const GROUNDS = ["bg", "surface", "raised"];
const TEXTS = ["text", "muted", "link", "accent", "ok", "info", "warn", "bad", "off"];
const SHAPES = ["series-1", "series-2", "series-3", "line-strong", "focus"];

test.each(["light", "dark"] as const)(
  "texts and shapes can be told from the ground: %s",
  (theme) => {
    const color = (token: string): string => THEMES[theme].get(token) ?? "";
    const tooWeak: string[] = [];
    const check = (front: string, back: string, least: number): void => {
      const found = contrast(color(front), color(back));
      if (!(found >= least)) tooWeak.push(`${front} on ${back}: ${found.toFixed(2)}`);
    };

    for (const back of GROUNDS) {
      for (const front of TEXTS) check(front, back, 4.5);
      for (const front of SHAPES) check(front, back, 3);
    }
    for (const front of ["text", "muted", "warn"]) check(front, "warn-soft", 4.5);
    for (const front of ["text", "bad"]) check(front, "bad-soft", 4.5);
    check("text", "accent-soft", 4.5);
    check("accent-text", "accent", 4.5);
    check("muted", "sunken", 4.5);

    expect(tooWeak).toEqual([]);
  },
);

test("every colour has its other in the dark", () => {
  const alone = [...css.matchAll(/--[\w-]+: (?:#|rgb)[^;]*;/g)].map((it) => it[0]);

  expect(alone).toEqual([]);
  expect(THEMES.dark.size).toBeGreaterThan(20);
});
