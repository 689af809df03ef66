// One execution: its attempts on a bar of time, what was sent and what came back, and why it ended as it did.
import { call } from "../api/calls";
import type { Attempt, ExecutionInFull } from "../api/types";
import { clock, count, duration } from "../format";
import { useChanges } from "../events";
import { POLL_MS, useLive } from "../live";
import { href, type Route } from "../route";
import { Action } from "../ui/action";
import { AttemptBar } from "../ui/attempt-bar";
import { Time } from "../ui/now";
import { Card, Code, CopyButton, Facts, Head, ProblemNote, Skeleton } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { requestAsCurl, ruleOf } from "../verdict";

const REPLAYABLE = ["failed", "dead", "cancelled"];
const UNFINISHED = ["pending", "running", "retrying"];

export function ExecutionScreen({ route }: { route: Route }) {
  const executionId = route.path[1] ?? "";
  const jobId = executionId.replace(/:\d{13}(:missed)?$/, "");
  const live = useLive(call("get", "/executions/{executionId}", { path: { executionId } }), POLL_MS, useChanges({ job: jobId }));
  // Alerts and messages have executions and no job.
  const job = useLive(/^(alert|msg)\./.test(jobId) ? null : call("get", "/jobs/{jobId}", { path: { jobId } }), 0);
  const e = live.data;
  const curl = job.data && e ? requestAsCurl(job.data, e) : undefined;
  return (
    <>
      <p class="crumbs"><a href="#/jobs">Jobs</a> / <a href={href(["jobs", jobId])}>{jobId}</a> / <span>{executionId.slice(jobId.length + 1)}</span></p>
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
      {e && <Body execution={e} codes={job.data?.successCodes ?? null} />}
    </>
  );
}

function Body({ execution: e, codes }: { execution: ExecutionInFull; codes: readonly (number | string)[] | null }) {
  const last = e.attempts[e.attempts.length - 1];
  return (
    <>
      <Card class="summary">
        <Facts
          items={[
            ["State", <StateBadge state={e.state} />],
            ["Result", [e.status, e.error].filter(Boolean).join(" ") || <span class="faint">none</span>],
            ["Late", duration(e.driftMs)],
            ["Attempts", count(e.attempt)],
            ["Node", e.node ?? <span class="faint">none</span>],
            ["Fencing token", last ? String(last.token) : <span class="faint">none</span>],
            ["Began by", e.trigger ? "a request" : "the schedule"],
            ["Ended", e.endedAt ? <Time at={e.endedAt} exact ms /> : <span class="faint">not yet</span>],
          ]}
        />
        <p class="words">{ruleOf(e, codes)}</p>
        {e.reason && <p class="remark">{e.reason}</p>}
      </Card>
      <Card title="Attempts" aside={<a href={href(["jobs", e.executionId.replace(/:\d{13}(:missed)?$/, "")], { at: e.scheduledAt })}>Explain in sentences</a>}>
        {e.attempts.length > 0 ? <AttemptBar execution={e} /> : <p class="empty">{UNFINISHED.includes(e.state) ? "Nothing was sent yet." : "Nothing was sent."}</p>}
        {e.attemptsLeftOut ? <p class="remark">{e.attemptsLeftOut} attempts between the first 20 and the last 180 are not kept.</p> : null}
        {[...e.attempts].reverse().map((a) => <OneAttempt key={`${a.attempt}-${a.sentAt}`} attempt={a} />)}
      </Card>
    </>
  );
}

function OneAttempt({ attempt: a }: { attempt: Attempt }) {
  const good = a.status !== null && a.error === null && a.status < 300;
  return (
    <details class="attempt-row">
      <summary>
        <span class="num">{a.attempt}</span>
        <span class={`badge is-${good ? "ok" : "bad"}`}>{[a.status, a.error].filter(Boolean).join(" ")}</span>
        <span>{clock(Date.parse(a.sentAt), Date.now(), undefined, true)}</span>
        <span>{duration(a.durationMs)}</span>
        <span class="faint">{a.node}, token {a.token}</span>
      </summary>
      {a.detail && <p class="remark">{a.detail}</p>}
      {a.responseExcerpt ? <Code text={a.responseExcerpt} label={`The response to attempt ${a.attempt}`} /> : <p class="empty">The response had no content.</p>}
    </details>
  );
}
