/** What the stream of events has told so far. Pure: events in, agents out. */

import type { Agent, Figures, FleetEvent, Happening, Load } from "./api/shapes";

/** What an event means for whoever shows the model. */
export type Effect = "none" | "changed" | "resync";

const HAPPENINGS = 500;

export class Model {
  agents = new Map<string, Agent>();
  figures: Figures | undefined;
  happenings: Happening[] = [];
  instance = "";
  version = "";
  /** The coordinator's clock minus this one's. */
  clockOffset = 0;
  #seq = -1;

  apply(event: FleetEvent, now: number): Effect {
    if (event.type === "resync") return "resync";
    if (event.type === "snapshot") {
      const isOtherRun = this.instance !== "" && this.instance !== event.instance_id;
      this.agents = new Map(event.agents.map((agent) => [agent.id, agent]));
      this.figures = event.fleet;
      this.instance = event.instance_id;
      this.version = event.version;
      this.clockOffset = Date.parse(event.server_time) - now;
      this.#seq = event.seq;
      if (isOtherRun) this.happenings = [];
      return "changed";
    }
    if (typeof event.seq !== "number") return "none";
    // A stream that goes on where another one was may tell the end of that once more.
    if (event.seq <= this.#seq) return "none";
    if (event.seq !== this.#seq + 1) return "resync";
    this.#seq = event.seq;
    switch (event.type) {
      case "agent_changed":
        this.agents.set(event.agent.id, event.agent);
        return "changed";
      case "agent_removed":
        this.agents.delete(event.id);
        return "changed";
      case "happened":
        this.addHappenings([event.happening]);
        return "changed";
      case "tick":
        this.clockOffset = Date.parse(event.server_time) - now;
        this.figures = event.fleet;
        for (const load of event.loads) this.#load(load);
        return "changed";
      default:
        // A type that this version does not know still has a number.
        return "none";
    }
  }

  /** Takes happenings, told or fetched, each once, newest first. */
  addHappenings(told: readonly Happening[]): void {
    const known = new Set(this.happenings.map((happening) => happening.number));
    const news = told.filter((happening) => !known.has(happening.number));
    if (news.length === 0) return;
    this.happenings = [...news, ...this.happenings]
      .sort((a, b) => b.number - a.number)
      .slice(0, HAPPENINGS);
  }

  #load(load: Load): void {
    const agent = this.agents.get(load.id);
    if (!agent) return;
    const metrics = load.metrics ?? agent.metrics ?? null;
    this.agents.set(load.id, { ...agent, in_flight: load.in_flight, metrics });
  }
}
