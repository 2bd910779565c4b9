import { expect, test } from "vitest";
import type { FleetEvent, Happening, Load } from "./api/shapes";
import { Members } from "./members";
import { Model } from "./model";
import { agentNamed } from "./testing";

const NOW = Date.parse("2026-11-24T10:00:00Z");
const FIGURES = {
  in_flight: 0,
  queued: 0,
  requests_per_minute: 0,
  failures_per_minute: 0,
  tokens_per_second: 0,
  viewers: 1,
};

const snapshot = (seq: number, instance = "one"): FleetEvent => ({
  type: "snapshot",
  seq,
  instance_id: instance,
  version: "0.1.0",
  server_time: "2026-11-24T10:00:05Z",
  fleet: FIGURES,
  agents: [agentNamed("a"), agentNamed("b")],
});
const tick = (seq: number, loads: Load[] = []): FleetEvent => ({
  type: "tick",
  seq,
  server_time: "2026-11-24T10:00:05Z",
  fleet: FIGURES,
  loads,
});
const happening = (number: number): Happening => ({
  number,
  at: "2026-11-24T10:00:00Z",
  kind: "joined",
});

/** What is seen when everything that was told is drawn. */
function drawn(model: Model, members = new Members()): Members {
  members.draw(model.takeNews());
  return members;
}

test("what follows a snapshot changes it", () => {
  const model = new Model();

  expect(model.apply(snapshot(7), NOW)).toBe("changed");
  const changed = agentNamed("a", { draining: true });
  model.apply({ type: "agent_changed", seq: 8, agent: changed }, NOW);
  model.apply({ type: "agent_removed", seq: 9, id: "id-of-b" }, NOW);
  model.apply(tick(10, [{ id: "id-of-a", in_flight: 3 }]), NOW);

  const members = drawn(model);
  expect([...members].map(({ id }) => id)).toEqual(["id-of-a"]);
  expect(members.get("id-of-a")?.agent).toMatchObject({ draining: true, in_flight: 3 });
  expect(members.counts).toMatchObject({ draining: 1, ready: 0 });
  expect(model.clockOffset).toBe(5_000);
});

test("a missing frame is never passed over", () => {
  const model = new Model();
  model.apply(snapshot(7), NOW);

  expect(model.apply(tick(9), NOW)).toBe("resync");
  expect(model.apply({ type: "resync" }, NOW)).toBe("resync");
});

test("what a resumed stream tells twice is taken once", () => {
  const model = new Model();
  model.apply(snapshot(7), NOW);
  model.apply({ type: "agent_removed", seq: 8, id: "id-of-b" }, NOW);
  model.apply(tick(9, [{ id: "id-of-a", in_flight: 3 }]), NOW);

  expect(model.apply(tick(9, [{ id: "id-of-a", in_flight: 1 }]), NOW)).toBe("none");
  expect(model.apply(tick(10), NOW)).toBe("changed");
  expect(drawn(model).get("id-of-a")?.agent.in_flight).toBe(3);
});

test("types and fields of a later version are passed over", () => {
  const model = new Model();
  model.apply(snapshot(0), NOW);
  const later = { type: "weather", seq: 1, sky: "blue" } as unknown as FleetEvent;

  expect(model.apply(later, NOW)).toBe("none");
  expect(model.apply({ ...tick(2), moon: 1 } as unknown as FleetEvent, NOW)).toBe("changed");
  expect(drawn(model).size).toBe(2);
});

test("load of somebody unknown changes nothing", () => {
  const model = new Model();
  model.apply(snapshot(0), NOW);

  model.apply(tick(1, [{ id: "nobody", in_flight: 1 }]), NOW);

  expect(drawn(model).size).toBe(2);
});

test("happenings are kept once, newest first, until the coordinator is another one", () => {
  const model = new Model();
  model.apply(snapshot(0), NOW);

  model.addHappenings([happening(2), happening(1)]);
  model.apply({ type: "happened", seq: 1, happening: happening(3) }, NOW);
  model.addHappenings([happening(3), happening(2)]);

  expect(model.happenings.map((it) => it.number)).toEqual([3, 2, 1]);
  model.apply(snapshot(0, "two"), NOW);
  expect(model.happenings).toEqual([]);
});

test("an hour of ticks leaves nothing behind", () => {
  const model = new Model();
  model.apply(snapshot(0), NOW);

  for (let seq = 1; seq <= 3_600; seq += 1) {
    model.apply(tick(seq, [{ id: "id-of-a", in_flight: seq % 4 }]), NOW);
    model.addHappenings([happening(seq)]);
  }

  const { documents, loads } = model.takeNews();
  expect([documents.size, loads.size]).toEqual([2, 1]);
  expect(model.happenings.length).toBe(500);
});

test("an agent stays the same record while it is known, and its figures while no others are told", () => {
  const [model, members] = [new Model(), new Members()];
  const metrics = { gpu_percent: 7 };
  model.apply(snapshot(0), NOW);
  const before = drawn(model, members).get("id-of-a");

  model.apply(tick(1, [{ id: "id-of-a", in_flight: 4, metrics }]), NOW);
  const load = drawn(model, members).get("id-of-a")?.agent;
  model.apply(tick(2, [{ id: "id-of-a", in_flight: 1 }]), NOW);
  model.apply({ type: "agent_changed", seq: 3, agent: agentNamed("b", { notes: "x" }) }, NOW);
  const later = drawn(model, members).get("id-of-a");

  expect(later).toBe(before);
  expect(load).toMatchObject({ in_flight: 4, metrics });
  expect(later?.agent).toMatchObject({ in_flight: 1, metrics });
  expect(members.counts).toMatchObject({ ready: 2, busy: 0 });
});

test("a new snapshot takes away who is not in it", () => {
  const [model, members] = [new Model(), new Members()];
  model.apply(snapshot(0), NOW);
  const [gone] = drawn(model, members);
  const later = { ...snapshot(9), agents: [agentNamed("b")] } as FleetEvent;

  model.apply(later, NOW);

  expect([...drawn(model, members)].map(({ id }) => id)).toEqual(["id-of-b"]);
  expect(gone?.isGone).toBe(true);
});
