/**
 * A fleet of any size that is only told of: the real page and a real coordinator for all but what is
 * known of the fleet. For budgets and pictures, which ten thousand real agents would only slow down.
 */

import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import type { Agent, Figures, FleetEvent, Happening, History, Load } from "../src/lib/api/shapes";
import type { Coordinator, Stage } from "./support";

const GIB = 1024 ** 3;
const LOADS_PER_TICK = 1_000;
const GPUS = [
  { name: "NVIDIA GeForce RTX 4090", memory_bytes: 24 * GIB },
  { name: "NVIDIA RTX A6000", memory_bytes: 48 * GIB },
  { name: "NVIDIA GeForce RTX 3090", memory_bytes: 24 * GIB },
  { name: "AMD Radeon PRO W7900", memory_bytes: 48 * GIB },
] as const;
const MODELS = [
  { name: "llama3.2:3b", size: 2.0 * GIB },
  { name: "qwen3:8b", size: 5.2 * GIB },
  { name: "gpt-oss:20b", size: 13.8 * GIB },
  { name: "gemma3:27b", size: 17.4 * GIB },
  { name: "nomic-embed-text:latest", size: 0.3 * GIB },
] as const;

/** The same numbers each time. */
function dice(seed: number): (most: number) => number {
  let state = seed + 1;
  return (most) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % most;
  };
}

export function agentAt(index: number, now: number): Agent {
  const roll = dice(index * 7_919);
  roll(2);
  const gpu = GPUS[roll(GPUS.length)] ?? GPUS[0];
  const gpus = roll(5) === 0 ? [gpu, gpu] : [gpu];
  const models = MODELS.filter(() => roll(3) > 0);
  const loaded = models.filter(() => roll(2) === 0).slice(0, 2);
  const fate = index === 0 ? 0 : roll(100);
  const isOffline = fate >= 98;
  const reason = isOffline
    ? "offline"
    : fate === 97
      ? "runtime_not_answering"
      : fate === 96
        ? "draining"
        : null;
  const room = gpus.reduce((sum, each) => sum + each.memory_bytes, 0);
  const used = Math.min(
    room * 0.97,
    loaded.reduce((sum, model) => sum + model.size, GIB),
  );
  const inFlight = reason ? 0 : roll(5);
  const id = `00000000-0000-4000-8000-${index.toString(16).padStart(12, "0")}`;
  return {
    id,
    machine_name: `gpu-${String(index + 1).padStart(index > 99 ? 5 : 2, "0")}`,
    display_name: null,
    ip_address: `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`,
    port: 11434,
    link: "tunnel",
    status: isOffline ? "offline" : "online",
    routable: reason === null,
    reason,
    draining: reason === "draining",
    paused_until: null,
    ollama_version: "0.12.6",
    runtime: { kind: "ollama", status: "running", version: "0.12.6" },
    models,
    loaded_models: isOffline ? [] : loaded.map((model) => ({ ...model, size_vram: model.size })),
    capacity: 4,
    in_flight: inFlight,
    metrics: isOffline ? null : metricsOf(inFlight, used, roll),
    labels: { room: String(101 + (index % 9)) },
    notes: null,
    system_info: {
      os: "Ubuntu 24.04",
      arch: "x86_64",
      cpu: "AMD Ryzen 9",
      cpu_cores: 32,
      memory_bytes: 128 * GIB,
      gpus,
    },
    agent_version: "0.1.0",
    epoch: 1 + roll(4),
    registered_at: new Date(now - 86_400_000 * (1 + roll(30))).toISOString(),
    last_seen: new Date(now - (isOffline ? 840_000 : 800)).toISOString(),
  };
}

function metricsOf(
  inFlight: number,
  used: number,
  roll: (most: number) => number,
): NonNullable<Agent["metrics"]> {
  return {
    cpu_percent: 4 + roll(20),
    memory_used_bytes: (20 + roll(40)) * GIB,
    gpu_percent: inFlight === 0 ? roll(4) : Math.min(100, inFlight * 22 + roll(20)),
    gpu_memory_used_bytes: used,
    gpu_temperature_celsius: 38 + inFlight * 9,
  };
}

function pastOf(names: readonly string[], tops: readonly number[], isFine: boolean): History {
  const roll = dice(names.length);
  const length = isFine ? 300 : 1_200;
  const wave = (row: number, top: number): number =>
    top * (0.55 + 0.25 * Math.sin(row / 17) + 0.15 * Math.sin(row / 5)) +
    (top / 12) * (roll(100) / 100);
  const series = names.map((name, column) => {
    const values = Array.from({ length }, (_, row) => wave(row + column * 9, tops[column] ?? 1));
    return [name, values] as const;
  });
  return {
    step_ms: isFine ? 2_000 : 60_000,
    length_ms: isFine ? 600_000 : 86_400_000,
    end: new Date().toISOString(),
    series: Object.fromEntries(series),
  };
}

const json = (response: ServerResponse, body: unknown): void => {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
};

export class ToldFleet {
  readonly agents: Agent[];
  happenings: Happening[];
  version = "0.1.0";
  /** How far the coordinator's clock is from this one. */
  readonly skew: number;
  #tick = 0;
  #streams = new Set<ServerResponse>();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(size: number, skew = 0) {
    this.skew = skew;
    this.agents = Array.from({ length: size }, (_, index) => agentAt(index, this.#now));
    this.happenings = this.#troubles();
  }

  get #now(): number {
    return Date.now() + this.skew;
  }

  /** How much has been told so far. */
  get ticks(): number {
    return this.#tick;
  }

  get figures(): Figures {
    const inFlight = this.agents.reduce((sum, agent) => sum + agent.in_flight, 0);
    return {
      in_flight: inFlight,
      queued: Math.floor(this.agents.length / 40),
      requests_per_minute: inFlight * 7,
      failures_per_minute: inFlight * 0.02,
      tokens_per_second: inFlight * 38,
      ...(inFlight > 0 ? { first_token_p95_ms: 640 } : {}),
      viewers: 1,
    };
  }

  get snapshot(): FleetEvent {
    return {
      type: "snapshot",
      seq: this.#tick,
      instance_id: "10000000-0000-4000-8000-000000000000",
      version: this.version,
      server_time: new Date(this.#now).toISOString(),
      fleet: this.figures,
      agents: this.agents,
    };
  }

  #troubles(): Happening[] {
    const chosen = this.agents.filter((agent) => !agent.routable).slice(0, 40);
    const told = (agent: Agent, index: number): Happening => ({
      number: 500 - index,
      at: new Date(this.#now - index * 47_000).toISOString(),
      kind: agent.reason === "offline" ? "expired" : "not_routable",
      agent_id: agent.id,
      agent_name: agent.machine_name,
      reason: agent.reason ?? "offline",
      address: agent.ip_address,
    });
    return chosen.map(told);
  }

  /** What a second brings: the load of a thousand machines. */
  next(): FleetEvent {
    this.#tick += 1;
    const loads: Load[] = [];
    for (let step = 0; step < Math.min(LOADS_PER_TICK, this.agents.length); step += 1) {
      const index = (this.#tick * LOADS_PER_TICK + step) % this.agents.length;
      const agent = this.agents[index];
      if (!agent?.routable) continue;
      const inFlight = (agent.in_flight + this.#tick + index) % 5;
      const metrics = metricsOf(
        inFlight,
        agent.metrics?.gpu_memory_used_bytes ?? 0,
        dice(index + this.#tick),
      );
      loads.push({ id: agent.id, in_flight: inFlight, metrics });
    }
    return {
      type: "tick",
      seq: this.#tick,
      server_time: new Date(this.#now).toISOString(),
      fleet: this.figures,
      loads,
    };
  }

  /** Tells every viewer of a change at once. */
  change(index: number, changes: Partial<Agent>): void {
    const agent = this.agents[index];
    if (!agent) return;
    const changed = { ...agent, ...changes };
    this.agents[index] = changed;
    this.#tick += 1;
    this.#tell({ type: "agent_changed", seq: this.#tick, agent: changed });
  }

  /** Tells what this many seconds bring, as fast as it is read; returns when the last was written. */
  async hurry(seconds: number): Promise<void> {
    const before = this.#tick;
    const bodies = Array.from({ length: 20 }, () => JSON.stringify(this.next()));
    this.#tick = before;
    for (let second = 0; second < seconds; second += 1) {
      this.#tick += 1;
      const body = bodies[second % bodies.length] ?? "";
      const frame = `data: ${body.replace(/"seq":\d+/, `"seq":${this.#tick}`)}\n\n`;
      await Promise.all([...this.#streams].map((stream) => written(stream, frame)));
    }
  }

  /** Ends every stream; viewers connect again. */
  cut(): void {
    for (const stream of this.#streams) stream.end();
  }

  #tell(event: FleetEvent): void {
    const frame = `data: ${JSON.stringify(event)}\n\n`;
    for (const stream of this.#streams) stream.write(frame);
  }

  /** Serves the page of a coordinator with this fleet in it. */
  async serve(stage: Stage, coordinator: Coordinator): Promise<string> {
    const server = createServer((incoming, outgoing) => {
      if (!this.#answer(incoming, outgoing)) pass(coordinator.url, incoming, outgoing);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    stage.ends(() => {
      clearInterval(this.#timer);
      server.closeAllConnections();
      server.close();
    });
    const address = server.address();
    return `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
  }

  #answer(incoming: IncomingMessage, outgoing: ServerResponse): boolean {
    const url = new URL(incoming.url ?? "", "http://here");
    const isFine = url.searchParams.get("resolution") !== "coarse";
    const agent = this.agents.find((it) => url.pathname === `/api/agents/${it.id}`);
    if (agent) json(outgoing, agent);
    else if (url.pathname === "/api/events/snapshot") json(outgoing, this.snapshot);
    else if (url.pathname === "/api/events/log") json(outgoing, this.happenings);
    else if (url.pathname === "/api/history" && url.searchParams.get("agent")) {
      const names = [
        "cpu_percent",
        "gpu_percent",
        "in_flight",
        "tokens_per_second",
        "memory_used_bytes",
        "gpu_memory_used_bytes",
      ];
      json(outgoing, pastOf(names, [30, 90, 4, 160, 60 * GIB, 20 * GIB], isFine));
    } else if (url.pathname === "/api/history") {
      const names = [
        "requests_per_minute",
        "failures_per_minute",
        "tokens_per_second",
        "first_token_p95_ms",
      ] as const;
      const { figures } = this;
      json(
        outgoing,
        pastOf(
          names,
          names.map((name) => figures[name] ?? 0),
          isFine,
        ),
      );
    } else if (url.pathname === "/api/events") this.#stream(outgoing);
    else return false;
    return true;
  }

  #stream(outgoing: ServerResponse): void {
    const send = (event: FleetEvent): void =>
      void outgoing.write(`data: ${JSON.stringify(event)}\n\n`);
    outgoing.writeHead(200, { "content-type": "text/event-stream" });
    send(this.snapshot);
    this.#streams.add(outgoing);
    outgoing.on("close", () => this.#streams.delete(outgoing));
    this.#timer ??= setInterval(() => this.#tell(this.next()), 1_000);
  }
}

/** Writes, and waits until there is room for more. */
async function written(stream: ServerResponse, text: string): Promise<void> {
  if (stream.write(text)) return;
  await new Promise<void>((done) => {
    const go = (): void => {
      stream.off("drain", go).off("close", go);
      done();
    };
    stream.on("drain", go).on("close", go);
  });
}

function pass(target: string, incoming: IncomingMessage, outgoing: ServerResponse): void {
  const url = new URL(incoming.url ?? "", target);
  const options = { method: incoming.method ?? "GET", headers: incoming.headers };
  const upstream = request(url, options, (answer) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(outgoing);
  });
  upstream.on("error", () => outgoing.destroy());
  outgoing.on("close", () => upstream.destroy());
  incoming.pipe(upstream);
}
