import { expect, test } from "vitest";
import type { Attempt, Request } from "./api/shapes";
import { drawn, smooth } from "./history";
import { labelsOf, labelText } from "./labels";
import { keyed, speedOf, timeline } from "./requests";
import { snippet } from "./snippets";

const choice = {
  policy: "least-loaded",
  reason: "only",
  queued_ms: 0,
  candidates: 1,
  considered: [],
};
const attempt = (changes: Partial<Attempt>): Attempt => ({
  agent_id: "a",
  agent_name: "a",
  started_after_ms: 0,
  duration_ms: 0,
  choice,
  ...changes,
});
const request = (changes: Partial<Request>): Request => ({
  id: "r",
  started_at: "2026-11-24T10:00:00Z",
  client: "127.0.0.1",
  has_key: false,
  method: "POST",
  path: "/api/chat",
  streamed: true,
  state: "ended",
  attempts: [],
  queue_ms: 0,
  duration_ms: 0,
  ...changes,
});

test("a request keeps its key while others with its id begin and end", () => {
  const [older, newer] = [request({ id: "same" }), request({ id: "same", state: "streaming" })];
  const again = { ...older, started_at: "2026-11-24T10:00:00.001Z" };

  const before = keyed([older, request({ id: "other" })]);
  const after = keyed([newer, again, request({ id: "other" })]);

  expect(after[1]?.key).toBe(before[0]?.key);
  expect(new Set(after.map(({ key }) => key)).size).toBe(3);
});

test("a request's time is told without a hole", () => {
  const pieces = timeline(
    request({
      duration_ms: 100,
      first_byte_ms: 60,
      attempts: [
        attempt({ started_after_ms: 10, duration_ms: 20, outcome: "broken" }),
        attempt({ started_after_ms: 30, duration_ms: 70, outcome: "success" }),
      ],
    }),
  );

  expect(pieces).toEqual([
    { kind: "queue", from: 0, to: 10 },
    { kind: "failed", from: 10, to: 30 },
    { kind: "wait", from: 30, to: 60 },
    { kind: "answer", from: 60, to: 100 },
  ]);
  expect(timeline(request({ duration_ms: 5 }))).toEqual([{ kind: "queue", from: 0, to: 5 }]);
});

test("speed is that of the answer, not of the wait", () => {
  const answered = { completion_tokens: 50, first_byte_ms: 1_000, duration_ms: 2_000 };

  expect(speedOf(request(answered))).toBe(50);
  expect(speedOf(request({ ...answered, streamed: false }))).toBe(25);
  expect(speedOf(request({}))).toBeUndefined();
});

test("a gap in the past stays a gap", () => {
  const past = drawn({
    step_ms: 2_000,
    length_ms: 600_000,
    end: "2026-11-24T10:00:10Z",
    series: { in_flight: [1, null, 3] },
  });

  const end = Date.parse("2026-11-24T10:00:10Z");
  expect(past.times).toEqual([end - 4_000, end - 2_000, end]);
  expect(past.series["in_flight"]).toEqual([1, null, 3]);
  expect(smooth([2, null, 4], 3)).toEqual([2, null, 3]);
  expect(drawn(undefined).times).toEqual([]);
});

test("labels are read as they were written", () => {
  const labels = { room: "101", gpu: "a=b", spare: "" };

  expect(labelsOf(`${labelText(labels)}\n\n  \n`)).toEqual(labels);
});

test("a snippet quotes what would end it", () => {
  const messages = [{ role: "user" as const, content: 'it\'s "x"' }];

  expect(snippet("curl", "http://h", "m", messages)).toContain("it'\\''s");
  expect(snippet("Python", "http://h", "m", messages)).toContain('"it\'s \\"x\\""');
  expect(snippet("JavaScript", "http://h/p", "m", messages)).toContain("http://h/p/v1/chat");
});
