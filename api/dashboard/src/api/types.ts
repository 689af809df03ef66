// Names for the schemas that the page uses. They come from the OpenAPI document of this very checkout.
import type { components, paths } from "../../generated/api";

export type Schemas = components["schemas"];
export type ListedJob = Schemas["ListedJob"];
export type Job = Schemas["Job"];
export type Execution = Schemas["Execution"];
export type ExecutionInFull = Schemas["ExecutionInFull"];
export type Attempt = Schemas["Attempt"];
export type State = Execution["state"];
export type Cluster = Schemas["ClusterView"];
export type StatsPoint = Schemas["StatsPoint"];
export type Incident = Schemas["IncidentView"];
export type Session = Schemas["SessionView"];
export type { paths };
