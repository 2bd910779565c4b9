/** Where pages and the coordinator are, as seen from whoever looks. Pure. */

/** A route of the dashboard: `#/agents/ID?q=…`. */
export interface Route {
  parts: string[];
  params: URLSearchParams;
}

export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decode);
  return { parts, params: new URLSearchParams(query) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function link(parts: readonly string[], params: Record<string, string> = {}): string {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== ""));
  const path = parts.map(encodeURIComponent).join("/");
  return `#/${path}${query.size > 0 ? `?${query}` : ""}`;
}

/** The URL that clients use: where this page came from, without what names the page. */
export function baseUrl(page: string): string {
  const url = new URL(page);
  const path = url.pathname.replace(/[^/]*$/, "").replace(/\/$/, "");
  return `${url.origin}${path}`;
}

export function isLoopback(page: string): boolean {
  const host = new URL(page).hostname;
  return (
    host === "localhost" || host === "[::1]" || /^127\./.test(host) || host.endsWith(".localhost")
  );
}

/** The URL that other machines use; nothing when none can. */
export function baseUrlForOthers(page: string, addresses: readonly string[]): string | undefined {
  return isLoopback(page) ? addresses[0] : baseUrl(page);
}
