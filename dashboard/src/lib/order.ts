/** Orders for people. Pure. */

/** What names are compared by: numbers in them count as numbers. A collator is far slower. */
export function sortable(name: string): string {
  return name.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));
}

export const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export const byName = (a: string, b: string): number => compare(sortable(a), sortable(b));

/** Puts some into their places among others; both are in order already. */
export function merged<T>(
  some: readonly T[],
  others: readonly T[],
  by: (a: T, b: T) => number,
): T[] {
  const all: T[] = [];
  let at = 0;
  for (const one of some) {
    for (let other = others[at]; other !== undefined && by(other, one) <= 0; other = others[at]) {
      all.push(other);
      at += 1;
    }
    all.push(one);
  }
  return all.concat(others.slice(at));
}
