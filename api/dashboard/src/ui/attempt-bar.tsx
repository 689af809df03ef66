// The attempts of an execution on one line of time: planned, sent, answered, and the waits between.
import type { ExecutionInFull } from "../api/types";
import { duration } from "../format";

export function AttemptBar({ execution: e }: { execution: ExecutionInFull }) {
  const due = Date.parse(e.scheduledAt);
  const sendAt = Date.parse(e.sendAt);
  const spans = e.attempts.map((a) => ({ ...a, from: Date.parse(a.sentAt), until: Date.parse(a.sentAt) + a.durationMs }));
  const first = Math.min(due, ...spans.map((s) => s.from));
  const last = Math.max(due + 1, ...spans.map((s) => s.until));
  const percent = (ms: number) => Math.min(100, Math.max(0, ((ms - first) / (last - first)) * 100));
  return (
    <div class="attempt-bar" role="group" aria-label={`Attempts on a line of time, ${duration(last - first)} long`}>
      {spans.map((s) => {
        const good = s.status !== null && s.error === null && s.status < 300;
        const left = percent(s.from);
        const text = `${s.attempt}: ${[s.status, s.error].filter(Boolean).join(" ")}, ${duration(s.durationMs)}`;
        const title = `Attempt ${s.attempt}: sent ${duration(s.from - due)} after the plan, ended after ${duration(s.durationMs)}`;
        // Before the bar, behind it, or on it: where there is room for the words.
        const before = { right: `${100 - left + 0.6}%` };
        const behind = { left: `calc(${percent(s.until)}% + 8px)` };
        const edge = left > 60 ? before : percent(s.until) < 60 ? behind : { right: "2px", background: "var(--surface)" };
        return (
          <div key={`${s.attempt}-${s.sentAt}`} class="attempt-lane" title={title}>
            <span class={`attempt-span fill-${good ? "ok" : "bad"}`} style={{ left: `${left}%`, width: `${percent(s.until) - left}%` }} />
            <span class="attempt-text" style={edge}>{text}</span>
          </div>
        );
      })}
      <div class="attempt-scale">
        <span>{due > first ? "sent before the plan" : `planned${e.attempts.length === 1 && sendAt - due > 1 ? `, spread by ${duration(sendAt - due)}` : ""}`}</span>
        <span>+{duration(last - due)}</span>
      </div>
    </div>
  );
}
