/** What an agent's document means: its state, its order, whether a filter takes it. Pure. */

import type { Agent } from "./api/shapes";

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

export function stateOf(agent: Agent): State {
  if (agent.status === "offline") return "offline";
  if (agent.draining) return "draining";
  if (agent.reason === "paused") return "paused";
  if (agent.routable) return agent.in_flight >= capacityOf(agent) ? "busy" : "ready";
  return agent.reason === "unverified" ? "starting" : "troubled";
}

export function countStates(agents: Iterable<Agent>): Record<State, number> {
  const counts = {
    ready: 0,
    busy: 0,
    starting: 0,
    draining: 0,
    paused: 0,
    troubled: 0,
    offline: 0,
  };
  for (const agent of agents) counts[stateOf(agent)] += 1;
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
  if (!gpus) return "";
  const counts = new Map<string, number>();
  for (const gpu of gpus) {
    const name = gpu.name.replace(/^NVIDIA (GeForce )?|^AMD /, "");
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, n]) => (n > 1 ? `${n}× ${name}` : name)).join(", ");
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

export const COLUMNS = [
  "name",
  "state",
  "gpu",
  "vram",
  "load",
  "running",
  "models",
  "seen",
] as const;
export type Column = (typeof COLUMNS)[number];

const KEYS: Record<Column, (agent: Agent) => number | string> = {
  name: nameOf,
  state: (agent) => STATES.indexOf(stateOf(agent)),
  gpu: gpuOf,
  vram: (agent) => vramOf(agent) ?? 0,
  load: (agent) => agent.metrics?.gpu_percent ?? -1,
  running: (agent) => agent.in_flight,
  models: (agent) => agent.models.length,
  seen: seenOf,
};

/** The most names whose order is remembered. */
const MOST_NAMES = 50_000;
const keys = new Map<string, string>();

/** What names are compared by: numbers in them count as numbers. A collator is far slower. */
function nameKey(name: string): string {
  const known = keys.get(name);
  if (known !== undefined) return known;
  const key = name.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));
  if (keys.size >= MOST_NAMES) keys.clear();
  keys.set(name, key);
  return key;
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
const byName = (a: string, b: string): number => compare(nameKey(a), nameKey(b));

export function sorted(agents: readonly Agent[], column: Column, isDescending: boolean): Agent[] {
  const sign = isDescending ? -1 : 1;
  const keyed = agents.map((agent) => {
    const key = KEYS[column](agent);
    const sortable = typeof key === "number" ? key : nameKey(key);
    return { agent, key: sortable, name: nameKey(nameOf(agent)) };
  });
  keyed.sort((a, b) => {
    const order =
      typeof a.key === "number" && typeof b.key === "number"
        ? a.key - b.key
        : compare(String(a.key), String(b.key));
    return sign * order || compare(a.name, b.name) || (a.agent.id < b.agent.id ? -1 : 1);
  });
  return keyed.map(({ agent }) => agent);
}

/** Keeps rows where they are: those that are gone leave, new ones come last. */
export function frozen(order: readonly string[], wanted: readonly Agent[]): Agent[] {
  const left = new Map(wanted.map((agent) => [agent.id, agent]));
  const kept: Agent[] = [];
  for (const id of order) {
    const agent = left.get(id);
    if (agent && left.delete(id)) kept.push(agent);
  }
  return [...kept, ...left.values()];
}

type Test = (agent: Agent) => boolean;

/** Reads `gpu:a6000 -state:ready room=101 text`: all of it must hold. */
export function filterOf(query: string): Test {
  const tests = query.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean).map(testOf);
  return (agent) => tests.every((test) => test(agent));
}

function testOf(word: string): Test {
  if (word.startsWith("-") && word.length > 1) {
    const test = testOf(word.slice(1));
    return (agent) => !test(agent);
  }
  const colon = word.indexOf(":");
  const key = colon > 0 ? word.slice(0, colon) : "";
  const has = (text: string | null | undefined, part: string): boolean =>
    text != null && text.toLowerCase().includes(part);
  const value = word.slice(colon + 1);
  switch (key) {
    case "state":
      return (agent) => stateOf(agent).startsWith(value) || has(troubleOf(agent), value);
    case "gpu":
      return (agent) => has(gpuOf(agent), value);
    case "model":
      return (agent) => agent.models.some((model) => has(model.name, value));
    case "loaded":
      return (agent) => agent.loaded_models.some((model) => has(model.name, value));
    case "os":
      return (agent) => has(agent.system_info?.os, value);
    case "version":
      return (agent) => has(agent.ollama_version, value) || has(agent.agent_version, value);
    default:
      return labelOrText(word, has);
  }
}

function labelOrText(
  word: string,
  has: (text: string | null | undefined, part: string) => boolean,
): Test {
  const [label = "", value] = word.split("=", 2);
  if (value !== undefined) {
    return (agent) =>
      Object.entries(agent.labels).some(
        ([key, known]) => key.toLowerCase() === label && known.toLowerCase() === value,
      );
  }
  return (agent) =>
    has(agent.display_name, word) ||
    has(agent.machine_name, word) ||
    has(agent.ip_address, word) ||
    has(gpuOf(agent), word) ||
    Object.entries(agent.labels).some(([key, known]) => has(`${key}=${known}`, word));
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
export function grouped(
  agents: readonly Agent[],
  label: string,
): { name: string; agents: Agent[] }[] {
  const groups = new Map<string, Agent[]>();
  for (const agent of agents) {
    const name = agent.labels[label] ?? "";
    const members = groups.get(name);
    if (members) members.push(agent);
    else groups.set(name, [agent]);
  }
  return [...groups]
    .map(([name, members]) => ({ name, agents: members }))
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
