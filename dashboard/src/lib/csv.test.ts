import { expect, test } from "vitest";
import { csvOf } from "./csv";

test("cells are quoted, and what would be computed is text", () => {
  const csv = csvOf(
    ["name", "load"],
    [
      ['the "big" one', 3],
      ["=HYPERLINK(0)", undefined],
    ],
  );

  expect(csv).toBe('"name","load"\n"the ""big"" one","3"\n"\'=HYPERLINK(0)",""');
});
