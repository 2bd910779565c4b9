/** Single-key shortcuts: never while somebody types, and only if they are wanted. */

import { link } from "./place";
import { fleet } from "./state/fleet.svelte";
import { route } from "./state/route.svelte";
import { settings } from "./state/settings.svelte";

const PAGES: Record<string, string> = {
  o: "",
  a: "agents",
  m: "models",
  r: "requests",
  p: "play",
  e: "events",
};

let goesTo = 0;
const GO_WITHIN = 1_500;

export function shortcuts(event: KeyboardEvent): void {
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    route.set({ search: "1" });
    return;
  }
  const isChord = event.ctrlKey || event.metaKey || event.altKey;
  if (!settings.shortcuts || isChord || event.isComposing || isTyping(event.target)) return;
  const page = PAGES[event.key];
  if (Date.now() - goesTo < GO_WITHIN && page !== undefined) {
    goesTo = 0;
    location.hash = link(page ? [page] : []);
    return;
  }
  goesTo = 0;
  switch (event.key) {
    case "g":
      goesTo = Date.now();
      break;
    case "p":
      if (settings.isPaused) fleet.resume();
      else settings.isPaused = true;
      break;
    case "/":
      event.preventDefault();
      document.querySelector<HTMLElement>("[data-filter]")?.focus();
      break;
    case "s":
      document.querySelector<HTMLElement>("[data-apply-order]")?.click();
      break;
    case "j":
      step(1);
      break;
    case "k":
      step(-1);
      break;
    case "x":
      rowOf(document.activeElement)?.querySelector<HTMLElement>("input")?.click();
      break;
    case "?":
      location.hash = link(["settings"]);
      break;
  }
}

const rowOf = (element: Element | null): Element | null => element?.closest("[data-row]") ?? null;

/** Goes to the next row of a table, or to the first one. */
function step(by: 1 | -1): void {
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.findIndex((row) => row === rowOf(document.activeElement));
  rows[at < 0 ? 0 : at + by]?.querySelector("a")?.focus();
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement && target.type === "checkbox") return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}
