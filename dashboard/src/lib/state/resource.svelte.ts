/** Something fetched: shown while it is fetched again, and kept when that fails. */

import { messageOf } from "./toasts.svelte";
import { settings } from "./settings.svelte";

export class Resource<T> {
  data = $state.raw<T>();
  error = $state("");
  #turn = 0;

  constructor(readonly fetch: () => Promise<T>) {}

  async load(): Promise<void> {
    const turn = ++this.#turn;
    try {
      const data = await this.fetch();
      if (turn !== this.#turn) return;
      this.data = data;
      this.error = "";
    } catch (error) {
      if (turn === this.#turn) this.error = messageOf(error);
    }
  }
}

/**
 * Fetches when what `fetch` reads changes, and every so often while the page is seen.
 * For the initialisation of a component.
 */
export function resource<T>(fetch: () => Promise<T>, everyMs?: number): Resource<T> {
  const kept = new Resource(fetch);
  $effect(() => {
    void kept.load();
    if (everyMs === undefined) return;
    const timer = setInterval(() => {
      if (document.visibilityState === "visible" && !settings.isPaused) void kept.load();
    }, everyMs);
    return () => clearInterval(timer);
  });
  return kept;
}
