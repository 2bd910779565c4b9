import { expect, test } from "vitest";
import { search } from "./search";
import { agentNamed } from "./testing";

const PAGES = [
  ["", "Overview"],
  ["models", "Models"],
] as const;

test("pages, machines and models are found, those first that begin so", () => {
  const models = [{ name: "gpu-tuned:7b" }];
  const agents = [agentNamed("big-gpu"), agentNamed("gpu-1", { models })];

  const found = search(" GPU", PAGES, agents);

  expect(found.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
    "machine gpu-1",
    "model gpu-tuned:7b",
    "machine big-gpu",
  ]);
  expect(found[0]?.href).toBe("#/agents/id-of-gpu-1");
  expect(search("zebra", PAGES, agents)).toEqual([]);
});

test("nothing looked for shows the pages first, and a few only", () => {
  const agents = Array.from({ length: 50 }, (_, at) => agentNamed(`gpu-${at}`));

  const found = search("", PAGES, agents);

  expect(found.slice(0, 2).map(({ name }) => name)).toEqual(["Overview", "Models"]);
  expect(found.length).toBe(12);
});
