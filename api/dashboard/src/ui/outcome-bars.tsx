// The outcomes of one job, oldest first, each a way to its execution. The height is how long it took. By keyboard they are one
// stop, within which arrows move: nobody wants to pass a hundred of them.
import type { Execution } from "../api/types";
import { duration, fullTime, parseDuration } from "../format";
import { href } from "../route";
import { outcomeKind } from "./state";

export function OutcomeBars({ items, size }: { items: readonly Execution[]; size: number }) {
  const shown = items.slice(0, size).reverse();
  const longest = Math.max(1, ...shown.map((e) => parseDuration(e.duration) ?? 0));
  return (
    <ol class="outcome-bars" aria-label="Outcomes, oldest first; arrows go from one to the next" onKeyDown={walk}>
      {shown.map((e, i) => {
        const took = parseDuration(e.duration);
        const height = took === null ? 4 : Math.max(2, Math.round((took / longest) * 8));
        const text = `${e.state}, planned ${fullTime(Date.parse(e.scheduledAt))}, took ${duration(took)}`;
        return (
          <li key={e.executionId}>
            <a href={href(["executions", e.executionId])} title={text} aria-label={text} tabIndex={i === shown.length - 1 ? 0 : -1}><span class={`fill-${outcomeKind(e)} tall-${height}`} /></a>
          </li>
        );
      })}
    </ol>
  );
}

function walk(event: KeyboardEvent): void {
  const links = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("a")];
  const here = links.indexOf(document.activeElement as HTMLElement);
  const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: links.length - 1 }[event.key];
  if (here < 0 || next === undefined) return;
  event.preventDefault();
  links[Math.min(links.length - 1, Math.max(0, next))]?.focus();
}
