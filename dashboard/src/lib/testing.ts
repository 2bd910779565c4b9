/** Makes what tests need. */

import type { Agent } from "./api/shapes";
import { Members } from "./members";

export function agentNamed(name: string, changes: Partial<Agent> = {}): Agent {
  return {
    id: `id-of-${name}`,
    machine_name: name,
    display_name: null,
    ip_address: "10.0.0.1",
    port: 11434,
    link: "tunnel",
    status: "online",
    routable: true,
    reason: null,
    draining: false,
    paused_until: null,
    runtime: { kind: "ollama", status: "running", version: "0.12.0" },
    models: [],
    loaded_models: [],
    capacity: 4,
    in_flight: 0,
    metrics: null,
    labels: {},
    notes: null,
    system_info: null,
    agent_version: "0.1.0",
    epoch: 1,
    registered_at: "2026-11-24T10:00:00Z",
    last_seen: "2026-11-24T10:00:00Z",
    ...changes,
  };
}

export function membersOf(agents: readonly Agent[]): Members {
  const members = new Members();
  const documents = new Map(agents.map((agent) => [agent.id, agent]));
  members.draw({ documents, loads: new Map(), isWhole: true });
  return members;
}
