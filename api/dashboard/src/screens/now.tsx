// Whether all is well, in one sentence; then what the sentence stands on.
import { useEffect, useRef } from "preact/hooks";
import { call } from "../api/calls";
import type { Cluster, Incident, ListedJob, StatsPoint } from "../api/types";
import { nowMs } from "../clock";
import { count, duration, hostOf, shortDuration } from "../format";
import { verdictOf, type Observed } from "../health";
import { useLive } from "../live";
import { href, type Route } from "../route";
import { useMay } from "../session";
import { Chart } from "../ui/chart";
import { Time, useNowMs } from "../ui/now";
import { Card, Facts, ProblemNote, Skeleton } from "../ui/parts";
import { dueAddress } from "./executions";

const MOST = 100;

export function NowScreen({ route }: { route: Route }) {
  const cluster = useLive(call("get", "/cluster"));
  const stats = useLive(call("get", "/stats", { query: { step: "1m" } }), 15_000);
  const incidents = useLive(call("get", "/alerts", { query: { state: "open", limit: MOST } }), 20_000);
  const failing = useLive(call("get", "/jobs", { query: { failing: "true", state: "active", limit: MOST } }), 20_000);
  const runs = useLive(useMay("admin") ? call("get", "/verifications", { query: { limit: 5 } }) : null, 60_000);
  const points = stats.data?.series ?? [];
  const ended = runs.data?.items.find((r) => r.state === "done" && r.jobId === null);
  const verified = ended && { at: ended.endedAt ?? ended.askedAt, clean: Boolean(ended.report?.["clean"]), counts: (ended.report?.["counts"] ?? {}) as Record<string, number> };
  const problem = cluster.problem ?? stats.problem ?? incidents.problem ?? failing.problem;
  return (
    <>
      <ProblemNote problem={problem} />
      {cluster.data && stats.data && incidents.data && failing.data ? (
        <Sentence cluster={cluster.data} points={points} incidents={incidents.data.items} failing={failing.data.items} more={{ incidents: Boolean(incidents.data.nextCursor), failing: Boolean(failing.data.nextCursor) }} verified={verified} />
      ) : (
        <h1 tabIndex={-1} class="verdict">{problem ? "Not known" : "…"}</h1>
      )}
      {cluster.data && <Figures cluster={cluster.data} failing={failing.data && count(failing.data.items.length) + (failing.data.nextCursor ? "+" : "")} />}
      <div class="columns">
        <Card title="Sent per second" aside={<a href={lastHour("all")}>last hour</a>}><Sent points={points} /></Card>
        <Card title="Lateness" aside={<a href={lastHour("job")}>of first attempts</a>}><Lateness points={points} /></Card>
      </div>
      {!cluster.data && !problem && <Skeleton />}
      <div class="columns">
        <Incidents items={incidents.data?.items} all={Boolean(route.query["incidents"])} />
        <Failing items={failing.data?.items} cluster={cluster.data} />
      </div>
    </>
  );
}

function Sentence({ cluster, points, incidents, failing, more, verified }: {
  cluster: Cluster; points: readonly StatsPoint[]; incidents: readonly Incident[]; failing: readonly ListedJob[]; more: Observed["more"]; verified: Observed["verified"];
}) {
  const v = verdictOf({ cluster, points, openIncidents: incidents.length, failingJobs: failing.length, more, verified }, useNowMs());
  return (
    <div class={`verdict ${v.well ? "well" : "unwell"}`}>
      <span class="verdict-sign" aria-hidden="true">{v.well ? "✓" : "!"}</span>
      <div>
        <h1 tabIndex={-1}>{v.title}</h1>
        <p>
          {v.troubles.map((t, i) => <span key={t.text}>{i > 0 && " · "}<a href={t.address}>{t.text}</a></span>)}
          {v.troubles.length > 0 && ". "}
          {v.detail.map((part, i) => <span key={part.text}>{i > 0 && "; "}{part.address ? <a class="plain-link" href={part.address}>{part.text}</a> : part.text}</span>)}.
        </p>
      </div>
    </div>
  );
}

function Figures({ cluster, failing }: { cluster: Cluster; failing: string | undefined }) {
  const { rates, backlog, leader, nodes } = cluster;
  const rate = (name: string) => count(Number(rates[name] ?? 0));
  // The rates are of whole minutes, the last one and the one that began before it.
  const since = new Date(Math.floor(nowMs() / 60_000) * 60_000 - 60_000).toISOString();
  return (
    <Card class="summary">
      <Facts
        items={[
          ["Succeeded per second", <a href={href(["executions"], { state: "succeeded", since })}>{rate("succeededPerSecond")}</a>],
          ["Failed per second", <a href={href(["executions"], { state: "failed,dead", since })}>{count(Number(rates["failedPerSecond"] ?? 0) + Number(rates["deadPerSecond"] ?? 0))}</a>],
          ["Retried per second", <a href="#/executions?state=retrying">{rate("retriedPerSecond")}</a>],
          ["Late p50 / p99", <a href="#/time?by=all&span=3600">{duration(rates["driftMsP50"] as number | null)} / {duration(rates["driftMsP99"] as number | null)}</a>],
          ["Waiting / in flight", <><a href={dueAddress(nowMs())}>{count(backlog.ready)}</a> / <a href="#/cluster?part=leases">{count(backlog.leased)}</a></>],
          ["Failing jobs", <a href="#/jobs?failing=true">{failing ?? "…"}</a>],
          ["Leader", leader.nodeId ? <a href="#/cluster" class="clip">{leader.nodeId}</a> : "none"],
          ["Nodes", <a href="#/cluster">{count(nodes.length)}</a>],
        ]}
      />
    </Card>
  );
}

/** The axis of time over the last hour; by the minute, so that the address stays for a while. */
function lastHour(by: string): string {
  const until = Math.ceil(nowMs() / 60_000) * 60_000;
  return href(["time"], { by, from: new Date(until - 3_600_000).toISOString(), until: new Date(until).toISOString() });
}

const LEAST_POINTS = 10;

/** The step that is still filling would look like a fall; and before the first request there is nothing to see. */
function whole(points: readonly StatsPoint[]): readonly StatsPoint[] {
  const ended = points.slice(0, -1);
  const first = ended.findIndex((p) => p.sent > 0);
  return ended.slice(Math.max(0, Math.min(first - 1, ended.length - LEAST_POINTS)));
}

function Sent({ points }: { points: readonly StatsPoint[] }) {
  const shown = whole(points);
  return (
    <Chart
      label="Sent per second over the last hour" at={shown.map((p) => Date.parse(p.at))} unit={(v) => count(v)} height={180}
      series={[
        { label: "Sent", color: "accent", values: shown.map((p) => p.sent / 60), fill: true },
        { label: "Failed", color: "bad", values: shown.map((p) => p.failed / 60) },
        { label: "Retried", color: "warn", values: shown.map((p) => p.retried / 60) },
      ]}
    />
  );
}

function Lateness({ points }: { points: readonly StatsPoint[] }) {
  const shown = whole(points);
  return (
    <Chart
      label="Lateness over the last hour" at={shown.map((p) => Date.parse(p.at))} unit={duration} axisUnit={shortDuration} height={180}
      series={[
        { label: "p99", color: "warn", values: shown.map((p) => p.latenessP99Ms) },
        { label: "p50", color: "ok", values: shown.map((p) => p.latenessP50Ms), fill: true },
      ]}
    />
  );
}

const FIRST = 12;
const BREAKERS = 6;

/** `all`: a reader asked for them, so they come into view. */
function Incidents({ items, all }: { items: readonly Incident[] | undefined; all: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (all && items) place.current?.scrollIntoView({ block: "start" });
  }, [all, items === undefined]);
  const more = (items?.length ?? 0) - FIRST;
  return (
    <div ref={place}>
    <Card title="Open incidents" aside={!all && more > 0 && <a href="#/now?incidents=open">{count(more)} more</a>}>
      {items?.length === 0 && <p class="empty">None is open. Rules are in a job's alerts, or in the default rules.</p>}
      {items && items.length > 0 && <ul class="plain rows">
        {(all ? items : items.slice(0, FIRST)).map((i) => (
          <li key={`${i.jobId} ${i.kind}`}>
            <span class="badge is-bad">{i.kind}</span>
            <a href={href(["jobs", i.jobId])}>{i.jobId}</a>
            <span class="faint clip" title={i.detail}><Time at={i.openedAt} />: {i.detail}</span>
          </li>
        ))}
      </ul>}
    </Card>
    </div>
  );
}

function Failing({ items, cluster }: { items: readonly ListedJob[] | undefined; cluster: Cluster | undefined }) {
  const hosts = new Map<string, number>();
  for (const j of items ?? []) hosts.set(hostOf(j.api), (hosts.get(hostOf(j.api)) ?? 0) + 1);
  return (
    <Card title="Failing hosts and breakers">
      {items?.length === 0 && cluster?.breakers.length === 0 && <p class="empty">No host fails.</p>}
      {(hosts.size > 0 || (cluster?.breakers.length ?? 0) > 0) && <ul class="plain rows">
        {cluster?.breakers.slice(0, BREAKERS).map((b) => (
          <li key={b.host}>
            <span class="badge is-warn">breaker {b.state}</span>
            <a href={href(["jobs"], { host: b.host })}>{b.host}</a>
            <span class="faint clip" title={b.reason}>tried again <Time at={b.triedAgainAt} /></span>
          </li>
        ))}
        {(cluster?.breakersInAll ?? 0) > BREAKERS && <li><a href="#/cluster">{count((cluster?.breakersInAll ?? 0) - BREAKERS)} more breakers</a></li>}
        {[...hosts].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([host, n]) => (
          <li key={`failing ${host}`}>
            <span class="badge is-bad">{n} failing</span>
            <a href={href(["jobs"], { host, failing: "true" })}>{host}</a>
          </li>
        ))}
      </ul>}
    </Card>
  );
}
