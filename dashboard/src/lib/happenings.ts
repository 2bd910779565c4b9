/** What a happening means. Pure. */

import type { Happening } from "./api/shapes";

const PROBLEMS: ReadonlySet<Happening["kind"]> = new Set<Happening["kind"]>([
  "expired",
  "heartbeats_missing",
  "refused",
  "endpoint_shared",
  "isolation_suspected",
]);

/** Reasons for which an agent gets no requests without anything being wrong. */
const HARMLESS = new Set(["draining", "paused", "unverified"]);

export function isProblem(happening: Happening): boolean {
  if (happening.kind === "not_routable") return !HARMLESS.has(happening.reason ?? "");
  return PROBLEMS.has(happening.kind);
}
