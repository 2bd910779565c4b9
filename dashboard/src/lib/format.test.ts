import { expect, test } from "vitest";
import { ago, bytes, bytesOf, duration, millis, percent, rate } from "./format";

const GIB = 1024 ** 3;

test.each([
  [undefined, "–"],
  [0, "0 B"],
  [999, "999 B"],
  [1536, "1.5 KB"],
  [24 * GIB, "24.0 GB"],
  [250 * GIB, "250 GB"],
])("%s bytes are %j", (value, text) => {
  expect(bytes(value)).toBe(text);
});

test("both sides of a fraction have one unit", () => {
  expect(bytesOf(512 * 1024 ** 2, 24 * GIB)).toBe("0.5 / 24.0 GB");
  expect(bytesOf(undefined, 24 * GIB)).toBe("24.0 GB");
  expect(bytesOf(2 * GIB, undefined)).toBe("2.0 GB");
});

test.each([
  [900, "1 s"],
  [59_000, "59 s"],
  [14 * 60_000, "14 min"],
  [90 * 60_000, "1 h 30 min"],
  [24 * 3_600_000, "1 d"],
  [-5, "0 s"],
])("%s ms last %j", (value, text) => {
  expect(duration(value)).toBe(text);
});

test("what is unknown is not nothing", () => {
  expect([millis(null), percent(undefined), rate(undefined)]).toEqual(["–", "–", "–"]);
  expect([millis(0), percent(0), rate(0)]).toEqual(["0 ms", "0 %", "0"]);
});

test("a time that a clock ahead of ours tells is now", () => {
  expect(ago(2_000, 1_000, "now")).toBe("now");
  expect(ago(0, 65_000, "now")).toBe("1 min");
});
