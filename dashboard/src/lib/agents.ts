/** What an agent's document means, and what many of them have in common. Pure. */

import type { Agent } from "./api/shapes";
import { byName } from "./order";

export type State = "ready" | "busy" | "starting" | "draining" | "paused" | "troubled" | "offline";

/** From what needs a person to what does not. */
export const STATES: readonly State[] = [
  "offline",
  "troubled",
  "starting",
  "draining",
  "paused",
  "busy",
  "ready",
];

/** What the coordinator assumes when a runtime does not tell. */
const CAPACITY = { ollama: 4, openai: 16 } as const;

export function nameOf(agent: Agent): string {
  return agent.display_name ?? agent.machine_name;
}

export function capacityOf(agent: Agent): number {
  const { kind } = agent.runtime;
  return agent.capacity ?? (kind === "openai" ? CAPACITY.openai : CAPACITY.ollama);
}

export function stateOf(agent: Agent, inFlight = agent.in_flight): State {
  if (agent.status === "offline") return "offline";
  if (agent.draining) return "draining";
  if (agent.reason === "paused") return "paused";
  if (agent.routable) return inFlight >= capacityOf(agent) ? "busy" : "ready";
  return agent.reason === "unverified" ? "starting" : "troubled";
}

/** How many agents are in which state. */
export type Counts = Record<State, number>;

export function countStates(members: Iterable<{ state: State }>): Counts {
  const counts = {
    ready: 0,
    busy: 0,
    starting: 0,
    draining: 0,
    paused: 0,
    troubled: 0,
    offline: 0,
  };
  for (const { state } of members) counts[state] += 1;
  return counts;
}

/** What is wrong with an agent, or only unusual, as a code. */
export function troubleOf(agent: Agent): string | undefined {
  return agent.reason ?? agent.warning ?? undefined;
}

/** When an agent was heard of; one that is online is heard of all the time. */
export function seenOf(agent: Agent): number {
  return agent.status === "online" ? Number.POSITIVE_INFINITY : Date.parse(agent.last_seen);
}

export function gpuOf(agent: Agent): string {
  const gpus = agent.system_info?.gpus;
  const [only, other] = gpus ?? [];
  if (!gpus || !only) return "";
  if (!other) return shortGpu(only.name);
  const counts = new Map<string, number>();
  for (const gpu of gpus) counts.set(gpu.name, (counts.get(gpu.name) ?? 0) + 1);
  let text = "";
  for (const [name, n] of counts) {
    text += `${text ? ", " : ""}${n > 1 ? `${n}× ` : ""}${shortGpu(name)}`;
  }
  return text;
}

/** Kinds of GPUs are few, machines may be many. */
const MOST_KINDS = 1_000;
const short = new Map<string, string>();

function shortGpu(name: string): string {
  const known = short.get(name);
  if (known !== undefined) return known;
  if (short.size >= MOST_KINDS) short.clear();
  const made = name.replace(/^NVIDIA (GeForce )?|^AMD /, "");
  short.set(name, made);
  return made;
}

/** All memory of the GPUs, when each tells. */
export function vramOf(agent: Agent): number | undefined {
  let total = 0;
  for (const gpu of agent.system_info?.gpus ?? []) {
    if (gpu.memory_bytes == null) return undefined;
    total += gpu.memory_bytes;
  }
  return total || undefined;
}

/** Used memory of the GPUs: measured, else what the models in memory take. */
export function vramUsedOf(agent: Agent): number | undefined {
  const measured = agent.metrics?.gpu_memory_used_bytes;
  if (measured != null) return measured;
  const sizes = agent.loaded_models.map((model) => model.size_vram ?? 0);
  return sizes.length > 0 ? sizes.reduce((sum, size) => sum + size, 0) : undefined;
}

/** The most groups that are shown apart. */
const MOST_GROUPS = 60;

/** The keys of labels that tell machines apart, in groups that can be looked at. */
export function labelsIn(agents: Iterable<Agent>): string[] {
  const values = new Map<string, Set<string>>();
  for (const agent of agents) {
    for (const [key, value] of Object.entries(agent.labels)) {
      const known = values.get(key) ?? new Set();
      if (known.size <= MOST_GROUPS) known.add(value);
      values.set(key, known);
    }
  }
  const usable = [...values].filter(([, known]) => known.size <= MOST_GROUPS);
  return usable.map(([key]) => key).sort(byName);
}

/** Machines by the value of a label; those without it come last, under an empty name. */
export function grouped<T extends { document: Agent }>(
  all: readonly T[],
  label: string,
): { name: string; members: readonly T[] }[] {
  const groups = new Map<string, T[]>();
  for (const one of all) {
    const name = one.document.labels[label] ?? "";
    const members = groups.get(name);
    if (members) members.push(one);
    else groups.set(name, [one]);
  }
  return [...groups]
    .map(([name, members]) => ({ name, members }))
    .sort((a, b) => Number(a.name === "") - Number(b.name === "") || byName(a.name, b.name));
}

/** One model and where it is. */
export interface ModelPlace {
  name: string;
  size: number | undefined;
  agents: Agent[];
  loadedOn: Agent[];
}

export function modelsOf(agents: Iterable<Agent>): ModelPlace[] {
  const places = new Map<string, ModelPlace>();
  for (const agent of agents) {
    const loaded = new Set(agent.loaded_models.map((model) => model.name));
    for (const model of agent.models) {
      const known = places.get(model.name);
      const place = known ?? { name: model.name, size: undefined, agents: [], loadedOn: [] };
      place.size ??= model.size ?? undefined;
      place.agents.push(agent);
      if (loaded.has(model.name)) place.loadedOn.push(agent);
      places.set(model.name, place);
    }
  }
  return [...places.values()].sort((a, b) => byName(a.name, b.name));
}
