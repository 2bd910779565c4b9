/** Figures of the past, made ready to be drawn. Pure. */

import type { History } from "./api/shapes";

export interface Drawn {
  times: number[];
  series: Record<string, (number | null)[]>;
}

export function drawn(history: History | undefined): Drawn {
  if (!history?.end) return { times: [], series: {} };
  const end = Date.parse(history.end);
  const length = Math.max(0, ...Object.values(history.series).map((values) => values.length));
  const times = Array.from({ length }, (_, row) => end - (length - 1 - row) * history.step_ms);
  const series: Drawn["series"] = {};
  for (const [name, values] of Object.entries(history.series)) {
    series[name] = values.map((value) => value ?? null);
  }
  return { times, series };
}

/** The mean of the last few values; what is unknown stays so. */
export function smooth(values: readonly (number | null)[], window: number): (number | null)[] {
  return values.map((value, index) => {
    if (value === null) return null;
    const known = values
      .slice(Math.max(0, index - window + 1), index + 1)
      .filter((it) => it !== null);
    return known.reduce((sum, it) => sum + it, 0) / known.length;
  });
}
