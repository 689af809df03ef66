// What failed, grouped by host and error, and the way to send it again.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/calls";
import { send } from "../api/send";
import type { Execution } from "../api/types";
import { count, hostOf, plural } from "../format";
import { groupFailures, hostsOf, type Group } from "../groups";
import { useChanges } from "../events";
import { useLive } from "../live";
import { changeQuery, href, type Route } from "../route";
import { useMay } from "../session";
import { Time } from "../ui/now";
import { Card, Empty, Head, ProblemNote, Skeleton } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { ReplayDialog, Replays, type ReplayFilter } from "./replay";

const MOST = 200;
const SPANS = [["1 hour", 1], ["24 hours", 24], ["7 days", 168]] as const;

export function FailedScreen({ route }: { route: Route }) {
  const hours = Number(route.query["hours"]) || 24;
  const since = useSince(hours);
  const list = useLive(call("get", "/executions", { query: { state: "failed,dead", since, limit: MOST } }), 10_000, useChanges({ state: "failed,dead" }));
  const failing = useLive(call("get", "/jobs", { query: { failing: "true", limit: MOST } }), 30_000);
  const hosts = useHosts(list.data?.items, failing.data?.items ?? []);
  const [replay, setReplay] = useState<ReplayFilter>();
  const [asked, setAsked] = useState(0);
  const may = useMay("write");
  const items = list.data?.items ?? [];
  const groups = groupFailures(items, hosts);
  return (
    <>
      <Head title="Failed" note={items.length === MOST ? `The latest ${MOST} failures.` : `${plural(items.length, "execution")} failed for good.`}>
        {may && <button type="button" class="primary" onClick={() => setReplay({ state: ["failed", "dead"], since })}>Send again…</button>}
      </Head>
      <div class="filters">
        <div class="segments" role="group" aria-label="Since">
          {SPANS.map(([label, value]) => (
            <button key={label} type="button" aria-pressed={hours === value} onClick={() => changeQuery(route, { hours: String(value) })}>{label}</button>
          ))}
        </div>
      </div>
      <ProblemNote problem={list.problem} />
      {!list.data && !list.problem && <Skeleton />}
      {list.data && groups.length === 0 && <Empty>Nothing failed in this time.</Empty>}
      <Replays version={asked} />
      {groups.map((g) => <GroupCard key={`${g.host} ${g.error}`} group={g} onReplay={may ? () => setReplay(filterOf(g, since)) : undefined} />)}
      {replay && <ReplayDialog filter={replay} onClose={() => (setReplay(undefined), setAsked((n) => n + 1))} />}
    </>
  );
}

/** The beginning of the span; it stays for a minute, so that the request does not change all the time. */
function useSince(hours: number): string {
  const [minute, setMinute] = useState(() => Math.floor(Date.now() / 60_000));
  useEffect(() => {
    const timer = setInterval(() => setMinute(Math.floor(Date.now() / 60_000)), 60_000);
    return () => clearInterval(timer);
  }, []);
  return new Date(minute * 60_000 - hours * 3_600_000).toISOString();
}

/** The hosts of the jobs that failed. Jobs that no longer fail are asked for one by one, once. */
function useHosts(items: readonly Execution[] | undefined, failing: readonly { jobId: string; api: string }[]): Map<string, string> {
  const [more, setMore] = useState<Map<string, string>>(new Map());
  const known = new Map([...hostsOf(failing), ...more]);
  // An id with a dot is that of an alert, a callback or a message, which have no job.
  const missing = [...new Set((items ?? []).map((e) => e.jobId ?? ""))].filter((id) => id && !id.includes(".") && !known.has(id)).slice(0, 12);
  useEffect(() => {
    if (missing.length === 0 || failing.length === 0) return undefined;
    let here = true;
    void Promise.all(
      missing.map((jobId) => send(call("get", "/jobs/{jobId}", { path: { jobId } })).then((j) => [jobId, hostOf(j.api)] as const, () => [jobId, "deleted job"] as const)),
    ).then((found) => here && setMore((m) => new Map([...m, ...found])));
    return () => {
      here = false;
    };
  }, [missing.join(), failing.length]);
  return known;
}

function filterOf(group: Group, since: string): ReplayFilter {
  const one = group.jobs.length === 1 ? { jobId: group.jobs[0] } : {};
  const error = group.status === null ? { error: group.error as NonNullable<ReplayFilter["error"]> } : { status: group.status };
  return { state: ["failed", "dead"], since, ...one, ...error };
}

function GroupCard({ group, onReplay }: { group: Group; onReplay: (() => void) | undefined }) {
  const [all, setAll] = useState(false);
  const shown = all ? group.items : group.items.slice(0, 5);
  return (
    <Card
      class="group"
      title={<><span class="badge is-bad">{group.error}</span> <a href={href(["jobs"], { host: group.host, failing: "true" })}>{group.host}</a></>}
      aside={
        <span class="group-aside">
          <b>{count(group.items.length)}</b> <span class="faint">in {plural(group.jobs.length, "job")}, last <Time at={group.latest} /></span>
          {onReplay && <button type="button" class="small" onClick={onReplay}>Send again…</button>}
        </span>
      }
    >
      <ul class="plain failures">
        {shown.map((e) => (
          <li key={e.executionId}>
            <StateBadge state={e.state} />
            <a href={href(["executions", e.executionId])}><Time at={e.timestamp} exact /></a>
            <a href={href(["jobs", e.jobId ?? ""])}>{e.jobId}</a>
            <span class="faint clip" title={e.reason ?? ""}>{e.reason ?? `${plural(e.attempt, "attempt")}`}</span>
          </li>
        ))}
      </ul>
      {group.items.length > shown.length && <button type="button" class="link" onClick={() => setAll(true)}>Show all {group.items.length}</button>}
    </Card>
  );
}
