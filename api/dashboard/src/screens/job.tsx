// One job: its schedule in words, its next and last runs, why it did or did not run, and what can be done with it.
import { useState } from "preact/hooks";
import { call } from "../api/calls";
import type { Execution, Job } from "../api/types";
import { nowMs } from "../clock";
import { clock, count, duration, parseDuration, shortDuration } from "../format";
import { useChanges } from "../events";
import { POLL_MS, useLive } from "../live";
import { changeQuery, href, type Route } from "../route";
import { Chart } from "../ui/chart";
import { Time } from "../ui/now";
import { Card, Facts, Head, ProblemNote, Skeleton, Tags } from "../ui/parts";
import { OutcomeBars } from "../ui/outcome-bars";
import { StateBadge, outcomeCounts } from "../ui/state";
import { Table } from "../ui/table";
import { EXECUTION_COLUMNS } from "./executions";
import { offers } from "../api/offered";
import { Backfills } from "./job-backfill";
import { Revisions } from "./job-revisions";
import { Explain } from "./job-explain";
import { JobActions } from "./job-actions";
import { NextRuns } from "./job-next-runs";
import { Target } from "./job-target";

const RECENT = 100;

export function JobScreen({ route }: { route: Route }) {
  const jobId = route.path[1] ?? "";
  const changes = useChanges({ job: jobId });
  const job = useLive(call("get", "/jobs/{jobId}", { path: { jobId }, query: { nextRuns: 10 } }), POLL_MS, changes);
  const recent = useLive(call("get", "/jobs/{jobId}/executions", { path: { jobId }, query: { limit: RECENT } }), POLL_MS, changes);
  const [acted, setActed] = useState(0);
  const reload = () => (job.reload(), recent.reload(), setActed((n) => n + 1));
  const j = job.data;
  return (
    <>
      <p class="crumbs"><a href="#/jobs">Jobs</a> / <span>{jobId}</span></p>
      <Head title={j?.name || jobId} note={j?.description}>{j && <JobActions job={j} onChange={reload} />}</Head>
      <ProblemNote problem={job.problem} />
      {!j && !job.problem && <Skeleton />}
      {j && <Summary job={j} recent={recent.data ?? []} />}
      {j && (
        <div class="columns">
          <NextRuns job={j} />
          <Target job={j} />
        </div>
      )}
      <Recent items={recent.data} jobId={jobId} />
      <Backfills jobId={jobId} version={acted} />
      <Explain route={route} jobId={jobId} />
      <History route={route} jobId={jobId} />
      {j && offers("/jobs/{jobId}/revisions") && <Revisions key={j.revision} jobId={jobId} current={j.revision} onChange={reload} />}
    </>
  );
}

function Summary({ job, recent }: { job: Job; recent: readonly Execution[] }) {
  const took = recent.map((e) => parseDuration(e.duration)).filter((v): v is number => v !== null).sort((a, b) => a - b);
  const late = recent.map((e) => e.driftMs).filter((v): v is number => v !== null).sort((a, b) => a - b);
  const at = (values: number[], q: number) => duration(values[Math.min(values.length - 1, Math.floor(values.length * q))]);
  return (
    <Card class="summary">
      <Facts
        items={[
          ["State", <><StateBadge state={job.state} />{job.stateReason && <span class="sub">{job.stateReason}</span>}</>],
          ["Next run", job.state === "active" && job.nextRuns[0] ? <Time at={job.nextRuns[0]} /> : <span class="faint">none</span>],
          ["Last run", job.lastExecution ? <a href={href(["executions", job.lastExecution.executionId])}><Time at={job.lastExecution.timestamp} /> <StateBadge state={job.lastExecution.state} /></a> : <span class="faint">none yet</span>],
          ["Lateness p50 / p99", `${at(late, 0.5)} / ${at(late, 0.99)}`],
          ["Duration p50 / p99", `${at(took, 0.5)} / ${at(took, 0.99)}`],
          ["Revision", count(job.revision)],
          ["Tags", job.tags.length ? <Tags tags={job.tags} /> : <span class="faint">none</span>],
        ]}
      />
    </Card>
  );
}

function Recent({ items, jobId }: { items: readonly Execution[] | undefined; jobId: string }) {
  const sent = (items ?? []).filter((e) => e.duration !== null).sort((a, b) => a.timestamp.localeCompare(b.timestamp));
  if (items?.length === 0) return null;
  return (
    <Card title="Recent runs" aside={<span class="faint">{outcomeCounts(items ?? []).map(([state, n], i) => <span key={state}>{i > 0 && ", "}<a href={href(["jobs", jobId], { state })}>{n} {state}</a></span>)}</span>}>
      <OutcomeBars items={items ?? []} size={RECENT} />
      {sent.length > 1 && (
        <Chart
          label="Duration and lateness of the last runs"
          at={sent.map((e) => Date.parse(e.timestamp))}
          unit={duration}
          axisUnit={shortDuration}
          height={140}
          series={[
            { label: "Duration", color: "accent", values: sent.map((e) => parseDuration(e.duration)), fill: true },
            { label: "Lateness", color: "warn", values: sent.map((e) => e.driftMs) },
          ]}
        />
      )}
    </Card>
  );
}

function History({ route, jobId }: { route: Route; jobId: string }) {
  const { state, before } = route.query;
  const list = useLive(call("get", "/jobs/{jobId}/executions", { path: { jobId }, query: { limit: 25, state, before } }), before ? 0 : undefined);
  const rows = list.data ?? [];
  const last = rows[rows.length - 1];
  return (
    <Card
      title="Executions"
      aside={
        <div class="segments" role="group" aria-label="State">
          {[undefined, "failed,dead", "retrying", "skipped,missed,cancelled"].map((value) => (
            <button key={value ?? "all"} type="button" aria-pressed={state === value} onClick={() => changeQuery(route, { state: value, before: undefined })}>
              {value === undefined ? "All" : value === "failed,dead" ? "Failed" : value === "retrying" ? "Retrying" : "Not sent"}
            </button>
          ))}
        </div>
      }
    >
      <ProblemNote problem={list.problem} />
      {rows.length > 0 ? <Table label="Executions of this job" columns={EXECUTION_COLUMNS} rows={rows} id={(e) => e.executionId} /> : <p class="empty">{list.data ? "None." : list.problem ? "Not known." : "Loading…"}</p>}
      <nav class="pager" aria-label="Pages">
        {before && <button type="button" onClick={() => changeQuery(route, { before: undefined }, false)}>Latest</button>}
        {rows.length === 25 && last && <button type="button" onClick={() => changeQuery(route, { before: last.executionId }, false)}>Older than {clock(Date.parse(last.scheduledAt), nowMs())}</button>}
      </nav>
    </Card>
  );
}
