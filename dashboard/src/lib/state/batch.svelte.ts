/** The same thing done to many machines, a few at a time; it can be stopped on the way. */

import type { Agent } from "../api/shapes";

const AT_ONCE = 8;

export class Batch {
  succeeded = $state(0);
  failed = $state(0);
  readonly all: number;
  #left: Agent[];

  constructor(
    agents: readonly Agent[],
    private readonly action: (agent: Agent) => Promise<void>,
  ) {
    this.#left = [...agents];
    this.all = agents.length;
  }

  /** Begins no further one; what has begun ends. */
  stop(): void {
    this.#left = [];
  }

  async run(): Promise<void> {
    await Promise.all(Array.from({ length: AT_ONCE }, () => this.#work()));
  }

  async #work(): Promise<void> {
    for (let agent = this.#left.shift(); agent; agent = this.#left.shift()) {
      try {
        await this.action(agent);
        this.succeeded += 1;
      } catch {
        this.failed += 1;
      }
    }
  }
}
