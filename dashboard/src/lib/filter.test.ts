import { expect, test } from "vitest";
import { nameOf } from "./agents";
import type { Agent } from "./api/shapes";
import { filterOf } from "./filter";
import { agentNamed, membersOf } from "./testing";

const unroutable = (reason: string): Partial<Agent> =>
  ({ routable: false, reason }) as Partial<Agent>;

test.each([
  ["", ["big", "small"]],
  ["BIG", ["big"]],
  ["gpu:a6000", ["big"]],
  ["-gpu:a6000", ["small"]],
  ["state:ready", ["small"]],
  ["state:ejected", ["big"]],
  ["room=101", ["big"]],
  ["room=10", []],
  ["room", ["big"]],
  ["model:qwen gpu:a6000", ["big"]],
  ["loaded:qwen", []],
  ["ｇｐｕ：a6000", ["big"]],
  ["10.0.0", ["big", "small"]],
  ["os:ubuntu version:0.1", ["big"]],
])("filter %j shows %j", (query, names) => {
  const members = membersOf([
    agentNamed("big", {
      labels: { room: "101" },
      models: [{ name: "qwen3:8b" }],
      system_info: { os: "Ubuntu 24.04", gpus: [{ name: "NVIDIA RTX A6000" }] },
      ...unroutable("ejected"),
    }),
    agentNamed("small"),
  ]);

  const wanted = [...members].filter(filterOf(query));

  expect(wanted.map(({ document }) => nameOf(document))).toEqual(names);
});

test("a reason of a later version is trouble, and found as it is", () => {
  const [member] = membersOf([agentNamed("a", unroutable("eaten_by_a_bear"))]);

  expect(member && filterOf("state:eaten")(member)).toBe(true);
});

test("what is found follows what an agent becomes", () => {
  const members = membersOf([agentNamed("a")]);
  const isFound = (): boolean => [...members].some(filterOf("other gpu:4090"));
  const before = isFound();

  const gpus = [{ name: "NVIDIA GeForce RTX 4090" }];
  const changed = agentNamed("a", { display_name: "Other", system_info: { gpus } });
  const documents = new Map([[changed.id, changed]]);
  members.draw({ documents, loads: new Map(), isWhole: false });

  expect([before, isFound()]).toEqual([false, true]);
});
