import { expect, test } from "vitest";
import { baseUrl, baseUrlForOthers, isLoopback, link, parseRoute } from "./place";

test.each([
  ["http://10.0.0.5:11400/", "http://10.0.0.5:11400"],
  ["https://box/fleet/#/agents?q=a", "https://box/fleet"],
  ["https://box/a/b/index.html?x=/y/", "https://box/a/b"],
])("clients of a page at %s use %s", (page, url) => {
  expect(baseUrl(page)).toBe(url);
});

test("localhost is never told to other machines", () => {
  const addresses = ["http://192.168.1.10:11400"];

  for (const host of ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"]) {
    const page = `http://${host}:11400/`;
    expect(isLoopback(page)).toBe(true);
    expect(baseUrlForOthers(page, addresses)).toBe(addresses[0]);
    expect(baseUrlForOthers(page, [])).toBeUndefined();
  }
  expect(baseUrlForOthers("https://box/fleet/", addresses)).toBe("https://box/fleet");
});

test("a link is read as it was written", () => {
  const href = link(["requests", "a/b ?#%"], { q: "room=101 x&y", empty: "" });

  const route = parseRoute(href);

  expect(route.parts).toEqual(["requests", "a/b ?#%"]);
  expect(Object.fromEntries(route.params)).toEqual({ q: "room=101 x&y" });
  expect(parseRoute("#/agents/%E0%A4%A").parts).toEqual(["agents", "%E0%A4%A"]);
});
