/** Numbers, sizes and times for people. Pure. */

const UNITS = ["B", "KB", "MB", "GB", "TB"] as const;

export function bytes(value: number | null | undefined): string {
  if (value == null) return "–";
  let unit = 0;
  let amount = value;
  while (amount >= 1000 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || amount >= 100 ? 0 : 1;
  return `${amount.toFixed(digits)} ${UNITS[unit] ?? ""}`;
}

/** Both sides of a fraction in the unit of the larger one: `18.2 / 24.0 GB`. */
export function bytesOf(used: number | null | undefined, total: number | null | undefined): string {
  if (total == null) return bytes(used);
  if (used == null) return bytes(total);
  const [amount = "", unit = ""] = bytes(total).split(" ");
  const factor = 1024 ** Math.max(0, (UNITS as readonly string[]).indexOf(unit));
  return `${(used / factor).toFixed(1)} / ${amount} ${unit}`;
}

export function percent(value: number | null | undefined): string {
  return value == null ? "–" : `${Math.round(value)} %`;
}

/** A part of a whole, 0 to 1; nothing when one of them is unknown. */
export function share(
  part: number | null | undefined,
  whole: number | undefined,
): number | undefined {
  return part == null || !whole ? undefined : part / whole;
}

export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** A number that moves: one digit while it is small. */
export function rate(value: number | null | undefined): string {
  if (value == null) return "–";
  return value >= 10 || value === 0 ? count(Math.round(value)) : value.toFixed(1);
}

export function millis(value: number | null | undefined): string {
  if (value == null) return "–";
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 60_000) return `${(value / 1000).toFixed(value < 10_000 ? 2 : 1)} s`;
  return duration(value);
}

/** How long, in its largest unit or two. */
export function duration(value: number): string {
  const seconds = Math.max(0, Math.round(value / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** How long ago, without false precision. */
export function ago(then: number, now: number, justNow: string): string {
  const passed = now - then;
  return passed < 3_000 ? justNow : duration(passed);
}

export function timeOfDay(at: number): string {
  return new Date(at).toLocaleTimeString("en-GB");
}

export function moment(at: number): string {
  const date = new Date(at);
  const day = date.toLocaleDateString("en-CA");
  return `${day} ${timeOfDay(at)}`;
}
