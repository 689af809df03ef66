// Executions of all jobs by state and time.
import { call } from "../api/calls";
import type { Execution } from "../api/types";
import { duration, parseDuration } from "../format";
import { useLive } from "../live";
import { changeQuery, href, type Route } from "../route";
import { Time } from "../ui/now";
import { Empty, Head, ProblemNote, Skeleton } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { Chips, Pager, Table, type Column } from "../ui/table";
import { isJobId } from "./execution";

const STATES = ["pending", "running", "retrying", "succeeded", "failed", "dead", "cancelled", "skipped", "missed"] as const;

export function ExecutionsScreen({ route }: { route: Route }) {
  const { state, since, until, cursor, host, error, status, node, batch, queue } = route.query;
  const list = useLive(call("get", "/executions", { query: { state, since, until, host, error, status, node, batch, queue, cursor, limit: 50 } }));
  const rows = list.data?.items ?? [];
  const chosen = new Set((state ?? "").split(",").filter(Boolean));
  const toggle = (name: string) => {
    const next = new Set(chosen);
    if (!next.delete(name)) next.add(name);
    changeQuery(route, { state: [...next].join(",") || undefined });
  };
  return (
    <>
      <Head title="Executions" note="Unfinished ones first, then finished ones, latest first." />
      <div class="filters">
        <div class="segments" role="group" aria-label="States">
          {STATES.map((name) => (
            <button key={name} type="button" aria-pressed={chosen.has(name)} onClick={() => toggle(name)}>{name}</button>
          ))}
        </div>
        <Chips route={route} names={["since", "until", "host", "error", "status", "node", "batch", "queue"]} />
      </div>
      <ProblemNote problem={list.problem} />
      {!list.data && !list.problem ? <Skeleton rows={12} /> : null}
      {list.data && rows.length === 0 ? <Empty>{list.data.nextCursor ? "None of the latest 20,000 matches; the next page looks further." : "No execution matches."}</Empty> : null}
      {rows.length > 0 && <Table label="Executions" columns={[JOB, ...EXECUTION_COLUMNS]} rows={rows} id={(e) => e.executionId} />}
      <Pager route={route} nextCursor={list.data?.nextCursor} shown={rows.length} />
    </>
  );
}

/** The list of unfinished executions that a node, a batch or a queue has. */
export function unfinished(of: Readonly<Record<string, string>>): string {
  return href(["executions"], { state: "pending,running,retrying", ...of });
}

/** The list of what is due and waits for a node, by the minute, so that the address stays for a while. */
export function dueAddress(nowMs: number): string {
  return href(["executions"], { state: "pending,retrying", until: new Date(Math.ceil(nowMs / 60_000) * 60_000).toISOString() });
}

const JOB: Column<Execution> = { name: "Job", class: "main-cell", cell: (e) => <a href={isJobId(e.jobId ?? "") ? href(["jobs", e.jobId ?? ""]) : href(["executions", e.executionId])}>{e.jobId}</a> };

/** The columns of an execution, here and on its job's screen. */
export const EXECUTION_COLUMNS: readonly Column<Execution>[] = [
  {
    name: "Planned", class: "num",
    cell: (e) => <a href={href(["executions", e.executionId])}><Time at={e.scheduledAt} exact ms /></a>,
  },
  { name: "State", cell: (e) => <StateBadge state={e.state} /> },
  { name: "Result", class: "result", cell: (e) => <Result execution={e} /> },
  { name: "Attempt", class: "num mid", cell: (e) => (e.attempt ? e.attempt : "–") },
  { name: "Late", class: "num mid", cell: (e) => duration(e.driftMs) },
  { name: "Took", class: "num mid", cell: (e) => duration(parseDuration(e.duration)) },
];

function Result({ execution: e }: { execution: Execution }) {
  const what = [e.status, e.error].filter(Boolean).join(" ");
  const more = e.state === "missed" && (e.missedCount ?? 1) > 1 ? `${e.missedCount} occurrences` : e.reason;
  return <span class="clip" title={[what, more].filter(Boolean).join(": ")}>{what}{what && more ? " · " : ""}{more}</span>;
}
