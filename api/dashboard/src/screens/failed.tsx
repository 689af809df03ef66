// What failed, grouped by host and error, and the way to send it again.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/calls";
import { nowMs } from "../clock";
import { count, plural } from "../format";
import { errorOf, filterOf, type Group } from "../groups";
import { useChanges } from "../events";
import { useLive } from "../live";
import { changeQuery, href, type Route } from "../route";
import { useMay } from "../session";
import { Time } from "../ui/now";
import { Card, Empty, Head, ProblemNote, Skeleton } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { isJobId } from "./execution";
import { ReplayDialog, Replays, type ReplayFilter } from "./replay";

/** Each group brings its latest executions, so that fifty of them take most of a second. */
const FIRST = 20;
const MORE = 40;
const MOST = 200;
const SPANS = [["1 hour", 1], ["24 hours", 24], ["7 days", 168]] as const;
const FAILED = "failed,dead";

export function FailedScreen({ route }: { route: Route }) {
  const hours = Number(route.query["hours"]) || 24;
  const since = useSince(hours);
  const limit = Math.min(MOST, Math.max(FIRST, Math.floor(Number(route.query["groups"])) || FIRST));
  const found = useLive(call("get", "/executions/failures", { query: { since, limit } }), 10_000, useChanges({ state: FAILED }));
  const [replay, setReplay] = useState<ReplayFilter>();
  const [asked, setAsked] = useState(0);
  const may = useMay("write");
  const f = found.data;
  const all: ReplayFilter = { state: ["failed", "dead"], since };
  return (
    <>
      <Head title="Failed" note={f && <><a href={href(["executions"], { state: FAILED, since })}>{plural(f.executions, "execution")}{f.complete ? "" : " or more"}</a> failed for good{f.countedSince && <>; the latest {count(f.executions)} are counted here, back to <Time at={f.countedSince} exact /></>}{f.groupsInAll > f.groups.length ? `; the largest ${f.groups.length} of ${count(f.groupsInAll)} groups` : ""}.</>}>
        {may && <button type="button" class="primary" disabled={!f?.executions} onClick={() => setReplay(all)}>Send again…</button>}
      </Head>
      <div class="filters">
        <div class="segments" role="group" aria-label="Since">
          {SPANS.map(([label, value]) => (
            <button key={label} type="button" aria-pressed={hours === value} onClick={() => changeQuery(route, { hours: String(value) })}>{label}</button>
          ))}
        </div>
      </div>
      <ProblemNote problem={found.problem} />
      {!f && !found.problem && <Skeleton />}
      {f?.groups.length === 0 && <Empty>Nothing failed in this time.</Empty>}
      <Replays version={asked} />
      {f?.groups.map((g) => {
        const narrowed = filterOf(g);
        const listed = narrowed && href(["executions"], { state: FAILED, since, ...texts(narrowed) });
        return <GroupCard key={`${g.host} ${errorOf(g)}`} group={g} listed={listed} onReplay={may && narrowed ? () => setReplay({ ...all, ...narrowed }) : undefined} />;
      })}
      {f && f.groupsInAll > f.groups.length && limit < MOST && (
        <p><button type="button" onClick={() => changeQuery(route, { groups: String(Math.min(MOST, limit + MORE)) })}>Show more groups</button></p>
      )}
      {replay && <ReplayDialog filter={replay} onClose={() => (setReplay(undefined), setAsked((n) => n + 1))} />}
    </>
  );
}

/** The beginning of the span; it stays for a minute, so that the request does not change all the time. */
function useSince(hours: number): string {
  const minuteNow = () => Math.floor(nowMs() / 60_000);
  const [minute, setMinute] = useState(minuteNow);
  useEffect(() => {
    const timer = setInterval(() => setMinute(minuteNow()), 60_000);
    return () => clearInterval(timer);
  }, []);
  return new Date(minute * 60_000 - hours * 3_600_000).toISOString();
}

function texts(filter: object): Record<string, string> {
  return Object.fromEntries(Object.entries(filter).map(([name, value]) => [name, String(value)]));
}

function GroupCard({ group: g, listed, onReplay }: { group: Group; listed: string | undefined; onReplay: (() => void) | undefined }) {
  const jobs = g.jobs ? `in ${plural(g.jobs, "job")}` : "of messages";
  return (
    <Card
      class="group"
      title={<><span class="badge is-bad">{errorOf(g)}</span> {g.host ? <a href={href(["jobs"], { host: g.host })}>{g.host}</a> : "a job that is deleted"}</>}
      aside={
        <span class="group-aside">
          <b>{listed ? <a href={listed} title="List these executions">{count(g.executions)}</a> : count(g.executions)}</b> <span class="faint">{jobs}, last <Time at={g.latestAt} /></span>
          {onReplay && <button type="button" class="small" onClick={onReplay}>Send again…</button>}
        </span>
      }
    >
      {g.host === null && <p class="remark">Its jobs are deleted: nothing says any more where these would go, so they cannot be sent again.</p>}
      <ul class="plain failures">
        {g.latest.map((e) => (
          <li key={e.executionId}>
            <StateBadge state={e.state} />
            <a href={href(["executions", e.executionId])}><Time at={e.timestamp} exact /></a>
            {isJobId(e.jobId ?? "") ? <a href={href(["jobs", e.jobId ?? ""])}>{e.jobId}</a> : <span class="faint clip">{e.jobId}</span>}
            <span class="faint clip" title={e.reason ?? ""}>{e.reason ?? `${plural(e.attempt, "attempt")}`}</span>
          </li>
        ))}
      </ul>
      {g.executions > g.latest.length && g.jobs > 0 && (
        <p class="faint more">
          The latest {g.latest.length}. All of a job: {g.jobIds.map((id, i) => <span key={id}>{i > 0 && ", "}<a href={href(["jobs", id], { state: FAILED })}>{id}</a></span>)}
          {g.jobs > g.jobIds.length && ` and ${count(g.jobs - g.jobIds.length)} more`}
        </p>
      )}
    </Card>
  );
}
