// One execution: its attempts on a bar of time, what was sent and what came back, and why it ended as it did.
import type { ComponentChildren } from "preact";
import { call } from "../api/calls";
import type { Attempt, ExecutionInFull, Job } from "../api/types";
import { nowMs } from "../clock";
import { clock, count, duration, plural } from "../format";
import { useChanges } from "../events";
import { POLL_MS, useLive } from "../live";
import { href, type Route } from "../route";
import { Action } from "../ui/action";
import { AttemptBar } from "../ui/attempt-bar";
import { Time } from "../ui/now";
import { Card, Code, CopyButton, Facts, Head, ProblemNote, Skeleton } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { requestAsCurl, ruleOf, verdictOf } from "../verdict";

const REPLAYABLE = ["failed", "dead", "cancelled"];
const UNFINISHED = ["pending", "running", "retrying"];

/** The job of an execution, or the message, callback or alert that it belongs to. */
export function ownerOf(executionId: string): string {
  return executionId.replace(/:\d{13}(:missed|:(after-)?[0-9a-f]{32})?$/, "");
}

/** Whether executions of this owner are of a job that people made. */
export function isJobId(owner: string): boolean {
  return !/^(msg|cb|alert)\./.test(owner);
}

const LISTS = [["msg.", "Messages", "#/messages"], ["cb.", "Callbacks", "#/executions"], ["alert.", "Channels", "#/channels"]] as const;

export function ExecutionScreen({ route }: { route: Route }) {
  const executionId = route.path[1] ?? "";
  const jobId = ownerOf(executionId);
  const isMessage = jobId.startsWith("msg.");
  const isJob = isJobId(jobId);
  const live = useLive(call("get", "/executions/{executionId}", { path: { executionId } }), POLL_MS, useChanges({ job: jobId }));
  // Alerts and messages have executions and no job.
  const job = useLive(isJob ? call("get", "/jobs/{jobId}", { path: { jobId } }) : null, 0);
  const message = useLive(isMessage ? call("get", "/messages/{messageId}", { path: { messageId: jobId } }) : null, 0);
  const e = live.data;
  const request = job.data ?? (message.data?.api ? { api: message.data.api } : undefined);
  const curl = request && e ? requestAsCurl(request, e) : undefined;
  const list = LISTS.find(([prefix]) => jobId.startsWith(prefix));
  const above = list ? <><a href={list[2]}>{list[1]}</a> / {jobId}</> : <><a href="#/jobs">Jobs</a> / <a href={href(["jobs", jobId])}>{jobId}</a></>;
  return (
    <>
      <p class="crumbs">{above} / <span>{executionId.slice(jobId.length + 1)}</span></p>
      <Head title={job.data?.name || jobId} note={<>Planned for <Time at={e?.scheduledAt} exact ms /></>}>
        {curl && <CopyButton text={curl} label="Copy request as curl" />}
        {e && REPLAYABLE.includes(e.state) && (
          <Action
            label="Send again" title="Send this execution again" primary onDone={live.reload}
            call={call("post", "/executions/{executionId}/retry", { path: { executionId } })} done={(c) => c?.note ?? "It will be sent again."}
          >
            <p>It is sent again under the same id, with a full set of attempts. A target that honours <code>Idempotency-Key</code> sees that it is the same.</p>
          </Action>
        )}
      </Head>
      <ProblemNote problem={live.problem} />
      {!e && !live.problem && <Skeleton />}
      {e && <Summary execution={e} job={job.data} />}
      {e && <Attempts execution={e} isJob={isJob} codes={job.data?.successCodes ?? null} />}
      {e && <FollowUps execution={e} />}
      {request && <Request url={request.api} curl={curl} revised={job.data?.revision} />}
    </>
  );
}

const none = <span class="faint">none</span>;

function Summary({ execution: e, job }: { execution: ExecutionInFull; job: Job | undefined }) {
  const last = e.attempts[e.attempts.length - 1];
  const planned = Date.parse(e.sendAt) - Date.parse(e.scheduledAt);
  return (
    <Card class="summary">
      <Facts
        items={[
          ["State", <StateBadge state={e.state} />],
          ["Result", [e.status, e.error].filter(Boolean).join(" ") || none],
          ["Due", <Time at={e.scheduledAt} exact ms />],
          ["To be sent", planned === 0 ? "when due" : <><Time at={e.sendAt} exact ms /></>],
          ["Claimed", last?.claimedAt ? <Time at={last.claimedAt} exact ms /> : none],
          ["Late", duration(e.driftMs)],
          ["Attempts", count(e.attempt)],
          ["Ended", e.endedAt ? <Time at={e.endedAt} exact ms /> : <span class="faint">not yet</span>],
          ["Began by", e.follows ? <a href={href(["executions", e.follows])}>{ownerOf(e.follows)}</a> : e.trigger || !isJobId(ownerOf(e.executionId)) ? "a request" : "the schedule"],
          ["Node", e.node ?? none],
          ["Fencing token", last ? String(last.token) : none],
          ["Trace", <code class="trace">{e.traceId}</code>],
        ]}
      />
      <p class="words">{ruleOf(e, job?.successCodes ?? null, job?.retry)}</p>
      {e.reason && <p class="remark">{e.reason}</p>}
    </Card>
  );
}

function Attempts({ execution: e, isJob, codes }: { execution: ExecutionInFull; isJob: boolean; codes: readonly (number | string)[] | null }) {
  const nothing: ComponentChildren = UNFINISHED.includes(e.state) ? "Nothing was sent yet." : "Nothing was sent.";
  return (
    <Card title="Attempts" aside={isJob && <a href={href(["jobs", ownerOf(e.executionId)], { at: e.scheduledAt })}>Explain in sentences</a>}>
      {e.attempts.length > 0 ? <AttemptBar execution={e} /> : <p class="empty">{nothing}</p>}
      {e.attemptsLeftOut ? <p class="remark">{e.attemptsLeftOut} attempts between the first 20 and the last 180 are not kept.</p> : null}
      {[...e.attempts].reverse().map((a, i) => <OneAttempt key={`${a.attempt}-${a.sentAt}`} attempt={a} codes={codes} open={i === 0} gaveUp={i === 0 && e.state === "dead"} />)}
    </Card>
  );
}

interface AttemptShown {
  attempt: Attempt;
  codes: readonly (number | string)[] | null;
  open: boolean;
  gaveUp: boolean;
}

function OneAttempt({ attempt: a, codes, open, gaveUp }: AttemptShown) {
  const verdict = verdictOf(a, codes, gaveUp);
  const at = (ms: number) => clock(ms, nowMs(), undefined, true);
  const sent = Date.parse(a.sentAt);
  return (
    <details class="attempt-row" open={open}>
      <summary>
        <span class="num">{a.attempt}</span>
        <span class={`badge is-${verdict.good ? "ok" : "bad"}`}>{[a.status, a.error].filter(Boolean).join(" ")}</span>
        <span>{at(sent)}</span>
        <span>{duration(a.durationMs)}</span>
        <span class="faint">{a.node}, token {a.token}</span>
      </summary>
      <p class="steps">
        {a.claimedAt && <>claimed <b>{at(Date.parse(a.claimedAt))}</b> → </>}sent <b>{at(sent)}</b> → {a.status === null ? "ended" : "answered"} <b>{at(sent + a.durationMs)}</b>: {verdict.words}
      </p>
      {a.detail && <p class="remark">{a.detail}</p>}
      {a.responseExcerpt ? <Code text={a.responseExcerpt} label={`The response to attempt ${a.attempt}`} /> : <p class="faint">The response had no content.</p>}
    </details>
  );
}

/** The callbacks and chained runs that follow it. Nothing if there is none. */
function FollowUps({ execution: e }: { execution: ExecutionInFull }) {
  if (!e.followUps?.length) return null;
  return (
    <Card title="What follows it">
      <ul class="plain rows">
        {e.followUps.map((f) => (
          <li key={f.executionId}>
            <StateBadge state={f.state} />
            <a href={href(["executions", f.executionId])}>{f.kind === "callback" ? "a callback" : f.jobId}</a>
            <span class="faint">{plural(f.attempt, "attempt")}</span>
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Request({ url, curl, revised }: { url: string; curl: string | undefined; revised: number | undefined }) {
  return (
    <Card title="Request" aside={<span class="faint">{revised === undefined ? "headers and body of messages are not shown" : `as of revision ${revised} of the job`}</span>}>
      <p class="url"><b>POST</b> <code>{url}</code></p>
      {curl && <details class="curl"><summary>Headers and body, as curl</summary><Code text={curl} label="The request as a curl command" /></details>}
    </Card>
  );
}
