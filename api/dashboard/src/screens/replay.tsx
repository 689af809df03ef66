// A replay: the plan with its count, the rate, the start, the progress.
import { useState } from "preact/hooks";
import { call } from "../api/calls";
import type { Problem } from "../api/send";
import type { Schemas } from "../api/types";
import { count, duration, plural } from "../format";
import { useLive } from "../live";
import { CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Field, ProblemNote } from "../ui/parts";

export type ReplayFilter = Partial<Schemas["RetryFilter"]>;

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
            <p>
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

function words(filter: ReplayFilter): string {
  const parts = [(filter.state ?? []).join(" or ")];
  if (filter.jobId) parts.push(`job ${filter.jobId}`);
  if (filter.tag) parts.push(`tag ${filter.tag}`);
  if (filter.error) parts.push(`error ${filter.error}`);
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
      <p role="status"><b>{count(r.sent)}</b> of {count(r.matched)} sent again{r.state === "done" ? ": done." : ` at ${r.maxPerSecond} per second.`}</p>
      <progress max={Math.max(1, r.matched)} value={r.state === "done" ? Math.max(1, r.matched) : r.sent} aria-label="Sent again" />
    </>
  );
}
