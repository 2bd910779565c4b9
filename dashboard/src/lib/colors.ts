/** What a colour token is now. Canvases do not know tokens, nor that each has a light and a dark side. */
export function colorOf(host: HTMLElement, token: string): string {
  const before = host.style.color;
  host.style.color = `var(${token})`;
  const { color } = getComputedStyle(host);
  host.style.color = before;
  return color;
}
