/** Downloads that somebody started here; they go on while other pages are shown. */

import { pullModel, type Progress } from "../api/client";
import type { Agent } from "../api/shapes";
import { nameOf } from "../agents";
import { t } from "../text";
import { messageOf, toasts } from "./toasts.svelte";

export class Pull {
  progress = $state.raw<Progress>({});
  #stop = new AbortController();

  constructor(
    readonly agentId: string,
    readonly agentName: string,
    readonly model: string,
  ) {}

  stop(): void {
    this.#stop.abort();
  }

  async run(): Promise<void> {
    const { model, agentName } = this;
    try {
      const told = (progress: Progress): void => void (this.progress = progress);
      await pullModel(this.agentId, model, told, this.#stop.signal);
      toasts.done(t.models.pulled(model, agentName));
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      toasts.failed(t.models.pullFailed(model, agentName, messageOf(error)));
    }
  }
}

class Pulls {
  list = $state<Pull[]>([]);

  async start(agent: Agent, model: string): Promise<void> {
    const pull = new Pull(agent.id, nameOf(agent), model);
    this.list = [...this.list, pull];
    await pull.run();
    this.list = this.list.filter((other) => other !== pull);
  }
}

export const pulls = new Pulls();
