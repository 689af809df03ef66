// Runs of verify: what was owed is computed afresh, by another author's reading of cron, and compared with what was done.
import { useState } from "preact/hooks";
import { call } from "../api/calls";
import { Problem } from "../api/send";
import { nowMs } from "../clock";
import { count, duration } from "../format";
import { useLive } from "../live";
import { changeQuery, go, href, type Route } from "../route";
import { useMay } from "../session";
import { CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Time } from "../ui/now";
import { Card, Empty, Facts, Field, Head, ProblemNote } from "../ui/parts";
import { StateBadge } from "../ui/state";

/** What `horae verify --json` prints, as far as it is shown here. */
interface Report {
  clean: boolean;
  jobs: number;
  occurrences: number;
  executions: number;
  recordedAsMissed: number;
  waiting: number;
  longestLateMs: number;
  counts: Record<string, number>;
  findings?: { kind: string; jobId: string; executionId: string; text: string }[];
  findingsLeftOut?: number;
  seconds: number;
}

export function ProofScreen({ route }: { route: Route }) {
  const [asking, setAsking] = useState(false);
  const may = useMay("admin");
  const list = useLive(call("get", "/verifications"), 5000);
  const open = route.query["run"];
  return (
    <>
      <Head title="Proof" note="Computes afresh what was owed, by another author's reading of cron, and compares it with what was done.">
        {may && <button type="button" class="primary" onClick={() => setAsking(true)}>Verify…</button>}
      </Head>
      <ProblemNote problem={list.problem} />
      {list.data?.items.length === 0 && <Empty>Nothing was verified yet.</Empty>}
      {list.data?.items.map((r) => (
        <Card
          key={r.verificationId} title={<><StateBadge state={r.state} /> {r.jobId ? <a href={href(["jobs", r.jobId])}>{r.jobId}</a> : "All jobs"}</>}
          aside={<span class="faint">asked <Time at={r.askedAt} />; occurrences since <Time at={r.since} exact /></span>}
        >
          {r.error && <p class="remark">{r.error}</p>}
          {r.report && <Result report={r.report as unknown as Report} since={r.since} />}
          {r.report && <button type="button" class="small findings-button" onClick={() => changeQuery(route, { run: open === r.verificationId ? undefined : r.verificationId })}>{open === r.verificationId ? "Hide findings" : "Findings"}</button>}
          {open === r.verificationId && <Findings id={r.verificationId} />}
        </Card>
      ))}
      {asking && <AskDialog onClose={() => setAsking(false)} />}
    </>
  );
}

function Result({ report: r, since }: { report: Report; since: string }) {
  const found = Object.entries(r.counts).filter(([, n]) => n > 0);
  return (
    <>
      <p class="words">
        {r.clean ? "Clean: all that was owed was done, and nothing else." : `Found: ${found.map(([kind, n]) => `${count(n)} ${kind}`).join(", ")}.`}
        {r.clean && found.length > 0 && ` (${found.map(([kind, n]) => `${count(n)} ${kind}`).join(", ")}, which at least once allows.)`}
      </p>
      <Facts
        items={[
          ["Jobs", <a href={href(["jobs"])}>{count(r.jobs)}</a>], ["Occurrences", count(r.occurrences)], ["Executions", <a href={href(["executions"], { since })}>{count(r.executions)}</a>],
          ["Recorded as missed", <a href={href(["executions"], { state: "missed", since })}>{count(r.recordedAsMissed)}</a>], ["Still owed", <a href={href(["executions"], { state: "pending,running,retrying" })}>{count(r.waiting)}</a>], ["Latest was late by", duration(r.longestLateMs)], ["Took", duration(r.seconds * 1000)],
        ]}
      />
    </>
  );
}

function Findings({ id }: { id: string }) {
  const live = useLive(call("get", "/verifications/{verificationId}", { path: { verificationId: id } }), 5000);
  const report = live.data?.report as Report | null | undefined;
  const found = report?.findings ?? [];
  return (
    <div class="findings">
      <ProblemNote problem={live.problem} />
      {report && found.length === 0 && <p class="empty">No finding: all that was owed was done.</p>}
      {found.length > 0 && (
        <div class="table-wrap dense">
          <table>
            <thead><tr><th scope="col">Kind</th><th scope="col">Job</th><th scope="col">What</th></tr></thead>
            <tbody>
              {found.map((f, i) => (
                <tr key={i}>
                  <td><span class={`badge is-${f.kind === "redelivered" ? "off" : "bad"}`}>{f.kind}</span></td>
                  <td><a href={href(["jobs", f.jobId])}>{f.jobId}</a></td>
                  <td>{f.text} {f.executionId && <a href={href(["executions", f.executionId])}>Open</a>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {report?.findingsLeftOut ? <p class="faint">{count(report.findingsLeftOut)} more are not kept: horae verify prints all.</p> : null}
    </div>
  );
}

function AskDialog({ onClose }: { onClose: () => void }) {
  const [hours, setHours] = useState(1);
  const [job, setJob] = useState("");
  const [problem, setProblem] = useState<Problem>();
  const [base] = useState(nowMs);
  const ask = call("post", "/verifications", { body: { since: new Date(base - hours * 3_600_000).toISOString(), ...(job ? { jobId: job } : {}) } as never });
  return (
    <Dialog title="Verify" onClose={onClose}>
      <div class="form">
        <Field label="Hours back"><input type="number" min={0.1} step="any" value={hours} onInput={(e) => setHours(Number(e.currentTarget.value) || 1)} /></Field>
        <Field label="Only this job" hint="All jobs if empty."><input value={job} spellcheck={false} onInput={(e) => setJob(e.currentTarget.value)} /></Field>
      </div>
      <ProblemNote problem={problem} />
      <CurlNote call={ask} />
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>Cancel</button>
        <SendButton call={ask} label="Start" onDone={(a) => (onClose(), a && go(href(["proof"], { run: a.verificationId })))} onProblem={setProblem} />
      </div>
    </Dialog>
  );
}
