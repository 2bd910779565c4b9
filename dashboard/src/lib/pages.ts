/** The pages that the navigation leads to, and their names. */

import { t } from "./text";

export const PAGES = [
  ["", t.nav.overview],
  ["agents", t.nav.agents],
  ["models", t.nav.models],
  ["requests", t.nav.requests],
  ["play", t.nav.play],
  ["events", t.nav.events],
  ["settings", t.nav.settings],
] as const;
