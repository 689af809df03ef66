// A replay: the plan with its count, the rate, the start, the progress, the stop. And those that were asked for lately.
import { useState } from "preact/hooks";
import { call } from "../api/calls";
import type { Problem } from "../api/send";
import type { Schemas } from "../api/types";
import { count, duration, plural } from "../format";
import { useLive } from "../live";
import { Action, CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Time } from "../ui/now";
import { Card, Field, ProblemNote } from "../ui/parts";
import { StateBadge } from "../ui/state";

export type ReplayFilter = Partial<Schemas["RetryFilter"]>;
type Replay = Schemas["Retried"];

export function ReplayDialog({ filter, onClose }: { filter: ReplayFilter; onClose: () => void }) {
  const [rate, setRate] = useState(50);
  const [problem, setProblem] = useState<Problem>();
  const [retryId, setRetryId] = useState<string>();
  const plan = useLive(call("post", "/executions/retry", { body: { filter, dryRun: true } as never }), 0);
  const start = call("post", "/executions/retry", { body: { filter, maxPerSecond: rate } as never });
  const matched = plan.data && "matched" in plan.data ? plan.data.matched : undefined;
  return (
    <Dialog title="Send failures again" onClose={onClose}>
      <div class="dialog-body">
        {retryId ? <Progress retryId={retryId} /> : (
          <>
            <p role="status">
              {matched === undefined ? "Counting…" : <><b>{plural(matched, "execution")}</b> {matched === 1 ? "matches" : "match"}: {words(filter)}.</>}
            </p>
            <Field label="At most per second" hint={matched ? `About ${duration((matched / Math.max(0.1, rate)) * 1000)}; what is due now goes first.` : "What is due now goes first."}>
              <input type="number" min={0.1} max={1000} step="any" value={rate} onInput={(e) => setRate(Number(e.currentTarget.value))} />
            </Field>
          </>
        )}
      </div>
      <ProblemNote problem={problem ?? plan.problem} />
      {!retryId && <CurlNote call={start} />}
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>{retryId ? "Close" : "Cancel"}</button>
        {!retryId && (
          <SendButton
            call={start} label={matched ? `Send ${count(matched)} again` : "Nothing to send"} disabled={!matched}
            onDone={(r) => r && "retryId" in r && setRetryId(r.retryId)} onProblem={setProblem}
          />
        )}
      </div>
    </Dialog>
  );
}

function words(filter: { state?: readonly string[]; jobId?: string | null; tag?: string | null; host?: string | null; error?: string | null; status?: number | null; since?: string | null }): string {
  const parts = [(filter.state ?? []).join(" or ")];
  if (filter.jobId) parts.push(`job ${filter.jobId}`);
  if (filter.tag) parts.push(`tag ${filter.tag}`);
  if (filter.host) parts.push(`host ${filter.host}`);
  if (filter.error) parts.push(filter.error === "not_sent" ? "never sent" : `error ${filter.error}`);
  if (filter.status) parts.push(`status ${filter.status}`);
  if (filter.since) parts.push(`since ${new Date(filter.since).toLocaleString()}`);
  return parts.join(", ");
}

function Progress({ retryId }: { retryId: string }) {
  const live = useLive(call("get", "/executions/retry/{retryId}", { path: { retryId } }), 1000);
  const r = live.data;
  if (!r) return <ProblemNote problem={live.problem} />;
  return (
    <>
      <p role="status"><b>{count(r.sent)}</b> of {count(r.matched)} sent again{r.state === "running" ? ` at ${r.maxPerSecond} per second.` : `: ${r.state}.`}</p>
      <progress max={Math.max(1, r.matched)} value={r.state === "done" ? Math.max(1, r.matched) : r.sent} aria-label="Sent again" />
      {r.state === "running" && <StopReplay retryId={retryId} onDone={live.reload} />}
    </>
  );
}

function StopReplay({ retryId, onDone }: { retryId: string; onDone: () => void }) {
  return (
    <Action small label="Stop" title="Stop the replay" call={call("delete", "/executions/retry/{retryId}", { path: { retryId } })} done={() => "It is stopped."} onDone={onDone}>
      <p>What was sent again stays so; nothing more is.</p>
    </Action>
  );
}

const SHOWN = 5;

/** The replays that were asked for lately, with those that run. Nothing if there is none. */
export function Replays({ version }: { version: number }) {
  const live = useLive(call("get", "/executions/retry"), 5000, { version, told: false });
  const items = (live.data?.items ?? []).filter((r, i) => r.state === "running" || i < SHOWN);
  if (items.length === 0) return null;
  return (
    <Card title="Replays">
      <ul class="plain rows">{items.map((r) => <OneReplay key={r.retryId} replay={r} onDone={live.reload} />)}</ul>
    </Card>
  );
}

function OneReplay({ replay: r, onDone }: { replay: Replay; onDone: () => void }) {
  return (
    <li>
      <StateBadge state={r.state} />
      <span><b>{count(r.sent)}</b> of {count(r.matched)}</span>
      <span class="faint clip" title={words(r.filter)}>{words(r.filter)}; asked <Time at={r.createdAt} /></span>
      {r.state === "running" && <StopReplay retryId={r.retryId} onDone={onDone} />}
    </li>
  );
}
