/** Something fetched: shown while it is fetched again, and kept when that fails. */

import { messageOf } from "./toasts.svelte";
import { settings } from "./settings.svelte";

export class Resource<T> {
  data = $state.raw<T>();
  error = $state("");
  #turn = 0;

  /** `fetch` returns nothing when there is nothing to ask for, as on a page that is being left. */
  constructor(readonly fetch: () => Promise<T> | undefined) {}

  async load(): Promise<void> {
    const turn = ++this.#turn;
    try {
      const asked = this.fetch();
      if (!asked) return;
      const data = await asked;
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
export function resource<T>(fetch: () => Promise<T> | undefined, everyMs?: number): Resource<T> {
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
