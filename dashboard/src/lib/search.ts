/** What the search finds: pages, machines and models, by a part of their names. Pure. */

import { modelsOf, nameOf } from "./agents";
import type { Agent } from "./api/shapes";
import { link } from "./place";

export interface Found {
  kind: "page" | "machine" | "model";
  name: string;
  href: string;
}

const MOST = 12;

/** Names that begin with what is looked for come first. */
export function search(
  text: string,
  pages: readonly (readonly [string, string])[],
  agents: readonly Agent[],
): Found[] {
  const wanted = text.normalize("NFKC").trim().toLowerCase();
  const all: Found[] = [
    ...pages.map(([page, name]) => ({
      kind: "page" as const,
      name,
      href: link(page ? [page] : []),
    })),
    ...agents.map((agent) => ({
      kind: "machine" as const,
      name: nameOf(agent),
      href: link(["agents", agent.id]),
    })),
    ...modelsOf(agents).map(({ name }) => ({
      kind: "model" as const,
      name,
      href: link(["models"], { q: name }),
    })),
  ];
  const places = all.map((found) => ({ found, at: found.name.toLowerCase().indexOf(wanted) }));
  const hits = places.filter(({ at }) => at >= 0);
  hits.sort((a, b) => Number(a.at > 0) - Number(b.at > 0));
  return hits.slice(0, MOST).map(({ found }) => found);
}
