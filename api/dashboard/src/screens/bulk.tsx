// One change of all jobs of a filter: the count first, then the start, the progress, the stop. And those of the last week.
import { useState } from "preact/hooks";
import { call } from "../api/calls";
import { Problem } from "../api/send";
import { count, plural } from "../format";
import { useLive } from "../live";
import type { Route } from "../route";
import { useMay } from "../session";
import { Action, CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Time } from "../ui/now";
import { Field, ProblemNote } from "../ui/parts";
import { StateBadge } from "../ui/state";

const ACTIONS = ["pause", "resume", "trigger", "delete", "patch"] as const;
type Kind = (typeof ACTIONS)[number];
const FILTERS = ["state", "tag", "q", "host", "schedule", "calendar", "failing", "nextRunBefore"] as const;
const EARLIER = 5;

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

function patchOf(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length > 0 ? value : undefined;
  } catch {
    return undefined;
  }
}

function BulkDialog({ filter, onClose }: { filter: Record<string, unknown>; onClose: () => void }) {
  const [action, setAction] = useState<Kind>("pause");
  const [text, setText] = useState('{"timeoutSeconds": 20}');
  const [problem, setProblem] = useState<Problem>();
  const [actionId, setActionId] = useState<string>();
  const patch = action === "patch" ? patchOf(text) : undefined;
  const ready = action !== "patch" || patch !== undefined;
  const asked = (more: object) => call("post", "/jobs/actions", { body: { action, filter, ...(patch ? { patch } : {}), ...more } as never });
  const plan = useLive(ready && !actionId ? asked({ dryRun: true }) : null, 0);
  const p = ready && !plan.problem && plan.data && "sample" in plan.data ? plan.data : undefined;
  return (
    <Dialog title="Act on many jobs" onClose={onClose}>
      <div class="dialog-body">
        {actionId ? <ActionProgress actionId={actionId} /> : (
          <>
            <Field label="What">
              <select value={action} onChange={(e) => setAction(e.currentTarget.value as Kind)}>{ACTIONS.map((a) => <option key={a} value={a}>{a}</option>)}</select>
            </Field>
            {action === "patch" && (
              <Field label="Merge patch" hint="The fields that it names are changed; null removes one." fault={ready ? undefined : "This is not a JSON object with fields yet."}>
                <textarea rows={3} spellcheck={false} value={text} onInput={(e) => setText(e.currentTarget.value)} />
              </Field>
            )}
            <p role="status">{p === undefined ? (ready && !plan.problem ? "Counting…" : "") : <><b>{plural(p.matched, "job")}</b> {p.matched === 1 ? "matches" : "match"}{"all" in filter ? ": all that there are" : ""}.</>}</p>
            <ul class="plain">{p?.sample.map((j) => <li key={j.jobId}>{j.name || j.jobId} <span class="faint">{j.state}</span></li>)}</ul>
            {p && p.matched > p.sample.length && <p class="faint">and {count(p.matched - p.sample.length)} more</p>}
          </>
        )}
      </div>
      <ProblemNote problem={problem ?? plan.problem} />
      {!actionId && <CurlNote call={asked({})} />}
      {!actionId && <Earlier onPick={setActionId} />}
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>{actionId ? "Close" : "Cancel"}</button>
        {!actionId && <SendButton call={asked({})} danger={action === "delete"} disabled={!p?.matched} label={p?.matched ? `${action} ${count(p.matched)}` : action} onDone={(a) => a && "actionId" in a && setActionId(a.actionId)} onProblem={setProblem} />}
      </div>
    </Dialog>
  );
}

/** The actions of the last week: one that still runs can be looked at, and stopped. */
function Earlier({ onPick }: { onPick: (actionId: string) => void }) {
  const live = useLive(call("get", "/jobs/actions", { query: { limit: EARLIER } }), 0);
  const items = live.data?.items ?? [];
  if (items.length === 0) return null;
  return (
    <details class="curl">
      <summary>The latest actions</summary>
      <ul class="plain rows">
        {items.map((a) => (
          <li key={a.actionId}>
            <StateBadge state={a.state} /> <button type="button" class="link" onClick={() => onPick(a.actionId)}>{a.action} {count(a.matched)}</button> <span class="faint clip"><Time at={a.createdAt} />, {JSON.stringify(a.filter)}</span>
          </li>
        ))}
      </ul>
    </details>
  );
}

function ActionProgress({ actionId }: { actionId: string }) {
  const live = useLive(call("get", "/jobs/actions/{actionId}", { path: { actionId } }), 1000);
  const a = live.data;
  if (!a) return <ProblemNote problem={live.problem} />;
  return (
    <>
      <p role="status"><b>{count(a.done)}</b> of {count(a.matched)} done{a.failed ? `, ${count(a.failed)} failed` : ""}{a.leftOut ? `, ${count(a.leftOut)} no longer matched` : ""}{a.state === "running" ? "." : `: ${a.state}.`}</p>
      <progress max={Math.max(1, a.matched)} value={a.state === "done" ? Math.max(1, a.matched) : a.done + a.failed} aria-label="Done" />
      {a.failures.length > 0 && <ul class="plain">{a.failures.slice(0, 20).map((f) => <li key={f.jobId}>{f.jobId}: {f.reason}</li>)}</ul>}
      {a.state === "running" && (
        <Action small label="Stop" title="Stop the action" call={call("delete", "/jobs/actions/{actionId}", { path: { actionId } })} done={() => "It stops."} onDone={live.reload}>
          <p>Jobs that were changed stay changed.</p>
        </Action>
      )}
    </>
  );
}
