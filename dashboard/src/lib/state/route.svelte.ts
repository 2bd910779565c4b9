/** Which page is shown: the part of the URL after `#`, so that any prefix before it works. */

import { link, parseRoute, type Route } from "../place";

class Router {
  #route = $state.raw<Route>(parseRoute(location.hash));

  get page(): string {
    return this.#route.parts[0] ?? "";
  }

  get id(): string {
    return this.#route.parts[1] ?? "";
  }

  param(name: string): string {
    return this.#route.params.get(name) ?? "";
  }

  /** Changes parameters in place: nothing to go back to. */
  set(params: Record<string, string>): void {
    const all = { ...Object.fromEntries(this.#route.params), ...params };
    history.replaceState(null, "", link(this.#route.parts, all));
    this.#route = parseRoute(location.hash);
  }

  start(): void {
    window.addEventListener("hashchange", () => {
      this.#route = parseRoute(location.hash);
    });
  }
}

export const route = new Router();
