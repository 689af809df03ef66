// Occurrences of the past, sent afterwards: how many first, then the start.
import { useState } from "preact/hooks";
import { loose } from "../api/loose";
import { Problem } from "../api/send";
import { plural } from "../format";
import { useLive } from "../live";
import { useMay } from "../session";
import { CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Field, ProblemNote } from "../ui/parts";
import { Time } from "../ui/now";
import { toast } from "../ui/toast";

interface Plan {
  count: number;
  first: string | null;
  last: string | null;
  alreadyRun: number;
}

export function BackfillButton({ jobId }: { jobId: string }) {
  const [open, setOpen] = useState(false);
  if (!useMay("write")) return null;
  return (
    <>
      <button type="button" onClick={() => setOpen(true)}>Backfill</button>
      {open && <BackfillDialog jobId={jobId} onClose={() => setOpen(false)} />}
    </>
  );
}

function local(ms: number): string {
  return new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function BackfillDialog({ jobId, onClose }: { jobId: string; onClose: () => void }) {
  const [from, setFrom] = useState(() => local(Date.now() - 86_400_000));
  const [until, setUntil] = useState(() => local(Date.now()));
  const [again, setAgain] = useState(false);
  const [rate, setRate] = useState(10);
  const [problem, setProblem] = useState<Problem>();
  const valid = Boolean(from && until);
  const terms = { from: valid ? new Date(from).toISOString() : "", until: valid ? new Date(until).toISOString() : "", again };
  const path = `/jobs/${encodeURIComponent(jobId)}/backfill`;
  const plan = useLive(valid ? loose<Plan>("post", path, { body: { ...terms, dryRun: true } }) : null, 0);
  const start = loose<{ backfillId: string }>("post", path, { body: { ...terms, maxPerSecond: rate } });
  const p = plan.problem ? undefined : plan.data;
  const done = () => {
    toast("The backfill has begun; its executions are in the list.");
    onClose();
  };
  return (
    <Dialog title="Backfill" onClose={onClose}>
      <div class="form">
        <Field label="From (your time)"><input type="datetime-local" value={from} onInput={(e) => setFrom(e.currentTarget.value)} /></Field>
        <Field label="Until (your time)"><input type="datetime-local" value={until} onInput={(e) => setUntil(e.currentTarget.value)} /></Field>
        <Field label="At most per second"><input type="number" min={0.1} step="any" value={rate} onInput={(e) => setRate(Number(e.currentTarget.value))} /></Field>
        <label class="check"><input type="checkbox" checked={again} onChange={(e) => setAgain(e.currentTarget.checked)} /> Also those that ran already</label>
      </div>
      <div class="dialog-body" role="status">
        {p ? <p><b>{plural(p.count, "occurrence")}</b>{p.first && <>, from <Time at={p.first} exact /> to <Time at={p.last} exact /></>}; {p.alreadyRun} ran already.</p> : <p>{plan.problem ? "" : "Counting…"}</p>}
      </div>
      <ProblemNote problem={problem ?? plan.problem} />
      <CurlNote call={start} />
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>Cancel</button>
        <SendButton call={start} label="Start" disabled={!p?.count} onDone={done} onProblem={setProblem} />
      </div>
    </Dialog>
  );
}
