/** Single-key shortcuts: never while somebody types, and only if they are wanted. */

import { link } from "./place";
import { fleet } from "./state/fleet.svelte";
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
    case "?":
      location.hash = link(["settings"]);
      break;
  }
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}
