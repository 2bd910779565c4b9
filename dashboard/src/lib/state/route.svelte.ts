/** Which page is shown: the part of the URL after `#`, so that any prefix before it works. */

import { link, parseRoute, type Route } from "../place";

const WRITE_AFTER = 100;

class Router {
  #route = $state.raw<Route>(parseRoute(location.hash));
  #unwritten = "";

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
    this.#unwritten = this.#change(params);
    this.#write(location.hash);
  }

  /** The same with each letter that is typed: the URL, for which browsers take their time, follows. */
  type(params: Record<string, string>): void {
    const from = location.hash;
    if (!this.#unwritten) setTimeout(() => this.#write(from), WRITE_AFTER);
    this.#unwritten = this.#change(params);
  }

  #change(params: Record<string, string>): string {
    const hash = link(this.#route.parts, { ...Object.fromEntries(this.#route.params), ...params });
    this.#route = parseRoute(hash);
    return hash;
  }

  #write(from: string): void {
    if (this.#unwritten && location.hash === from) history.replaceState(null, "", this.#unwritten);
    this.#unwritten = "";
  }

  start(): void {
    window.addEventListener("hashchange", () => {
      this.#unwritten = "";
      this.#route = parseRoute(location.hash);
    });
  }
}

export const route = new Router();
