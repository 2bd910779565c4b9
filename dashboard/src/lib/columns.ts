/** What the table of agents can show, and what it is sorted by. Pure. */

import { capacityOf, gpuOf, seenOf, STATES, vramOf, vramUsedOf } from "./agents";
import type { Agent } from "./api/shapes";
import { bytes, bytesOf, percent } from "./format";
import type { Member } from "./members";
import { sortable } from "./order";

export const COLUMNS = [
  "name",
  "state",
  "gpu",
  "vram",
  "load",
  "running",
  "models",
  "seen",
  "address",
  "link",
  "os",
  "cpu",
  "memory",
  "runtime",
  "agent",
  "labels",
] as const;
export type Column = (typeof COLUMNS)[number];

/** What is shown to those who have not chosen. */
export const USUAL: readonly Column[] = COLUMNS.slice(0, 8);

/** Reads which columns somebody has chosen; the name is always among them. */
export function columnsOf(chosen: string): readonly Column[] {
  if (!chosen) return USUAL;
  const names = new Set(chosen.split(","));
  return COLUMNS.filter((column) => column === "name" || names.has(column));
}

/** Writes it down as [`columnsOf`] reads it; nothing when it is what is usual. */
export function chosenOf(columns: readonly Column[]): string {
  return columns.join() === USUAL.join() ? "" : columns.join();
}

export type Key = number | string;

/** What rows are compared by. */
export const KEYS: Record<Column, (member: Member) => Key> = {
  name: (member) => member.name,
  state: (member) => STATES.indexOf(member.state),
  gpu: (member) => sortable(member.text("gpu")),
  vram: ({ document }) => vramOf(document) ?? 0,
  load: ({ load }) => load.metrics?.gpu_percent ?? -1,
  running: ({ load }) => load.in_flight,
  models: ({ document }) => document.models.length,
  seen: ({ document }) => seenOf(document),
  address: ({ document }) => sortable(document.ip_address),
  link: ({ document }) => document.link ?? "",
  os: (member) => sortable(member.text("os")),
  cpu: ({ load }) => load.metrics?.cpu_percent ?? -1,
  memory: ({ load }) => load.metrics?.memory_used_bytes ?? -1,
  runtime: ({ document }) => sortable(document.runtime.version ?? ""),
  agent: ({ document }) => sortable(document.agent_version ?? ""),
  labels: ({ document }) => sortable(labels(document)),
};

/** What a cell says; the state has its sign and the time its clock, so they are not among these. */
export const CELLS: Record<Exclude<Column, "name" | "state" | "seen">, (agent: Agent) => string> = {
  gpu: gpuOf,
  vram: (agent) => bytesOf(vramUsedOf(agent), vramOf(agent)),
  load: (agent) => percent(agent.metrics?.gpu_percent),
  running: (agent) => `${agent.in_flight} / ${capacityOf(agent)}`,
  models: (agent) => `${agent.models.length}`,
  address: (agent) => `${agent.ip_address}:${agent.port}`,
  link: (agent) => agent.link ?? "",
  os: (agent) => agent.system_info?.os ?? "",
  cpu: (agent) => percent(agent.metrics?.cpu_percent),
  memory: (agent) => bytes(agent.metrics?.memory_used_bytes),
  runtime: (agent) => agent.runtime.version ?? "",
  agent: (agent) => agent.agent_version ?? "",
  labels,
};

function labels(agent: Agent): string {
  return Object.entries(agent.labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}
