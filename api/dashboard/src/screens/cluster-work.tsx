// What the cluster has in hand: leases of batches, limits with who waits for them, ranges to catch up; and its replica set.
import { useEffect, useRef } from "preact/hooks";
import { call } from "../api/calls";
import type { Schemas } from "../api/types";
import { count, duration, plural } from "../format";
import { useLive } from "../live";
import { href } from "../route";
import { Time } from "../ui/now";
import { Card, Facts, ProblemNote } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { Table, type Column } from "../ui/table";
import { ownerOf } from "./execution";
import { unfinished } from "./executions";

type Lease = Schemas["LeaseView"];
type Limit = Schemas["LimitView"];
type Range = Schemas["CatchUpView"];
type Member = Schemas["MemberView"];

export function WorkInHand({ part }: { part: string | undefined }) {
  const live = useLive(call("get", "/cluster/work"));
  const w = live.data;
  const leases = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    // A figure above led here.
    if (part === "leases" && w) (leases.current?.scrollIntoView({ block: "start" }), leases.current?.focus({ preventScroll: true }));
  }, [part, w === undefined]);
  return (
    <>
      <ProblemNote problem={live.problem} />
      <h2 class="section">Limits {w && <Shown n={w.limits.length} of={w.limitsInAll} />}</h2>
      {w && (w.limits.length ? <Table label="Limits" columns={LIMITS} rows={w.limits} id={(l) => l.queue ?? l.jobId ?? ""} /> : <p class="card empty">Nothing runs or waits under a limit.</p>)}
      <h2 class="section">Catch-up {w && <Shown n={w.catchUp.length} of={w.catchUpInAll} />}</h2>
      {w && (w.catchUp.length ? <Table label="Catch-up" columns={RANGES} rows={w.catchUp} id={(r) => `${r.schedule} ${r.jobId} ${r.from}`} /> : <p class="card empty">Nothing is behind: all that came due was written down.</p>)}
      <h2 class="section" ref={leases} tabIndex={-1}>Leases of batches {w && <Shown n={w.leases.length} of={w.leasesInAll} />}</h2>
      {w && (w.leases.length ? <Table label="Leases" columns={LEASES} rows={w.leases} id={(l) => l.batch} /> : <p class="card empty">No node holds a batch now.</p>)}
    </>
  );
}

function Shown({ n, of }: { n: number; of: number }) {
  return <span class="faint">{n < of ? `${count(n)} of ${count(of)}` : count(of)}</span>;
}

function Executions({ ids }: { ids: readonly string[] }) {
  return <span class="clip">{ids.map((id, i) => <span key={id}>{i > 0 && ", "}<a href={href(["executions", id])}>{ownerOf(id)}</a></span>)}</span>;
}

function underLimit(l: Limit): string {
  return l.queue !== null ? unfinished({ queue: l.queue }) : href(["jobs", l.jobId ?? ""], { state: "pending,running,retrying" });
}

const LIMITS: readonly Column<Limit>[] = [
  { name: "Of", class: "main-cell", cell: (l) => (l.queue !== null ? <a href={href(["queues"])}>queue {l.queue}</a> : <a href={href(["jobs", l.jobId ?? ""])}>{l.jobId}</a>) },
  { name: "Limit", cell: (l) => [l.maxPerSecond !== null && `${count(l.maxPerSecond)}/s`, l.maxConcurrent !== null && `${count(l.maxConcurrent)} at once`].filter(Boolean).join(", ") || <span class="faint">none any more</span> },
  { name: "In flight", class: "num", cell: (l) => <a href={underLimit(l)}>{count(l.running)}</a> },
  { name: "Runs", class: "result mid", cell: (l) => <Executions ids={l.runningExecutions} /> },
  { name: "Wait", class: "num", cell: (l) => <a href={underLimit(l)}>{count(l.waiting)}</a> },
  { name: "Next", class: "result mid", cell: (l) => <Executions ids={l.nextExecutions} /> },
];

const RANGES: readonly Column<Range>[] = [
  { name: "Of", class: "main-cell", cell: (r) => (r.jobId ? <a href={href(["jobs", r.jobId])}>{r.jobId}</a> : <code>{r.schedule}</code>) },
  { name: "From", class: "num", cell: (r) => <Time at={r.from} exact /> },
  { name: "Until", class: "num", cell: (r) => <Time at={r.until} exact /> },
  { name: "Reached", class: "num mid", cell: (r) => <Time at={r.reached} exact /> },
  { name: "Noticed", class: "num mid", cell: (r) => <Time at={r.noticedAt} /> },
];

const LEASES: readonly Column<Lease>[] = [
  { name: "Batch", class: "main-cell", cell: (l) => <><code title={l.batch}>{l.batch.slice(0, 12)}</code>{l.host && <span class="sub">{l.host}</span>}</> },
  { name: "Node", class: "mid", cell: (l) => <span class="clip">{l.nodeId}</span> },
  { name: "Executions", class: "num", cell: (l) => <a href={unfinished({ batch: l.batch })}>{count(l.executions)}</a> },
  { name: "Token", class: "num", cell: (l) => count(l.token) },
  { name: "Claims", class: "num mid", cell: (l) => count(l.claims) },
  { name: "Attempt", class: "num mid", cell: (l) => count(l.attempt) },
  { name: "Kind", class: "mid", cell: (l) => (l.late ? <StateBadge state="retrying" text="late work" /> : <StateBadge state="running" text="on time" />) },
  { name: "Lease ends", class: "num", cell: (l) => <Time at={l.expiresAt} /> },
];

export function DatabaseCard() {
  const live = useLive(call("get", "/cluster/database"), 15_000);
  const d = live.data;
  if (!d) return <ProblemNote problem={live.problem} />;
  return (
    <>
      <h2 class="section">MongoDB</h2>
      <Card class="summary">
        <Facts
          items={[
            ["Version", d.server], ["Replica set", d.replicaSet ?? "none"], ["Schema", d.schemaVersion === null ? "not known" : `version ${d.schemaVersion}`],
            ["Round trip", duration(d.roundTripMs)], ["Oplog reaches back", d.oplogWindowSeconds === null ? "not known" : duration(d.oplogWindowSeconds * 1000)],
            ["Members", d.members === null ? "not known" : plural(d.members.length, "member")],
          ]}
        />
      </Card>
      {d.members && <Table label="Members of the replica set" columns={MEMBERS} rows={d.members} id={(m) => m.name} />}
      {d.members === null && <p class="faint">The database user may not read the members (it needs the role clusterMonitor).</p>}
    </>
  );
}

const MEMBERS: readonly Column<Member>[] = [
  { name: "Member", class: "main-cell", cell: (m) => <b>{m.name}</b> },
  { name: "State", cell: (m) => <StateBadge state={!m.healthy ? "dead" : m.state === "PRIMARY" ? "running" : m.state === "SECONDARY" || m.state === "ARBITER" ? "active" : "retrying"} text={m.healthy ? m.state.toLowerCase() : "not reachable"} /> },
  { name: "Behind", class: "num", cell: (m) => (m.lagMs === null ? <span class="faint">not known</span> : duration(m.lagMs)) },
];
