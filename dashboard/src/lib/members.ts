/**
 * The agents as they were drawn last. Each has one lasting record, so that a list of thousands keeps its
 * places, and a tick touches only those that it tells of. Pure.
 */

import { countStates, gpuOf, nameOf, stateOf, type State } from "./agents";
import type { Agent, Load } from "./api/shapes";
import { sortable } from "./order";

/** What has come since it was drawn last. */
export interface News {
  /** Agents that are new or have changed; nothing instead of one that was forgotten. */
  documents: ReadonlyMap<string, Agent | undefined>;
  /** What came after those. */
  loads: ReadonlyMap<string, Load>;
  /** The documents are all that there are. */
  isWhole: boolean;
}

/** Figures that are not told again stay as they were. */
export function loadAfter(before: Load | undefined, load: Load): Load {
  const metrics = load.metrics ?? before?.metrics;
  return load.metrics || !metrics ? load : { ...load, metrics };
}

/** In what words are looked for. */
export type Field = "any" | "gpu" | "model" | "loaded" | "os" | "version";

/** One agent, for as long as it is known. */
export class Member {
  /** Everything about it, with the load of the time when something else changed. */
  document: Agent;
  load: Load;
  state: State;
  /** The draw with which it came, and the one that changed it last. */
  readonly joinedAt: number;
  changedAt: number;
  isGone = false;
  #agent: Agent | undefined;
  #name: string | undefined;
  #texts: Partial<Record<Field, string>> = {};

  constructor(document: Agent, draw: number) {
    this.document = document;
    this.load = document;
    this.state = stateOf(document);
    this.joinedAt = draw;
    this.changedAt = draw;
  }

  get id(): string {
    return this.document.id;
  }

  /** Everything about it by now: made for those who are shown, and another one after each change. */
  get agent(): Agent {
    const { in_flight, metrics = null } = this.load;
    return (this.#agent ??= { ...this.document, in_flight, metrics });
  }

  /** By what its name is compared. */
  get name(): string {
    return (this.#name ??= sortable(nameOf(this.document)));
  }

  /** What is looked through, in lower case: made when it is asked for first. */
  text(field: Field): string {
    return (this.#texts[field] ??= TEXTS[field](this.document).toLowerCase());
  }

  become(document: Agent, draw: number): void {
    this.document = document;
    this.load = document;
    this.#name = undefined;
    this.#texts = {};
    this.carry(document, draw);
  }

  carry(load: Load, draw: number): void {
    this.load = loadAfter(this.load, load);
    this.state = stateOf(this.document, load.in_flight);
    this.changedAt = draw;
    this.#agent = undefined;
  }
}

const lines = (texts: readonly (string | null | undefined)[]): string =>
  texts.filter((text) => text != null).join("\n");

const TEXTS: Record<Field, (agent: Agent) => string> = {
  any: (agent) => {
    const { display_name, machine_name, ip_address, labels } = agent;
    let text = `${display_name ?? ""}\n${machine_name}\n${ip_address}\n${gpuOf(agent)}`;
    for (const key of Object.keys(labels)) text += `\n${key}=${labels[key] ?? ""}`;
    return text;
  },
  gpu: gpuOf,
  model: (agent) => lines(agent.models.map((model) => model.name)),
  loaded: (agent) => lines(agent.loaded_models.map((model) => model.name)),
  os: (agent) => agent.system_info?.os ?? "",
  version: (agent) => lines([agent.ollama_version, agent.agent_version]),
};

/** All of them. */
export class Members {
  /** How many are in which state. */
  readonly counts = countStates([]);
  /** How often they were drawn. */
  draws = 0;
  /** The draw that changed more than load last, and the one with which somebody came or went. */
  editedAt = 0;
  movedAt = 0;
  #byId = new Map<string, Member>();

  get size(): number {
    return this.#byId.size;
  }

  get(id: string): Member | undefined {
    return this.#byId.get(id);
  }

  [Symbol.iterator](): Iterator<Member> {
    return this.#byId.values();
  }

  draw({ documents, loads, isWhole }: News): void {
    this.draws += 1;
    if (documents.size > 0 || isWhole) this.editedAt = this.draws;
    for (const [id, document] of documents) {
      if (document) this.#take(document);
      else this.#remove(id);
    }
    if (isWhole) {
      for (const id of this.#byId.keys()) if (!documents.has(id)) this.#remove(id);
    }
    for (const load of loads.values()) this.#carry(load);
  }

  #take(document: Agent): void {
    const known = this.#byId.get(document.id);
    if (known) this.counts[known.state] -= 1;
    const member = known ?? new Member(document, this.draws);
    if (known) known.become(document, this.draws);
    else {
      this.#byId.set(document.id, member);
      this.movedAt = this.draws;
    }
    this.counts[member.state] += 1;
  }

  #carry(load: Load): void {
    const member = this.#byId.get(load.id);
    if (!member) return;
    this.counts[member.state] -= 1;
    member.carry(load, this.draws);
    this.counts[member.state] += 1;
  }

  #remove(id: string): void {
    const member = this.#byId.get(id);
    if (!member) return;
    this.counts[member.state] -= 1;
    member.isGone = true;
    this.#byId.delete(id);
    this.movedAt = this.draws;
  }
}
