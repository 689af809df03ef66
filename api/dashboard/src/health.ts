// One sentence that says whether all is well. Pure: it is given what the API answered.
import type { Cluster, StatsPoint } from "./api/types";
import { clock, count, duration, plural, span } from "./format";

export interface Verdict {
  well: boolean;
  title: string;
  /** What needs a look, each with the way to it. */
  troubles: { text: string; address: string }[];
  /** The figures of the sentence, each with the way to what it counts. */
  detail: Part[];
}

interface Part {
  text: string;
  address?: string;
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
/** What has been due for so long is not about to be sent: a host, a limit or a pause holds it back, or there is too much. */
const WAITS_MS = 10_000;

/** `02:10`, with the day in front unless that is today. */
function minuteOf(atMs: number, nowMs: number): string {
  return clock(atMs, nowMs).replace(/:\d\d$/, "");
}
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
  const oldest = cluster.backlog.oldestDueAt ? nowMs - Date.parse(cluster.backlog.oldestDueAt) : 0;
  const waits = oldest > WAITS_MS;
  const onTime = missed === 0 && (late === null || late <= LATE_MS) && !waits && cluster.leader.nodeId !== null;
  const detail: Part[] = [
    cluster.activeJobs === 0 ? { text: "No job is active", address: "#/jobs" } : { text: `${plural(cluster.activeJobs, onTime ? "job" : "active job")}${onTime ? " on time" : ""}`, address: "#/jobs?state=active" },
    sent === 0 ? { text: "nothing was sent in the last hour" } : { text: `${plural(sent, "request")} in the last hour`, address: `#/executions?since=${hourAgo}` },
  ];
  if (waits) detail.push({ text: `${plural(cluster.backlog.ready, "execution")} due and not sent, the oldest for ${span(oldest)}`, address: "#/cluster" });
  if (late !== null) detail.push({ text: `p99 ${duration(late)} late`, address: "#/time?by=all&span=3600" });
  if (complete) detail.push({ text: `nothing missing, verified ${minuteOf(Date.parse(verified.at), nowMs)}`, address: "#/proof" });
  else if (!missed) detail.push({ text: "nothing missed in the last hour" });
  const title = troubles.length === 0 ? "All is well" : troubles.length === 1 ? "One thing needs a look" : `${troubles.length} things need a look`;
  return { well: troubles.length === 0, title, troubles, detail };
}
