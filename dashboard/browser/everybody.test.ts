/** For everybody: keyboards, screen readers, phones, both themes; and against hostile names. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Agent, Request } from "../src/lib/api/shapes";
import { ToldFleet } from "./fixture";
import {
  CHROMIUM,
  Coordinator,
  LAN_NAME,
  Machine,
  openBrowser,
  openPage,
  Stage,
  until,
} from "./support";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const HOSTILE = '<img src=x onerror="window.pwned=1">';
/** Such names are refused, and the refusal shows them. */
const BIDI = "\u202egpu-\u2066evil\u2069";

const stage = new Stage();
let coordinator: Coordinator;
let pages: string[] = [];

beforeAll(async () => {
  if (!CHROMIUM) return;
  coordinator = await Coordinator.start(stage);
  await Machine.start(stage, coordinator, "gpu-1");
  await coordinator.post("/api/agents", { machine_name: HOSTILE, ip_address: "10.255.0.1" });
  await coordinator.post("/api/agents", { machine_name: BIDI, ip_address: "10.255.0.2" });
  await coordinator.post("/api/agents", {
    machine_name: "x".repeat(200),
    ip_address: "10.255.0.3",
  });
  await coordinator.post("/api/agents", { machine_name: "no", ip_address: "169.254.169.254" });
  const agents = await until(
    () => coordinator.get<Agent[]>("/api/agents"),
    (seen) => seen.some((agent) => agent.routable),
  );
  const question = { model: "simulated-small", messages: [{ role: "user", content: "hi" }] };
  await (await coordinator.post("/api/chat", question)).text();
  const [asked] = await coordinator.get<Request[]>("/api/requests");
  const machine = agents.find((agent) => agent.routable);
  pages = ["", "agents", `agents/${machine?.id ?? ""}`, "models", "requests"];
  pages.push(`requests/${asked?.id ?? ""}`, "play", "play?compare=1", "events", "settings");
});
afterAll(() => stage.end());

/** Goes to a page and waits until it has what it shows. */
async function visit(page: Page, path: string): Promise<void> {
  await page.goto(`${coordinator.url}/#/${path}`);
  await page.getByText("Live", { exact: true }).waitFor();
  await page.getByText("Loading…").first().waitFor({ state: "detached" });
  await page.locator("h1").first().waitFor({ state: "attached" });
}

interface Violation {
  id: string;
  nodes: { html: string; failureSummary?: string }[];
}

async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { axe } = window as unknown as { axe: { run(): Promise<{ violations: Violation[] }> } };
    return (await axe.run()).violations;
  });
  return found.flatMap(({ id, nodes }) =>
    nodes.map((node) => `${id}: ${node.html} ${node.failureSummary ?? ""}`),
  );
}

describe.skipIf(!CHROMIUM)("everybody", () => {
  test.each([
    ["light", 1280],
    ["dark", 1280],
    ["light", 375],
    ["dark", 375],
  ] as const)("axe finds nothing on any page: %s, %i px", async (colorScheme, width) => {
    const own = new Stage();
    const viewport = { width, height: 900 };
    const context = await openBrowser(own, { colorScheme, viewport, bypassCSP: true });
    const { page } = await openPage(context, coordinator.url);
    const found: string[] = [];
    const look = async (what: string): Promise<void> =>
      void found.push(...(await violations(page)).map((wrong) => `${what}: ${wrong}`));

    for (const path of [...pages, "?join=1", "agents?search=gpu"]) {
      await visit(page, path);
      if (/join|search/.test(path)) await page.getByRole("dialog").waitFor();
      await look(path);
    }
    for (const size of [0, 1, 300]) {
      const url = await new ToldFleet(size).serve(own, coordinator);
      for (const path of ["", "agents?group=room"]) {
        await page.goto(`${url}/#/${path}`);
        await page.getByText("Live", { exact: true }).waitFor();
        await look(`${size} machines, ${path}`);
      }
    }

    await own.end();
    expect(found.join("\n")).toBe("");
  });

  test.each([320, 375, 768])("nothing is cut off or scrolls sideways at %i px", async (width) => {
    const own = new Stage();
    const viewport = { width, height: 640 };
    const context = await openBrowser(own, { viewport, reducedMotion: "reduce" });
    const { page, wrongs } = await openPage(context, coordinator.url);
    const wide: string[] = [];

    for (const path of pages) {
      await visit(page, path);
      const scrolled = await page.evaluate(() => document.documentElement.scrollWidth);
      if (scrolled > width) wide.push(`${path}: ${scrolled}`);
    }

    await own.end();
    expect(wide).toEqual([]);
    expect(wrongs).toEqual([]);
  });

  test("hostile names are text and nothing else", async () => {
    const own = new Stage();
    const { page, wrongs } = await openPage(await openBrowser(own), coordinator.url);

    for (const path of ["", "agents", "requests", "events"]) await visit(page, path);
    await visit(page, "agents");
    await page.getByRole("link", { name: HOSTILE }).click();
    await page.getByRole("heading", { name: HOSTILE }).waitFor();

    const isPwned = await page.evaluate(() => "pwned" in window);
    const images = await page.locator("img").count();
    const isolation = await page.locator("h1").evaluate((it) => getComputedStyle(it).unicodeBidi);
    await own.end();
    expect([isPwned, images, isolation]).toEqual([false, 0, "isolate"]);
    expect(wrongs).toEqual([]);
  });

  test("a keyboard is enough", async () => {
    const own = new Stage();
    const { page, wrongs } = await openPage(await openBrowser(own), coordinator.url);
    await visit(page, "");
    const focused = (): Promise<string> =>
      page.evaluate(() => document.activeElement?.textContent?.trim() ?? "");
    const tabTo = (text: string): Promise<string> =>
      until(
        async () => {
          await page.keyboard.press("Tab");
          return focused();
        },
        (seen) => seen === text,
      );

    await page.keyboard.press("Tab");
    expect(await focused()).toBe("Skip to content");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("main");
    await page.keyboard.press("g");
    await page.keyboard.press("a");
    await page.getByRole("heading", { name: "Agents" }).waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("gpu-1");
    await page.getByText("1 of 3 machines").waitFor();
    await tabTo("gpu-1");
    await page.keyboard.press("x");
    await page.getByText("1 machine selected").waitFor();
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox").waitFor();
    await page.keyboard.type("gpu-1");
    await page.getByRole("option", { name: /gpu-1/ }).waitFor();
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "gpu-1" }).waitFor();
    await tabTo("Forget…");
    await page.keyboard.press("Enter");
    expect(await focused()).toBe("Cancel");
    await page.keyboard.press("Escape");
    expect(await focused()).toBe("Forget…");
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Resume", exact: true }).waitFor();
    await page.getByRole("button", { name: "Undo" }).press("Enter");
    await page.getByRole("button", { name: "Drain" }).waitFor();

    await own.end();
    expect(wrongs).toEqual([]);
  });

  test("columns are chosen with a keyboard, the URL has them, and axe finds nothing there", async () => {
    const own = new Stage();
    const context = await openBrowser(own, { bypassCSP: true });
    const { page, wrongs } = await openPage(context, `${coordinator.url}/#/agents`);
    const header = (name: string): Promise<number> =>
      page.getByRole("columnheader", { name }).count();
    await page.getByRole("columnheader", { name: "GPU load" }).waitFor();

    const menu = page.locator("summary", { hasText: "Columns" });
    await menu.press("Enter");
    await page.getByRole("group", { name: "Columns" }).waitFor();
    const found = await violations(page);
    await page.getByLabel("Address").press("Space");
    await page.getByLabel("GPU load").press("Space");
    await page.getByRole("columnheader", { name: "Address" }).waitFor();
    await page.keyboard.press("Escape");
    const focused = await page.evaluate(() => document.activeElement?.textContent);
    await page.reload();
    await page.getByRole("columnheader", { name: "Address" }).waitFor();

    expect(await header("GPU load")).toBe(0);
    expect(await page.getByRole("cell", { name: /^10\.255\.0\.1:/ }).count()).toBe(1);
    expect(focused).toBe("Columns");
    await menu.click();
    await page.getByRole("button", { name: "As usual" }).click();
    await page.getByRole("columnheader", { name: "GPU load" }).waitFor();
    expect(new URL(page.url()).hash).toBe("#/agents");
    await own.end();
    expect(found).toEqual([]);
    expect(wrongs).toEqual([]);
  });

  test("a page opened by an address other than localhost can copy, without a clipboard API", async () => {
    const own = new Stage();
    const url = coordinator.url.replace("127.0.0.1", LAN_NAME);
    const { page, wrongs } = await openPage(await openBrowser(own), url);
    const isSecure = await page.evaluate(() => isSecureContext);

    await page.getByRole("button", { name: "Copy OpenAI base URL" }).click();

    await page.getByText("Copied").waitFor();
    await page.getByRole("link", { name: "Playground" }).click();
    await page.getByLabel("Message").press("Control+V");
    const pasted = await page.getByLabel("Message").inputValue();
    await own.end();
    expect([isSecure, pasted]).toEqual([false, `${url}/v1`]);
    expect(wrongs).toEqual([]);
  });
});
