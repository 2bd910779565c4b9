/** What the stream of events has told. Pure: events in, news out for whoever draws them. */

import type { Agent, Figures, FleetEvent, Happening, Load } from "./api/shapes";
import { loadAfter, type News } from "./members";

/** What an event means for whoever shows the model. */
export type Effect = "none" | "changed" | "resync";

const HAPPENINGS = 500;

export class Model {
  #documents = new Map<string, Agent | undefined>();
  #loads = new Map<string, Load>();
  #isWhole = false;
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
      this.#documents = new Map(event.agents.map((agent) => [agent.id, agent]));
      this.#loads.clear();
      this.#isWhole = true;
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
        this.#documents.set(event.agent.id, event.agent);
        this.#loads.delete(event.agent.id);
        return "changed";
      case "agent_removed":
        this.#documents.set(event.id, undefined);
        this.#loads.delete(event.id);
        return "changed";
      case "happened":
        this.addHappenings([event.happening]);
        return "changed";
      case "tick":
        this.clockOffset = Date.parse(event.server_time) - now;
        this.figures = event.fleet;
        for (const load of event.loads) {
          this.#loads.set(load.id, loadAfter(this.#loads.get(load.id), load));
        }
        return "changed";
      default:
        // A type that this version does not know still has a number.
        return "none";
    }
  }

  /** Returns what has come since this was asked last. */
  takeNews(): News {
    const news = { documents: this.#documents, loads: this.#loads, isWhole: this.#isWhole };
    this.#documents = new Map();
    this.#loads = new Map();
    this.#isWhole = false;
    return news;
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
}
