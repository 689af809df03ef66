// What a definition would do: when it runs, in what company, how it is retried, and what its target answers now.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/calls";
import { loose } from "../api/loose";
import { offers } from "../api/offered";
import { Problem } from "../api/send";
import { nowMs } from "../clock";
import { boundsOf, type Definition } from "../definition";
import { clock, count, dayOf, duration } from "../format";
import { useLive } from "../live";
import { href } from "../route";
import type { Retry } from "../retries";
import { CurlNote, SendButton } from "../ui/action";
import { Time } from "../ui/now";
import { Card, Code, ProblemNote } from "../ui/parts";
import { RetryLine } from "../ui/retry-line";

const TYPING_MS = 300;

function useSettled<T>(value: T): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), TYPING_MS);
    return () => clearTimeout(timer);
  }, [JSON.stringify(value)]);
  return settled;
}

const AFTER: Record<string, string> = { succeeded: "succeeded", failed: "failed", any: "ended, however it did" };

export function EditorPreview({ value, jobId }: { value: Definition; jobId: string | undefined }) {
  const wanted = useSettled({ schedule: String(value["schedule"] ?? ""), timezone: String(value["timezone"] ?? "UTC") });
  const bounds = useSettled(boundsOf(value, nowMs()));
  const preview = useLive(wanted.schedule ? call("post", "/schedules/preview", { body: { ...wanted, ...bounds.asked, count: 6 } as never }) : null, 0);
  const { timezone } = wanted;
  const next = [...bounds.first, ...(preview.data?.next ?? [])].filter((at) => Date.parse(at) <= bounds.endMs);
  const after = value["after"] as { jobId?: string; on?: string } | undefined;
  return (
    <div class="aside">
      <Card title="When it would run" aside={after ? undefined : <span class="faint">{timezone}</span>}>
        {after ? <p class="words">{after.jobId ? <>Once after each execution of <a href={href(["jobs", after.jobId])}>{after.jobId}</a> that {AFTER[after.on ?? "succeeded"]}.</> : "…"}</p> : !wanted.schedule ? <p class="words">It needs a schedule, or a job to run after.</p> : preview.problem ? <ProblemNote problem={preview.problem} /> : (
          <div aria-live="polite">
            <p class="words">{preview.data?.description ?? "…"}</p>
            {preview.data?.warnings.map((w) => <p key={w} class="remark"><span aria-hidden="true">⚠</span> {w}</p>)}
            <ol class="runs-list">
              {next.map((at) => (
                <li key={at}><span>{dayOf(Date.parse(at), timezone)} <b>{clock(Date.parse(at), Date.parse(at), timezone)}</b></span><Time at={at} /></li>
              ))}
            </ol>
            {preview.data && next.length === 0 && <p class="remark">It never runs: {preview.data.next.length > 0 ? "its end is before its first run" : "no time is left"}.</p>}
          </div>
        )}
      </Card>
      {offers("/schedules/crowd") && wanted.schedule && !preview.problem && <Crowd {...wanted} />}
      <Card title="If it fails"><RetryLine retry={(value["retry"] ?? {}) as Retry} /></Card>
      {offers("/targets/test") && Boolean(value["api"]) && <TargetTest value={value} jobId={jobId} />}
    </div>
  );
}

interface Crowded {
  occurrences: { at: string; others: number; ifSpread: { spreadSeconds: number; worstSecond: number; meanSecond: number }[] }[];
}

function Crowd({ schedule, timezone }: { schedule: string; timezone: string }) {
  const crowd = useLive(loose<Crowded>("post", "/schedules/crowd", { body: { schedule, timezone, count: 3 } }), 0);
  const first = crowd.data?.occurrences[0];
  if (!first) return null;
  const busiest = Math.max(...(crowd.data?.occurrences ?? []).map((o) => o.others));
  return (
    <Card title="Who else is due then">
      <p><b>{count(busiest)}</b> other requests are due in the busiest of its next {crowd.data?.occurrences.length} seconds.</p>
      {busiest > 0 && (
        <ul class="plain">
          {first.ifSpread.map((s) => <li key={s.spreadSeconds} class="faint">With <code>spreadSeconds: {s.spreadSeconds}</code> it would meet {count(s.meanSecond)} on average, {count(s.worstSecond)} at worst.</li>)}
        </ul>
      )}
    </Card>
  );
}

interface TestAnswer {
  verdict: string;
  status: number | null;
  durationMs: number;
  error: string | null;
  detail: string | null;
  responseExcerpt: string | null;
}

function TargetTest({ value, jobId }: { value: Definition; jobId: string | undefined }) {
  const [answer, setAnswer] = useState<TestAnswer>();
  const [problem, setProblem] = useState<Problem>();
  const test = loose<TestAnswer>("post", "/targets/test", { body: jobId ? { jobId, ...value } : value });
  return (
    <Card title="Try the target" aside={<SendButton call={test} label="Send a test" onDone={(a) => (setProblem(undefined), setAnswer(a))} onProblem={(p) => (setAnswer(undefined), setProblem(p))} />}>
      <p class="faint">One request as the job would send it, marked <code>Horae-Test: true</code>. It is no run and is recorded nowhere.</p>
      <ProblemNote problem={problem} />
      {answer && (
        <div role="status">
          <p><b>{answer.status ?? answer.error}</b> after {duration(answer.durationMs)}: {answer.verdict}</p>
          {answer.detail && <p class="remark">{answer.detail}</p>}
          {answer.responseExcerpt && <Code text={answer.responseExcerpt} label="The response" />}
        </div>
      )}
      <CurlNote call={test} />
    </Card>
  );
}
