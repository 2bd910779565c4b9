/** Something fetched: shown while it is fetched again, and kept when that fails. */

import { settings } from "./settings.svelte";

/** How often at most for those who want the page to move slowly. */
const SLOW = 5_000;

export class Resource<T> {
  data = $state.raw<T>();
  error = $state.raw<unknown>();
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
      this.error = undefined;
    } catch (error) {
      if (turn === this.#turn) this.error = error;
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
    const slowly = settings.rate === "slow" ? Math.max(everyMs, SLOW) : everyMs;
    const timer = setInterval(() => {
      if (document.visibilityState === "visible" && !settings.isPaused) void kept.load();
    }, slowly);
    return () => clearInterval(timer);
  });
  return kept;
}
