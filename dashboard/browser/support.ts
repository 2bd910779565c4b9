/** A real coordinator, real agents in front of simulated runtimes, and a browser. */

import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  chromium,
  type BrowserContext,
  type BrowserContextOptions,
  type Page,
} from "playwright-core";

export const CHROMIUM = process.env["CHROMIUM"] ?? "";
const BIN = resolve(
  process.env["CARGO_TARGET_DIR"] ?? "../target",
  process.env["PROFILE"] ?? "debug",
);
const PATIENCE = 20_000;
/** This computer under a name that browsers do not take for it: what is theirs alone is not there. */
export const LAN_NAME = "coordinator.test";

/** Waits until what is seen is what is expected, or says what was seen last. */
export async function until<T>(
  look: () => Promise<T> | T,
  expected: (seen: T) => boolean,
  within = PATIENCE,
): Promise<T> {
  const deadline = Date.now() + within;
  for (;;) {
    const seen = await look();
    if (expected(seen)) return seen;
    if (Date.now() > deadline) throw new Error(`last seen: ${JSON.stringify(seen)}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** What a test has started; ended in the reverse order. */
export class Stage {
  #ends: (() => Promise<void> | void)[] = [];

  ends(end: () => Promise<void> | void): void {
    this.#ends.push(end);
  }

  directory(): string {
    const directory = mkdtempSync(join(tmpdir(), "dashboard-"));
    this.ends(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
    return directory;
  }

  async end(): Promise<void> {
    for (let end = this.#ends.pop(); end; end = this.#ends.pop()) await end();
  }
}

/** A program, and the first thing in what it says that `pattern` finds. */
class Program {
  private constructor(
    readonly child: ChildProcess,
    readonly said: string,
  ) {}

  static async start(name: string, args: string[], pattern?: RegExp): Promise<Program> {
    const child = spawn(join(BIN, name), args, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    const hear = (chunk: Buffer): void => void (output += chunk.toString());
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    if (!pattern) return new Program(child, "");
    await until(
      () => output,
      (seen) => pattern.test(seen),
    );
    return new Program(child, pattern.exec(output)?.[1] ?? "");
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise((done) => this.child.once("exit", done));
    this.child.kill(signal);
    await ended;
  }
}

export class Coordinator {
  #program: Program;

  private constructor(
    program: Program,
    readonly url: string,
    private readonly args: string[],
  ) {
    this.#program = program;
  }

  static async start(stage: Stage, args: string[] = ["--no-local-agent"]): Promise<Coordinator> {
    const all = ["--host", "127.0.0.1", "--data-dir", stage.directory(), ...args];
    const program = await Coordinator.#spawn([...all, "--port", "0"]);
    const coordinator = new Coordinator(program, program.said, all);
    stage.ends(() => coordinator.stop("SIGKILL"));
    return coordinator;
  }

  static #spawn(args: string[]): Promise<Program> {
    return Program.start("ollama-coordinator", args, /(http:\/\/127\.0\.0\.1:\d+)/);
  }

  get pid(): number {
    return this.#program.child.pid ?? 0;
  }

  /** Starts it again, on the same port and with what it knew. */
  async restart(): Promise<void> {
    this.#program = await Coordinator.#spawn([...this.args, "--port", new URL(this.url).port]);
  }

  stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    return this.#program.stop(signal);
  }

  async get<T>(path: string): Promise<T> {
    return (await (await fetch(`${this.url}${path}`)).json()) as T;
  }

  post(path: string, body: unknown): Promise<Response> {
    return this.#send("POST", path, body);
  }

  patch(path: string, body: unknown): Promise<Response> {
    return this.#send("PATCH", path, body);
  }

  #send(method: string, path: string, body: unknown): Promise<Response> {
    const headers = { "content-type": "application/json" };
    return fetch(`${this.url}${path}`, { method, headers, body: JSON.stringify(body) });
  }
}

/** How a simulated runtime is to be. */
export interface Runtime {
  tokensPerSecond?: number;
  answerTokens?: number;
  transferTime?: string;
}

/** A machine: a simulated runtime and the real agent in front of it. */
export class Machine {
  private constructor(
    private readonly runtime: Program,
    private readonly agent: Program,
  ) {}

  static async start(
    stage: Stage,
    coordinator: Coordinator,
    name: string,
    runtime: Runtime = {},
  ): Promise<Machine> {
    const { tokensPerSecond = 60, answerTokens = 30, transferTime = "0s" } = runtime;
    const engine = await Program.start(
      "ollama-simulator",
      [
        ...["runtime", "--tokens-per-second", `${tokensPerSecond}`],
        ...["--answer-tokens", `${answerTokens}`, "--transfer-time", transferTime],
      ],
      /(http:\/\/127\.0\.0\.1:\d+)/,
    );
    const directory = stage.directory();
    const agent = await Program.start("ollama-agent", [
      ...["--coordinator", coordinator.url, "--runtime", engine.said, "--panel", "off"],
      ...["--no-tray", "--machine-name", name, "--state-dir", directory],
      ...["--config", join(directory, "settings.toml")],
    ]);
    const machine = new Machine(engine, agent);
    stage.ends(() => machine.kill());
    return machine;
  }

  /** It is gone without a word. */
  async kill(): Promise<void> {
    await this.agent.stop("SIGKILL");
    await this.runtime.stop("SIGKILL");
  }

  stopRuntime(): Promise<void> {
    return this.runtime.stop("SIGKILL");
  }
}

/** An agent that nobody has told anything, with its settings panel. */
export class NewMachine {
  private constructor(
    readonly url: string,
    private readonly token: string,
  ) {}

  static async start(stage: Stage): Promise<NewMachine> {
    const directory = stage.directory();
    const agent = await Program.start(
      "ollama-agent",
      [
        ...["--panel", "0", "--no-tray", "--state-dir", directory, "--runtime", "127.0.0.1:9"],
        ...["--config", join(directory, "settings.toml")],
      ],
      /Settings panel is up/,
    );
    stage.ends(() => agent.stop("SIGKILL"));
    const said = readFileSync(join(directory, "panel.json"), "utf8");
    const { url, token } = JSON.parse(said) as { url: string; token: string };
    return new NewMachine(url, token);
  }

  /** Returns a link that opens the panel once. */
  async link(): Promise<string> {
    const headers = { authorization: `Bearer ${this.token}` };
    const made = await fetch(`${this.url}/ticket?for=anybody`, { method: "POST", headers });
    const { url } = (await made.json()) as { url: string };
    return url;
  }
}

/** Serves one page that may be up to no good, and tells what cookies it gets. */
export async function startSite(
  stage: Stage,
  heard: (cookies: string | undefined) => void = () => undefined,
): Promise<string> {
  const server = createServer((incoming, outgoing) => {
    heard(incoming.headers.cookie);
    outgoing.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>x</title>");
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  stage.ends(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  return `127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
}

/** Machines that only register and beat. */
export async function startFleet(
  stage: Stage,
  coordinator: Coordinator,
  agents: number,
): Promise<void> {
  const url = /(http:\/\/127\.0\.0\.1:\d+)/;
  const runtime = await Program.start("ollama-simulator", ["runtime"], url);
  stage.ends(() => runtime.stop("SIGKILL"));
  const fleet = await Program.start("ollama-simulator", [
    ...["fleet", "--coordinator", new URL(coordinator.url).host],
    ...["--runtime", new URL(runtime.said).host],
    ...["--agents", String(agents), "--seconds", "900", "--start-spread", "3s"],
  ]);
  stage.ends(() => fleet.stop("SIGKILL"));
  await until(
    async () => (await coordinator.get<unknown[]>("/api/agents")).length,
    (known) => known === agents,
    120_000,
  );
}

export async function openBrowser(
  stage: Stage,
  options: BrowserContextOptions = {},
): Promise<BrowserContext> {
  const context = await chromium.launchPersistentContext(stage.directory(), {
    executablePath: CHROMIUM,
    viewport: { width: 1280, height: 900 },
    args: [
      ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
      ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
      `--host-resolver-rules=MAP ${LAN_NAME} 127.0.0.1`,
    ],
    ...options,
  });
  stage.ends(() => context.close());
  context.setDefaultTimeout(PATIENCE);
  return context;
}

/** What a page must not do: fail in the console, or ask anybody but its own coordinator. */
export function watch(page: Page): string[] {
  const wrongs: string[] = [];
  page.on("pageerror", (error) => wrongs.push(error.message));
  page.on("console", (message) => {
    const isExpected = /Failed to load resource|net::ERR/.test(message.text());
    if (message.type() === "error" && !isExpected) wrongs.push(message.text());
  });
  page.on("response", (answer) => {
    if (answer.status() >= 400) wrongs.push(`${answer.status()} ${answer.url()}`);
  });
  page.on("request", (asked) => {
    const origin = new URL(page.url()).origin;
    if (origin !== "null" && !asked.url().startsWith(origin)) wrongs.push(asked.url());
  });
  return wrongs;
}

export async function openPage(
  context: BrowserContext,
  url: string,
): Promise<{ page: Page; wrongs: string[] }> {
  const page =
    context.pages().find((it) => it.url() === "about:blank") ?? (await context.newPage());
  const wrongs = watch(page);
  await page.goto(url);
  return { page, wrongs };
}

/** Puts a mark on the page that a reload would take away. */
export async function mark(page: Page): Promise<() => Promise<boolean>> {
  await page.evaluate(() => document.body.setAttribute("data-mark", ""));
  return () => page.evaluate(() => document.body.hasAttribute("data-mark"));
}

/** How much of a stream tells how it began. */
const BEGINNING = 200;

/** How a reverse proxy is set up. */
export interface ProxyWays {
  /** Below which path it is; it takes this prefix off. */
  prefix?: string;
  /** It holds back streams until they end, as some do. */
  holdsStreams?: boolean;
  /** It lets people look and nothing else. */
  isReadOnly?: boolean;
}

/** A reverse proxy. */
export class Proxy {
  /** How each stream of events began. */
  readonly beginnings: string[] = [];
  /** How each question for the whole fleet was answered: the status, and the size of the answer. */
  readonly snapshots: { status: number; bytes: number }[] = [];
  #streams = new Set<ServerResponse>();

  private constructor(readonly url: string) {}

  static async start(stage: Stage, target: string, ways: ProxyWays = {}): Promise<Proxy> {
    const { prefix = "/" } = ways;
    const server = createServer((incoming, outgoing) => {
      const path = incoming.url ?? "";
      if (!path.startsWith(prefix)) outgoing.writeHead(404).end();
      else if (ways.isReadOnly && incoming.method !== "GET") outgoing.writeHead(403).end("No.");
      else proxy.#pass(new URL(`/${path.slice(prefix.length)}`, target), ways, incoming, outgoing);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    stage.ends(() => {
      server.closeAllConnections();
      server.close();
    });
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    const proxy = new Proxy(`http://127.0.0.1:${port}${prefix}`);
    return proxy;
  }

  /** Breaks every stream of events. */
  cut(): void {
    for (const stream of this.#streams) stream.destroy();
  }

  #pass(url: URL, ways: ProxyWays, incoming: IncomingMessage, outgoing: ServerResponse): void {
    const options = { method: incoming.method ?? "GET", headers: incoming.headers };
    const upstream = request(url, options, (answer) => {
      const isStream = answer.headers["content-type"] === "text/event-stream";
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      if (isStream) this.#watch(answer, outgoing);
      if (url.pathname === "/api/events/snapshot") this.#count(answer);
      if (isStream && ways.holdsStreams) answer.resume();
      else answer.pipe(outgoing);
    });
    upstream.on("error", () => outgoing.destroy());
    outgoing.on("close", () => upstream.destroy());
    incoming.pipe(upstream);
  }

  #count(answer: IncomingMessage): void {
    const counted = { status: answer.statusCode ?? 0, bytes: 0 };
    this.snapshots.push(counted);
    answer.on("data", (chunk: Buffer) => (counted.bytes += chunk.length));
  }

  #watch(answer: IncomingMessage, outgoing: ServerResponse): void {
    this.#streams.add(outgoing);
    outgoing.on("close", () => this.#streams.delete(outgoing));
    const index = this.beginnings.push("") - 1;
    answer.on("data", (chunk: Buffer) => {
      const begun = this.beginnings[index] ?? "";
      if (begun.length < BEGINNING) this.beginnings[index] = begun + chunk.toString();
    });
  }
}
