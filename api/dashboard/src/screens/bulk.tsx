// One change of all jobs of a filter: the count first, then the start, the progress, the stop.
import { useState } from "preact/hooks";
import { loose } from "../api/loose";
import { Problem } from "../api/send";
import { count, plural } from "../format";
import { useLive } from "../live";
import type { Route } from "../route";
import { useMay } from "../session";
import { Action, CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Field, ProblemNote } from "../ui/parts";

const ACTIONS = ["pause", "resume", "trigger", "delete"] as const;
type Kind = (typeof ACTIONS)[number];
const FILTERS = ["state", "tag", "q", "host", "schedule", "failing", "nextRunBefore"] as const;

interface Plan {
  matched: number;
  sample: { jobId: string; name: string | null; state: string }[];
}

interface Progress {
  state: "running" | "done" | "stopped";
  matched: number;
  done: number;
  failed: number;
}

/** The filter of a list as the actions take it; an empty one is said aloud. */
export function actionFilter(query: Route["query"]): Record<string, unknown> {
  const filter: Record<string, unknown> = {};
  for (const name of FILTERS) {
    const value = query[name];
    if (value) filter[name] = name === "failing" ? value === "true" : value;
  }
  return Object.keys(filter).length > 0 ? filter : { all: true };
}

export function BulkButton({ route, onDone }: { route: Route; onDone: () => void }) {
  const [open, setOpen] = useState(false);
  if (!useMay("write")) return null;
  return (
    <>
      <button type="button" onClick={() => setOpen(true)}>Act on all of these…</button>
      {open && <BulkDialog filter={actionFilter(route.query)} onClose={() => (setOpen(false), onDone())} />}
    </>
  );
}

function BulkDialog({ filter, onClose }: { filter: Record<string, unknown>; onClose: () => void }) {
  const [action, setAction] = useState<Kind>("pause");
  const [problem, setProblem] = useState<Problem>();
  const [actionId, setActionId] = useState<string>();
  const plan = useLive(loose<Plan>("post", "/jobs/actions", { body: { action, filter, dryRun: true } }), 0);
  const start = loose<{ actionId: string }>("post", "/jobs/actions", { body: { action, filter } });
  const matched = plan.data?.matched;
  return (
    <Dialog title="Act on many jobs" onClose={onClose}>
      <div class="dialog-body">
        {actionId ? <ActionProgress actionId={actionId} /> : (
          <>
            <Field label="What">
              <select value={action} onChange={(e) => setAction(e.currentTarget.value as Kind)}>{ACTIONS.map((a) => <option key={a} value={a}>{a}</option>)}</select>
            </Field>
            <p>{matched === undefined ? "Counting…" : <><b>{plural(matched, "job")}</b> {matched === 1 ? "matches" : "match"}{"all" in filter ? ": all that there are" : ""}.</>}</p>
            <ul class="plain">{plan.data?.sample.map((j) => <li key={j.jobId}>{j.name || j.jobId} <span class="faint">{j.state}</span></li>)}</ul>
          </>
        )}
      </div>
      <ProblemNote problem={problem ?? plan.problem} />
      {!actionId && <CurlNote call={start} />}
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>{actionId ? "Close" : "Cancel"}</button>
        {!actionId && <SendButton call={start} danger={action === "delete"} disabled={!matched} label={matched ? `${action} ${count(matched)}` : action} onDone={(a) => setActionId(a.actionId)} onProblem={setProblem} />}
      </div>
    </Dialog>
  );
}

function ActionProgress({ actionId }: { actionId: string }) {
  const path = `/jobs/actions/${encodeURIComponent(actionId)}`;
  const live = useLive(loose<Progress>("get", path), 1000);
  const p = live.data;
  if (!p) return <ProblemNote problem={live.problem} />;
  return (
    <>
      <p role="status"><b>{count(p.done)}</b> of {count(p.matched)} done{p.failed ? `, ${count(p.failed)} failed` : ""}{p.state === "running" ? "." : `: ${p.state}.`}</p>
      <progress max={Math.max(1, p.matched)} value={p.state === "done" ? Math.max(1, p.matched) : p.done + p.failed} aria-label="Done" />
      {p.state === "running" && <Action small label="Stop" title="Stop the action" call={loose("delete", path)} done={() => "It stops."} onDone={live.reload}><p>Jobs that were changed stay changed.</p></Action>}
    </>
  );
}
