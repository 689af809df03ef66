// One sentence that says whether all is well. Pure: it is given what the API answered.
import type { Cluster, StatsPoint } from "./api/types";
import { clock, count, duration, plural } from "./format";

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
  /** Whether there are more than were counted. */
  more: { incidents: boolean; failing: boolean };
  /** The last verification that ended, if the reader may know of it. */
  verified?: { at: string; clean: boolean; counts: Readonly<Record<string, number>> } | undefined;
}

const LATE_MS = 1000;
const SILENT_MS = 10_000;

export function verdictOf({ cluster, points, openIncidents, failingJobs, more, verified }: Observed, nowMs: number): Verdict {
  const hourAgo = new Date(Math.floor(nowMs / 60_000) * 60_000 - 3_600_000).toISOString();
  const troubles: Verdict["troubles"] = [];
  const add = (n: number, one: string, andMore: boolean, address: string) => {
    if (n > 0) troubles.push({ text: plural(n, one) + (andMore ? " or more" : ""), address });
  };
  if (!cluster.leader.nodeId) troubles.push({ text: "no leader", address: "#/cluster" });
  const silent = cluster.nodes.filter((n) => nowMs - Date.parse(n.seenAt) > SILENT_MS);
  if (silent.length > 0) troubles.push({ text: plural(silent.length, "silent node"), address: "#/cluster" });
  if (cluster.breakersInAll > 0) troubles.push({ text: plural(cluster.breakersInAll, "open circuit breaker"), address: "#/cluster" });
  add(openIncidents, "open incident", more.incidents, "#/now?incidents=open");
  add(failingJobs, "failing job", more.failing, "#/jobs?failing=true");
  const missed = points.reduce((sum, p) => sum + (p.missed ?? 0), 0);
  if (missed > 0) troubles.push({ text: `${plural(missed, "occurrence")} missed in the last hour`, address: `#/executions?state=missed&since=${hourAgo}` });
  const late = cluster.rates["driftMsP99"] as number | null;
  if (late !== null && late > LATE_MS) troubles.push({ text: `the latest 1 % are ${duration(late)} late or more`, address: "#/time?by=job&span=3600" });
  const found = Object.entries(verified?.counts ?? {}).filter(([kind, n]) => n > 0 && kind !== "redelivered");
  if (verified && !verified.clean) troubles.push({ text: `verify found ${found.map(([kind, n]) => `${count(n)} ${kind}`).join(", ") || "something"}`, address: "#/proof" });
  const sent = points.reduce((sum, p) => sum + p.sent, 0);
  // What verify found may be late or delivered twice: then nothing is missing all the same.
  const complete = verified && (verified.clean || (found.length > 0 && !found.some(([kind]) => kind === "missing")));
  const proof = complete ? `; nothing missing, verified ${clock(Date.parse(verified.at), nowMs)}` : missed ? "" : "; nothing missed";
  const lateness = late === null ? "" : `; p99 ${duration(late)} late`;
  const detail = `${sent === 0 ? "Nothing was sent" : plural(sent, "request")} in the last hour${lateness}${proof}.`;
  const title = troubles.length === 0 ? "All is well" : troubles.length === 1 ? "One thing needs a look" : `${troubles.length} things need a look`;
  return { well: troubles.length === 0, title, troubles, detail };
}
