/** Labels as text, one per line. Pure. */

export function labelText(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => (value ? `${key}=${value}` : key))
    .join("\n");
}

export function labelsOf(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const [key = "", ...value] = line.trim().split("=");
    if (key.trim()) labels[key.trim()] = value.join("=").trim();
  }
  return labels;
}
