// The window on the axis of time: which part is seen, in which steps, and where its ticks are. Pure.

export interface View {
  /** Milliseconds since 1970. */
  from: number;
  until: number;
}

export const SHORTEST_MS = 10_000;
export const LONGEST_MS = 366 * 86_400_000;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400] as const;
const MOST_VISIBLE_STEPS = 320;
/** From this span on whole minutes are asked for: they are rolled up, and need no look at single executions. */
const ROLLED_UP_FROM_MS = 3_000_000;

/** The step in seconds for a span: fine enough to see, coarse enough to draw. */
export function stepFor(spanMs: number): number {
  const least = spanMs >= ROLLED_UP_FROM_MS ? 60 : 1;
  return STEPS_S.find((s) => s >= least && spanMs / 1000 / s <= MOST_VISIBLE_STEPS) ?? 7 * 86_400;
}

/** Zoom by a factor; the instant under the pointer stays where it is. */
export function zoomAt(view: View, at: number, factor: number): View {
  const span = clamp((view.until - view.from) * factor, SHORTEST_MS, LONGEST_MS);
  const share = (at - view.from) / (view.until - view.from);
  const from = at - share * span;
  return { from: Math.round(from), until: Math.round(from + span) };
}

export function pan(view: View, byMs: number): View {
  return { from: Math.round(view.from + byMs), until: Math.round(view.until + byMs) };
}

/** What is asked for: the view and half of it on both sides, in whole steps, so that a small move needs no new answer. */
export function asked(view: View): { from: number; until: number; step: number } {
  const span = view.until - view.from;
  const step = stepFor(span);
  const ms = step * 1000;
  const wide = Math.min(span / 2, Math.max(0, (LONGEST_MS - span) / 2));
  return { from: Math.floor((view.from - wide) / ms) * ms, until: Math.ceil((view.until + wide) / ms) * ms, step };
}

export function covers(data: View, view: View): boolean {
  return data.from <= view.from && data.until >= view.until;
}

const TICKS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000];

/** The instants of the axis that get a label, and the distance between them in seconds. `zoneOffsetMs` aligns days. */
export function ticks(view: View, most: number, zoneOffsetMs = 0): { at: number[]; every: number } {
  const span = (view.until - view.from) / 1000;
  const every = TICKS_S.find((s) => span / s <= most) ?? 2_592_000;
  const ms = every * 1000;
  const at: number[] = [];
  for (let t = Math.ceil((view.from + zoneOffsetMs) / ms) * ms - zoneOffsetMs; t <= view.until; t += ms) at.push(t);
  return { at, every };
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}

/** The view in the address; without one, a window around now. */
export function viewOf(query: Readonly<Record<string, string>>, nowMs: number): View {
  const from = Date.parse(query["from"] ?? "");
  const until = Date.parse(query["until"] ?? "");
  if (Number.isFinite(from) && Number.isFinite(until) && until > from) return { from, until };
  const span = clamp(Number(query["span"]) * 1000 || 3_600_000, SHORTEST_MS, LONGEST_MS);
  return { from: nowMs - span / 2, until: nowMs + span / 2 };
}
