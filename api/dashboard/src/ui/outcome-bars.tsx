// The outcomes of one job, oldest first, each a way to its execution. The height is how long it took.
import type { Execution } from "../api/types";
import { duration, fullTime, parseDuration } from "../format";
import { href } from "../route";
import { outcomeKind } from "./state";

export function OutcomeBars({ items, size }: { items: readonly Execution[]; size: number }) {
  const shown = items.slice(0, size).reverse();
  const longest = Math.max(1, ...shown.map((e) => parseDuration(e.duration) ?? 0));
  return (
    <ol class="outcome-bars" aria-label="Outcomes, oldest first">
      {shown.map((e) => {
        const took = parseDuration(e.duration);
        const height = took === null ? 4 : Math.max(2, Math.round((took / longest) * 8));
        const text = `${e.state}, planned ${fullTime(Date.parse(e.scheduledAt))}, took ${duration(took)}`;
        return (
          <li key={e.executionId}>
            <a href={href(["executions", e.executionId])} title={text} aria-label={text}><span class={`fill-${outcomeKind(e)} tall-${height}`} /></a>
          </li>
        );
      })}
    </ol>
  );
}
