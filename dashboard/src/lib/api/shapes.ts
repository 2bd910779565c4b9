/** Short names for the shapes of the API; they are generated from its contract. */

import type { components } from "./schema.gen";

type Schemas = components["schemas"];

export type Agent = Schemas["AgentView"];
export type Reason = NonNullable<Agent["reason"]>;
export type Model = Schemas["Model"];
export type FleetEvent = Schemas["Event"];
export type Snapshot = Extract<FleetEvent, { type: "snapshot" }>;
export type Figures = Schemas["FleetFigures"];
export type Load = Schemas["AgentLoad"];
export type Happening = Schemas["Happening"];
export type Request = Schemas["RequestView"];
export type Attempt = Schemas["AttemptView"];
export type History = Schemas["HistoryView"];
export type About = Schemas["About"];
export type Patch = Schemas["PatchAgentRequest"];
export type Problem = Schemas["Problem"];
