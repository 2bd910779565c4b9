/** The settings panel of an agent: what people do with it, and what other pages cannot. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "playwright-core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Agent } from "../src/lib/api/shapes";
import {
  CHROMIUM,
  Coordinator,
  mark,
  NewMachine,
  openBrowser,
  openPage,
  Stage,
  startSite,
  until,
} from "./support";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.end());

const online = async (coordinator: Coordinator): Promise<string[]> => {
  const agents = await coordinator.get<Agent[]>("/api/agents");
  return agents.filter((agent) => agent.status === "online").map((agent) => agent.id);
};

async function findings(page: Page): Promise<string[]> {
  await page.addScriptTag({ content: AXE }).catch(() => page.evaluate(AXE));
  return page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: { run: () => Promise<{ violations: { id: string }[] }> };
    };
    return (await axe.run()).violations.map((violation) => violation.id);
  });
}

describe.skipIf(!CHROMIUM)("the panel", () => {
  test("a machine is set up and moves to another coordinator without a restart", async () => {
    const [first, second] = [await Coordinator.start(stage), await Coordinator.start(stage)];
    const machine = await NewMachine.start(stage);
    const { page, wrongs } = await openPage(await openBrowser(stage), await machine.link());
    const url = page.getByRole("textbox", { name: "Coordinator" });

    await page.getByRole("heading", { name: "Not set up yet" }).waitFor();
    await url.fill("127.0.0.1:9");
    await page.getByRole("button", { name: "Test connection" }).click();
    await page.getByText("no coordinator runs here").first().waitFor();
    await url.fill(first.url);
    await page.getByRole("button", { name: "Test connection" }).click();
    await page.getByText("The connection works.").waitFor();
    await page.getByRole("textbox", { name: "Name of this machine" }).fill("gpu-7");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("The settings are in force.").waitFor();
    const [id] = await until(
      () => online(first),
      (seen) => seen.length === 1,
    );
    await url.fill(second.url);
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("The settings are in force.").waitFor();

    await until(
      () => online(second),
      (seen) => seen.length === 1 && seen[0] === id,
    );
    await until(
      () => online(first),
      (seen) => seen.length === 0,
    );
    expect(new URL(page.url()).pathname).toMatch(/^\/p\/[0-9a-f]+\/$/);
    expect(wrongs).toEqual([]);
  });

  test("a pause is shown as it is, without a reload", async () => {
    const machine = await NewMachine.start(stage);
    const { page, wrongs } = await openPage(await openBrowser(stage), await machine.link());
    const other = await page.context().newPage();
    await other.goto(page.url());
    const isMarked = await mark(page);
    const coordinator = await Coordinator.start(stage);
    await other.getByRole("textbox", { name: "Coordinator" }).fill(coordinator.url);
    await other.getByRole("button", { name: "Save" }).click();

    await other.getByRole("button", { name: "Pause 30 minutes" }).click();
    await page.getByRole("heading", { name: "Paused for another 30 min" }).waitFor();
    await page.getByRole("button", { name: "Resume sharing" }).waitFor();

    expect(await isMarked()).toBe(true);
    expect(wrongs).toEqual([]);
  });

  test("it works without JavaScript", async () => {
    const coordinator = await Coordinator.start(stage);
    const machine = await NewMachine.start(stage);
    const browser = await openBrowser(stage, { javaScriptEnabled: false });
    const page = await browser.newPage();
    await page.goto(await machine.link());
    const opened = page.url();

    await page.getByRole("textbox", { name: "Coordinator" }).fill(coordinator.url);
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("The settings are in force.").waitFor();
    await page.getByRole("button", { name: "Pause until I resume" }).click();

    await page.getByRole("heading", { name: "Paused until you resume" }).waitFor();
    await until(
      () => online(coordinator),
      (seen) => seen.length === 1,
    );
    expect(page.url()).toBe(opened);
  });

  test("a link opens it once and is not kept in the history", async () => {
    const machine = await NewMachine.start(stage);
    const browser = await openBrowser(stage);
    const page = await browser.newPage();
    const link = await machine.link();
    await page.goto(link);
    await page.getByRole("heading", { name: "Not set up yet" }).waitFor();
    const other = await browser.newPage();

    await other.goto(link);
    await other.getByRole("heading", { name: "This link opens nothing any more" }).waitFor();
    await page.goBack();

    expect(page.url()).toBe("about:blank");
  });

  test("another server on this machine gets no cookie of it", async () => {
    const machine = await NewMachine.start(stage);
    const page = await (await openBrowser(stage)).newPage();
    await page.goto(await machine.link());
    await page.getByRole("heading", { name: "Not set up yet" }).waitFor();
    const heard: (string | undefined)[] = [];
    const site = await startSite(stage, (cookies) => heard.push(cookies));

    await page.goto(`http://${site}/`);
    await page.goto(`http://${site}/p/`);

    expect(heard.length).toBeGreaterThanOrEqual(2);
    expect(heard.filter((cookies) => cookies !== undefined)).toEqual([]);
  });

  /** Even one that has found out the path of the page. */
  test.each(["127.0.0.1", "localhost"])("a page at %s gets and does nothing", async (name) => {
    const machine = await NewMachine.start(stage);
    const browser = await openBrowser(stage);
    const panel = await browser.newPage();
    await panel.goto(await machine.link());
    const site = (await startSite(stage)).replace("127.0.0.1", name);
    const hostile = await browser.newPage();
    await hostile.goto(`http://${site}/`);

    const got = await hostile.evaluate(async (url) => {
      const tries = [
        fetch(url, { credentials: "include" }),
        fetch(new URL("/status", url), { credentials: "include" }),
        fetch(`${url}pause`, { method: "POST", credentials: "include" }),
        fetch(new URL("/pause", url), {
          method: "POST",
          headers: { authorization: "Bearer x" },
        }),
        fetch(`${url}pause`, { method: "POST", mode: "no-cors", credentials: "include" }),
      ];
      const settled = await Promise.allSettled(tries);
      return settled.map((it) => it.status);
    }, panel.url());
    await hostile.evaluate((url) => {
      document.body.innerHTML = `<form method="post" action="${url}pause"></form>`;
      document.forms[0]?.submit();
    }, panel.url());
    await hostile.getByText(/Another page has sent you here|This page opens by its link/).waitFor();
    await hostile.goto(`http://${site}/`);
    await hostile.setContent(`<iframe src="${panel.url()}"></iframe>`);
    await hostile.frames()[1]?.waitForLoadState();

    expect(got).toEqual(Array(5).fill("rejected"));
    expect(await hostile.frameLocator("iframe").getByText("Settings").count()).toBe(0);
    await panel.reload();
    await panel.getByRole("heading", { name: "Not set up yet" }).waitFor();
    expect(await panel.getByRole("button", { name: "Resume sharing" }).count()).toBe(0);
  });

  test.each(["light", "dark"] as const)("everybody can use it: %s", async (colorScheme) => {
    const machine = await NewMachine.start(stage);
    const browser = await openBrowser(stage, {
      colorScheme,
      viewport: { width: 320, height: 700 },
      bypassCSP: true,
    });
    const page = await browser.newPage();
    await page.goto(await machine.link());
    await page.getByRole("textbox", { name: "Coordinator" }).fill("127.0.0.1:9");
    await page.getByRole("button", { name: "Test connection" }).click();
    await page.getByText("no coordinator runs here").first().waitFor();

    const width = await page.evaluate(() => document.documentElement.scrollWidth);

    expect(await findings(page)).toEqual([]);
    expect(width).toBe(320);
  });
});
