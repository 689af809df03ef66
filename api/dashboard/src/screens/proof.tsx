// Runs of verify: what was owed is computed afresh, by another author's reading of cron, and compared with what was done.
import { useState } from "preact/hooks";
import { loose } from "../api/loose";
import { Problem } from "../api/send";
import { count } from "../format";
import { useLive } from "../live";
import { changeQuery, go, href, type Route } from "../route";
import { useMay } from "../session";
import { CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Time } from "../ui/now";
import { Card, Empty, Field, Head, ProblemNote } from "../ui/parts";
import { StateBadge } from "../ui/state";

interface Run {
  verificationId: string;
  state: string;
  askedAt: string;
  endedAt: string | null;
  since: string;
  until: string | null;
  jobId: string | null;
  error: string | null;
  report: Record<string, unknown> | null;
}

interface Finding {
  [name: string]: unknown;
}

export function ProofScreen({ route }: { route: Route }) {
  const [asking, setAsking] = useState(false);
  const may = useMay("admin");
  const list = useLive(loose<{ items: Run[] }>("get", "/verifications"), 5000);
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
          {r.report && <Report report={r.report} />}
          <button type="button" class="small" onClick={() => changeQuery(route, { run: open === r.verificationId ? undefined : r.verificationId })}>{open === r.verificationId ? "Hide findings" : "Findings"}</button>
          {open === r.verificationId && <Findings id={r.verificationId} />}
        </Card>
      ))}
      {asking && <AskDialog onClose={() => setAsking(false)} />}
    </>
  );
}

/** The counts of a report, whatever they are called. */
function Report({ report }: { report: Record<string, unknown> }) {
  const counts = Object.entries(report).filter((entry): entry is [string, number] => typeof entry[1] === "number");
  const words = (name: string) => name.replace(/([A-Z])/g, " $1").toLowerCase();
  return <dl class="facts">{counts.map(([name, n]) => <div key={name}><dt>{words(name)}</dt><dd>{count(n)}</dd></div>)}</dl>;
}

function Findings({ id }: { id: string }) {
  const live = useLive(loose<Run>("get", `/verifications/${encodeURIComponent(id)}`), 5000);
  const found = (live.data?.report?.["findings"] as Finding[] | undefined) ?? [];
  return (
    <>
      <ProblemNote problem={live.problem} />
      {live.data?.report && found.length === 0 && <p class="words">Nothing was found: all that was owed was done.</p>}
      <ul class="plain">
        {found.map((f, i) => (
          <li key={i}>
            {Object.entries(f).map(([name, value]) => (
              <span key={name} class="finding">{name === "jobId" ? <a href={href(["jobs", String(value)])}>{String(value)}</a> : <><span class="faint">{name}</span> {typeof value === "object" ? JSON.stringify(value) : String(value)}</>} </span>
            ))}
          </li>
        ))}
      </ul>
    </>
  );
}

function AskDialog({ onClose }: { onClose: () => void }) {
  const [hours, setHours] = useState(1);
  const [job, setJob] = useState("");
  const [problem, setProblem] = useState<Problem>();
  const [base] = useState(Date.now);
  const ask = loose<{ verificationId: string }>("post", "/verifications", { body: { since: new Date(base - hours * 3_600_000).toISOString(), ...(job ? { jobId: job } : {}) } });
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
        <SendButton call={ask} label="Start" onDone={(a) => (onClose(), go(href(["proof"], { run: a.verificationId })))} onProblem={setProblem} />
      </div>
    </Dialog>
  );
}
