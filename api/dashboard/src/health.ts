// One sentence that says whether all is well. Pure: it is given what the API answered.
import type { Cluster, StatsPoint } from "./api/types";
import { clock, duration, plural } from "./format";

export interface Verdict {
  well: boolean;
  title: string;
  /** What needs a look, each with the way to it. */
  troubles: { text: string; address: string }[];
  detail: string;
}

export interface Observed {
  cluster: Cluster;
  points: readonly StatsPoint[];
  openIncidents: number;
  failingJobs: number;
  /** Whether there are more failing jobs, or incidents, than were counted. */
  more: boolean;
  /** The last verification that ended, if the reader may know of it. */
  verified?: { at: string; clean: boolean } | undefined;
}

const LATE_MS = 1000;
const SILENT_MS = 10_000;

export function verdictOf({ cluster, points, openIncidents, failingJobs, more, verified }: Observed, nowMs: number): Verdict {
  const troubles: Verdict["troubles"] = [];
  const add = (n: number, one: string, many: string, address: string) => {
    if (n > 0) troubles.push({ text: `${more ? `${plural(n, one, many)} or more` : plural(n, one, many)}`, address });
  };
  if (!cluster.leader.nodeId) troubles.push({ text: "no leader", address: "#/cluster" });
  const silent = cluster.nodes.filter((n) => nowMs - Date.parse(n.seenAt) > SILENT_MS);
  if (silent.length > 0) troubles.push({ text: plural(silent.length, "silent node"), address: "#/cluster" });
  if (cluster.breakersInAll > 0) troubles.push({ text: plural(cluster.breakersInAll, "open circuit breaker"), address: "#/cluster" });
  add(openIncidents, "open incident", "open incidents", "#/now?incidents=open");
  add(failingJobs, "failing job", "failing jobs", "#/jobs?failing=true");
  const missed = points.reduce((sum, p) => sum + (p.missed ?? 0), 0);
  if (missed > 0) troubles.push({ text: `${plural(missed, "occurrence")} missed in the last hour`, address: "#/executions?state=missed" });
  const late = cluster.rates["driftMsP99"] as number | null;
  if (late !== null && late > LATE_MS) troubles.push({ text: `the latest 1 % are ${duration(late)} late or more`, address: "#/executions" });
  if (verified && !verified.clean) troubles.push({ text: "verify found something", address: "#/proof" });
  const sent = points.reduce((sum, p) => sum + p.sent, 0);
  const proof = verified?.clean ? `; nothing missing, verified ${clock(Date.parse(verified.at), nowMs)}` : missed ? "" : "; nothing missed";
  const detail = `${plural(sent, "request")} in the last hour; p99 ${duration(late)} late${proof}.`;
  const title = troubles.length === 0 ? "All is well" : troubles.length === 1 ? "One thing needs a look" : `${troubles.length} things need a look`;
  return { well: troubles.length === 0, title, troubles, detail };
}
