// Occurrences of the past, sent afterwards: how many first, then the start, the progress, the stop.
import { useState } from "preact/hooks";
import { call } from "../api/calls";
import { Problem } from "../api/send";
import type { Schemas } from "../api/types";
import { nowMs } from "../clock";
import { count, plural } from "../format";
import { useLive } from "../live";
import { useMay } from "../session";
import { Action, CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Card, Field, ProblemNote } from "../ui/parts";
import { Time } from "../ui/now";
import { StateBadge } from "../ui/state";

type Backfill = Schemas["BackfillView"];

export function BackfillButton({ jobId, onDone }: { jobId: string; onDone: () => void }) {
  const [open, setOpen] = useState(false);
  if (!useMay("write")) return null;
  return (
    <>
      <button type="button" onClick={() => setOpen(true)}>Backfill</button>
      {open && <BackfillDialog jobId={jobId} onClose={() => (setOpen(false), onDone())} />}
    </>
  );
}

function local(ms: number): string {
  return new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function BackfillDialog({ jobId, onClose }: { jobId: string; onClose: () => void }) {
  const [from, setFrom] = useState(() => local(nowMs() - 86_400_000));
  const [until, setUntil] = useState(() => local(nowMs()));
  const [again, setAgain] = useState(false);
  const [rate, setRate] = useState(10);
  const [problem, setProblem] = useState<Problem>();
  const [backfillId, setBackfillId] = useState<string>();
  const valid = Boolean(from && until);
  const terms = { from: valid ? new Date(from).toISOString() : "", until: valid ? new Date(until).toISOString() : "", again };
  const asked = (body: object) => call("post", "/jobs/{jobId}/backfill", { path: { jobId }, body: { ...terms, ...body } as never });
  const plan = useLive(valid && !backfillId ? asked({ dryRun: true }) : null, 0);
  const start = asked({ maxPerSecond: rate });
  const p = !plan.problem && plan.data && "toSend" in plan.data ? plan.data : undefined;
  return (
    <Dialog title={`Backfill ${jobId}`} onClose={onClose}>
      {backfillId ? <Progress jobId={jobId} backfillId={backfillId} /> : (
        <>
          <div class="form">
            <Field label="From (your time)"><input type="datetime-local" value={from} onInput={(e) => setFrom(e.currentTarget.value)} /></Field>
            <Field label="Until (your time)"><input type="datetime-local" value={until} onInput={(e) => setUntil(e.currentTarget.value)} /></Field>
            <Field label="At most per second"><input type="number" min={0.1} step="any" value={rate} onInput={(e) => setRate(Number(e.currentTarget.value))} /></Field>
            <label class="check"><input type="checkbox" checked={again} onChange={(e) => setAgain(e.currentTarget.checked)} /> Also those that ran already</label>
          </div>
          <div class="dialog-body" role="status">
            {p ? <p><b>{plural(p.count, "occurrence")}</b>{p.first && <>, from <Time at={p.first} exact /> to <Time at={p.last} exact /></>}; {count(p.alreadyRun)} ran already, {count(p.toSend)} will be sent.</p> : <p>{plan.problem ? "" : "Counting…"}</p>}
            {p?.remarks.map((r) => <p key={r} class="remark"><span aria-hidden="true">⚠</span> {r}</p>)}
          </div>
        </>
      )}
      <ProblemNote problem={problem ?? plan.problem} />
      {!backfillId && <CurlNote call={start} />}
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>{backfillId ? "Close" : "Cancel"}</button>
        {!backfillId && <SendButton call={start} label={p?.toSend ? `Send ${count(p.toSend)}` : "Start"} disabled={!p?.toSend} onDone={(a) => a && "backfillId" in a && setBackfillId(a.backfillId)} onProblem={setProblem} />}
      </div>
    </Dialog>
  );
}

function Progress({ jobId, backfillId }: { jobId: string; backfillId: string }) {
  const live = useLive(call("get", "/jobs/{jobId}/backfill/{backfillId}", { path: { jobId, backfillId } }), 1000);
  const b = live.data;
  if (!b) return <ProblemNote problem={live.problem} />;
  const done = b.sent + b.alreadyRun + b.unknown;
  return (
    <div class="dialog-body">
      <p role="status"><b>{count(b.sent)}</b> of {count(b.count)} sent{b.alreadyRun ? `, ${count(b.alreadyRun)} had run` : ""}{b.state === "running" ? ` at ${b.maxPerSecond} per second.` : `: ${b.state}.`}</p>
      <progress max={Math.max(1, b.count)} value={b.state === "done" ? Math.max(1, b.count) : done} aria-label="Sent" />
      {b.state === "running" && <StopBackfill backfill={b} onDone={live.reload} />}
    </div>
  );
}

function StopBackfill({ backfill: { jobId, backfillId }, onDone }: { backfill: Backfill; onDone: () => void }) {
  return (
    <Action small label="Stop" title="Stop the backfill" call={call("delete", "/jobs/{jobId}/backfill/{backfillId}", { path: { jobId, backfillId } })} done={() => "It is stopped."} onDone={onDone}>
      <p>What was sent stays sent; nothing more is.</p>
    </Action>
  );
}

/** The backfills of a job; nothing if there was none. */
export function Backfills({ jobId, version }: { jobId: string; version: number }) {
  const live = useLive(call("get", "/jobs/{jobId}/backfill", { path: { jobId } }), 15_000, { version, told: false });
  const items = live.data?.items ?? [];
  if (items.length === 0) return null;
  return (
    <Card title="Backfills">
      <ul class="plain rows">
        {items.slice(0, 10).map((b) => (
          <li key={b.backfillId}>
            <StateBadge state={b.state} />
            <span><b>{count(b.sent)}</b> of {count(b.count)}</span>
            <span class="faint clip">due <Time at={b.from} exact /> to <Time at={b.until} exact />; asked <Time at={b.createdAt} />{b.reason ? `; ${b.reason}` : ""}</span>
            {b.state === "running" && <StopBackfill backfill={b} onDone={live.reload} />}
          </li>
        ))}
      </ul>
    </Card>
  );
}
