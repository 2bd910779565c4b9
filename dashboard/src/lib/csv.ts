/** Tables for spreadsheets. Pure. */

type Cell = string | number | null | undefined;

/** Such a beginning would make a spreadsheet compute something that a machine's name says. */
const FORMULA = /^[=+\-@\t\r]/;

function quoted(cell: Cell): string {
  const text = String(cell ?? "");
  const safe = typeof cell === "string" && FORMULA.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

export function csvOf(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  return [head, ...rows].map((row) => row.map(quoted).join(",")).join("\n");
}
