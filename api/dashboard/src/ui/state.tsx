// States by colour, shape and word: colour alone says nothing to many readers.
import type { State } from "../api/types";

export const STATE_KIND: Record<string, string> = {
  succeeded: "ok", active: "ok", closed: "ok", done: "ok", open: "bad", "half-open": "warn",
  failed: "bad", dead: "bad", retrying: "warn", running: "run", pending: "due",
  cancelled: "off", skipped: "off", paused: "off", completed: "off", missed: "miss", stopped: "off",
};

const SIGN: Record<string, string> = { ok: "✓", bad: "✕", warn: "↻", run: "▸", due: "◷", off: "–", miss: "!" };

export function StateBadge({ state, text }: { state: string; text?: string }) {
  const kind = STATE_KIND[state] ?? "off";
  return (
    <span class={`badge is-${kind}`}>
      <span aria-hidden="true">{SIGN[kind]}</span>
      {text ?? state}
    </span>
  );
}

interface Outcome {
  executionId: string;
  state: State;
  attempt: number;
  scheduledAt: string;
}

/** The kind of a finished or unfinished execution; a success after a retry is told apart. */
export function outcomeKind(e: Pick<Outcome, "state" | "attempt">): string {
  if (e.state === "succeeded" && e.attempt > 1) return "warn";
  return STATE_KIND[e.state] ?? "off";
}

export function outcomeCounts(items: readonly Pick<Outcome, "state">[]): (readonly [string, number])[] {
  const counts = new Map<string, number>();
  for (const e of items) counts.set(e.state, (counts.get(e.state) ?? 0) + 1);
  return [...counts];
}

export function outcomeText(items: readonly Pick<Outcome, "state">[]): string {
  return outcomeCounts(items).map(([state, n]) => `${n} ${state}`).join(", ") || "none yet";
}

function stripText(shown: readonly Outcome[]): string {
  if (shown.length === 0) return "No run yet";
  return `${shown.length === 1 ? "Last run" : `Last ${shown.length} runs`}: ${outcomeText(shown)}`;
}

/** The last outcomes, oldest first, as a row of bars; the space for `size` of them is always taken. */
export function Strip({ items, size = 30 }: { items: readonly Outcome[] | undefined; size?: number }) {
  const shown = (items ?? []).slice(0, size).reverse();
  return (
    <svg class="strip" viewBox={`0 0 ${size * 4} 16`} role="img" aria-label={items ? stripText(shown) : "Loading"}>
      {Array.from({ length: size }, (_, i) => {
        const e = shown[i - (size - shown.length)];
        const kind = e ? outcomeKind(e) : "none";
        const height = kind === "none" ? 2 : kind === "bad" || kind === "miss" ? 16 : 11;
        return <rect key={i} class={`bar-${kind}`} x={i * 4} y={16 - height} width={3} height={height} rx={1} />;
      })}
    </svg>
  );
}
