import { expect, test } from "vitest";
import { gpuOf, grouped, labelsIn, modelsOf, stateOf, vramOf, vramUsedOf } from "./agents";
import type { Agent } from "./api/shapes";
import { agentNamed } from "./testing";

const GIB = 1024 ** 3;
const unroutable = (reason: string): Partial<Agent> =>
  ({ routable: false, reason }) as Partial<Agent>;

test.each<[string, Partial<Agent>]>([
  ["ready", {}],
  ["ready", { in_flight: 3 }],
  ["busy", { in_flight: 4 }],
  ["busy", { in_flight: 4, capacity: null }],
  ["draining", { draining: true, ...unroutable("draining") }],
  ["paused", unroutable("paused")],
  ["starting", unroutable("unverified")],
  ["troubled", unroutable("ejected")],
  ["troubled", unroutable("a_reason_of_a_later_version")],
  ["offline", { status: "offline", ...unroutable("offline") }],
  ["offline", { status: "offline", draining: true, ...unroutable("offline") }],
])("an agent is %s when %o", (state, changes) => {
  expect(stateOf(agentNamed("a", changes))).toBe(state);
});

test("machines stand together by a label that few values tell apart", () => {
  const agents = Array.from({ length: 70 }, (_, at) =>
    agentNamed(`gpu-${at}`, { labels: at === 0 ? {} : { serial: `${at}`, room: `${at % 2}` } }),
  );

  expect(labelsIn(agents)).toEqual(["room"]);
  const members = agents.map((document) => ({ document }));
  const sizes = grouped(members, "room").map(({ name, members: some }) => [name, some.length]);
  expect(sizes).toEqual([
    ["0", 34],
    ["1", 35],
    ["", 1],
  ]);
});

test("GPUs of one kind are counted", () => {
  const gpu = { name: "NVIDIA GeForce RTX 4090", memory_bytes: 24 * GIB };
  const agent = agentNamed("a", { system_info: { gpus: [gpu, gpu, { name: "AMD W7900" }] } });

  expect(gpuOf(agent)).toBe("2× RTX 4090, W7900");
  expect(vramOf(agent)).toBeUndefined();
  expect(vramOf(agentNamed("b", { system_info: { gpus: [gpu, gpu] } }))).toBe(48 * GIB);
});

test("memory of GPUs is what is measured, else what models take", () => {
  const loaded_models = [{ name: "m", size_vram: 2 }, { name: "n" }];

  expect(vramUsedOf(agentNamed("a"))).toBeUndefined();
  expect(vramUsedOf(agentNamed("a", { loaded_models }))).toBe(2);
  const metrics = { gpu_memory_used_bytes: 5 };
  expect(vramUsedOf(agentNamed("a", { loaded_models, metrics }))).toBe(5);
});

test("a model is listed once with all its places", () => {
  const agents = [
    agentNamed("a", { models: [{ name: "m:1", size: 7 }], loaded_models: [{ name: "m:1" }] }),
    agentNamed("b", { models: [{ name: "m:1" }, { name: "l:1" }] }),
  ];

  const models = modelsOf(agents);

  expect(models.map((it) => it.name)).toEqual(["l:1", "m:1"]);
  expect(models[1]).toMatchObject({ size: 7, agents, loadedOn: [agents[0]] });
});
