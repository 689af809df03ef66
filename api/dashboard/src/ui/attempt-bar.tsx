// The attempts of an execution on one line of time: due, to be sent, claimed, sent, answered, and the waits between.
import type { ExecutionInFull } from "../api/types";
import { duration } from "../format";
import { heldWords } from "../verdict";

interface Mark {
  at: number;
  label: string;
}

/** Where the words of a bar have room: behind it, before all of it (its waiting too), or at its end with a ground of their own. */
export function placeOf(begin: number, end: number): Record<string, string> {
  if (end < 60) return { left: `calc(${end}% + 8px)` };
  if (begin > 40) return { right: `calc(${100 - begin}% + 6px)` };
  return { right: "10px", background: "var(--surface)", padding: "0 4px" };
}

export function AttemptBar({ execution: e }: { execution: ExecutionInFull }) {
  const due = Date.parse(e.scheduledAt);
  const sendAt = Date.parse(e.sendAt);
  const spans = e.attempts.map((a) => ({ ...a, claimed: a.claimedAt ? Date.parse(a.claimedAt) : null, from: Date.parse(a.sentAt), until: Date.parse(a.sentAt) + a.durationMs }));
  const first = Math.min(due, ...spans.map((s) => s.claimed ?? s.from));
  const last = Math.max(due + 1, ...spans.map((s) => s.until));
  const percent = (ms: number) => Math.min(100, Math.max(0, ((ms - first) / (last - first)) * 100));
  const marks: Mark[] = [{ at: due, label: "due" }];
  // After retries `sendAt` is that of the last attempt, whose bar shows it.
  if (e.attempts.length === 1 && sendAt > due + 1) marks.push({ at: sendAt, label: `spread by ${duration(sendAt - due)}` });
  return (
    <div class="attempt-bar" role="group" aria-label={`Attempts on a line of time, ${duration(last - first)} long`}>
      {marks.map((m) => <span key={m.label} class="attempt-mark" style={{ left: `${percent(m.at)}%` }} aria-hidden="true" />)}
      {spans.map((s) => {
        const good = s.status !== null && s.error === null && (s.status < 300 || (e.state === "succeeded" && s === spans[spans.length - 1]));
        const left = percent(s.from);
        const text = `${s.attempt}: ${[s.status, s.error].filter(Boolean).join(" ")}, ${duration(s.durationMs)}`;
        const title = [`Attempt ${s.attempt}`, heldWords(s), `sent ${duration(Math.abs(s.from - due))} ${s.from < due ? "before" : "after"} the due time`, `ended after ${duration(s.durationMs)}`].filter(Boolean).join(", ");
        const begin = s.claimed !== null && s.claimed < s.from ? percent(s.claimed) : left;
        const edge = placeOf(begin, percent(s.until));
        return (
          <div key={`${s.attempt}-${s.sentAt}`} class="attempt-lane" title={title}>
            {s.claimed !== null && s.claimed < s.from && <span class="attempt-held" style={{ left: `${percent(s.claimed)}%`, width: `${left - percent(s.claimed)}%` }} />}
            <span class={`attempt-span fill-${good ? "ok" : "bad"}`} style={{ left: `min(${left}%, 100% - 4px)`, width: `${percent(s.until) - left}%` }} />
            <span class="attempt-text" style={edge}>{text}</span>
          </div>
        );
      })}
      <div class="attempt-scale">
        <span>{due > first ? `${duration(due - first)} before it was due` : "due"}</span>
        <span>+{duration(last - due)}</span>
      </div>
      <p class="legend"><span class="key"><span class="swatch held" aria-hidden="true" />claimed, waits at its node</span><span class="key"><span class="swatch fill-ok" aria-hidden="true" />sent to answered</span><span class="key"><span class="attempt-mark-key" aria-hidden="true" />{marks.map((m) => m.label).join(", ")}</span></p>
    </div>
  );
}
