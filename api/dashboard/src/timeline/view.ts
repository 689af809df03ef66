// The window on the axis of time: which part is seen, in which steps, and where its ticks are. Pure.

export interface View {
  /** Milliseconds since 1970. */
  from: number;
  until: number;
}

const DAY_MS = 86_400_000;
/** The end of the axis, which begins with 1970: dates far beyond it have no text. */
export const LAST_MS = Date.UTC(2200, 0, 1);
export const SHORTEST_MS = 10_000;
export const LONGEST_MS = 365 * DAY_MS;
/** The API gives no more at once. */
export const API_LONGEST_MS = 366 * DAY_MS;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400] as const;
const MOST_VISIBLE_STEPS = 370;
/** From this span on whole minutes are asked for: they are rolled up, and need no look at single executions. */
const ROLLED_UP_FROM_MS = 3_000_000;
/** So long ago only whole hours are kept of what is rolled up: of all jobs together, and by name. */
const MINUTES_KEPT_MS = { all: 30 * DAY_MS, named: DAY_MS } as const;
const HOUR_S = 3600;

/** The step in seconds for a span: fine enough to see, coarse enough to draw. */
export function stepFor(spanMs: number, least = spanMs >= ROLLED_UP_FROM_MS ? 60 : 1): number {
  return STEPS_S.find((s) => s >= least && spanMs / 1000 / s <= MOST_VISIBLE_STEPS) ?? 7 * 86_400;
}

const MOST_STEPS_WITHIN = 1000;

/** The finest step in seconds in which a step is looked into. */
export function stepWithin(spanMs: number): number {
  return STEPS_S.find((s) => spanMs / 1000 / s <= MOST_STEPS_WITHIN) ?? 7 * 86_400;
}

/** Zoom by a factor; the instant under the pointer stays where it is. */
export function zoomAt(view: View, at: number, factor: number): View {
  const span = clamp((view.until - view.from) * factor, SHORTEST_MS, LONGEST_MS);
  const share = (at - view.from) / (view.until - view.from);
  const from = at - share * span;
  return { from: Math.round(from), until: Math.round(from + span) };
}

export function pan(view: View, byMs: number): View {
  const by = clamp(byMs, Math.min(0, -view.from), Math.max(0, LAST_MS - view.until));
  return { from: Math.round(view.from + by), until: Math.round(view.until + by) };
}

export interface Source {
  nowMs: number;
  by: string;
  /** Only some jobs: then every execution is counted, and nothing is rolled up. */
  filtered: boolean;
  /** There are too many executions to count them one by one. */
  crowded?: boolean;
}

export interface Asked extends View {
  step: number;
}

/** What is asked for: the view and half of it on both sides, in whole steps, so that a small move needs no new answer. Less
 * on the sides, or coarser, where that is all that is kept of so long ago. */
export function asked(view: View, source: Source): Asked {
  const span = view.until - view.from;
  const kept = source.by === "all" ? MINUTES_KEPT_MS.all : MINUTES_KEPT_MS.named;
  const rolledUp = !source.filtered && source.by !== "job";
  const isKept = (a: Asked) => !rolledUp || a.step < 60 || a.step % HOUR_S === 0 || source.nowMs - a.from < kept - 60_000;
  const step = stepFor(span, source.crowded ? 60 : undefined);
  const wide = around(view, step, span / 2);
  if (isKept(wide)) return wide;
  const narrow = around(view, step, 0);
  return isKept(narrow) ? narrow : around(view, stepFor(span, HOUR_S), span / 2);
}

/** In a grid of so many steps, so that a small move asks for the same. */
const GRID_STEPS = 60;

function around(view: View, step: number, besideMs: number): Asked {
  const ms = step * 1000;
  const grid = ms * GRID_STEPS;
  const span = view.until - view.from;
  if (besideMs > 0 && span + 2 * grid <= API_LONGEST_MS) {
    const from = Math.floor((view.from - grid / 2) / grid) * grid;
    return { from, until: Math.min(Math.ceil((view.until + grid / 2) / grid) * grid, from + Math.floor(API_LONGEST_MS / ms) * ms), step };
  }
  const beside = Math.min(besideMs, Math.max(0, (API_LONGEST_MS - 2 * ms - (view.until - view.from)) / 2));
  return { from: Math.floor((view.from - beside) / ms) * ms, until: Math.ceil((view.until + beside) / ms) * ms, step };
}

export function covers(data: View, view: View): boolean {
  return data.from <= view.from && data.until >= view.until;
}

const DAY_S = 86_400;
const MONTH_S = 30 * DAY_S;
const TICKS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, DAY_S, 2 * DAY_S, 7 * DAY_S, MONTH_S, 3 * MONTH_S];

/** The instants of the axis that get a label, and the distance between them in seconds (of months: about). They are those of
 * the reader's clock, so that a day is where it begins there also beyond a daylight-saving change. */
export function ticks(view: View, most: number): { at: number[]; every: number } {
  const span = (view.until - view.from) / 1000;
  const every = TICKS_S.find((s) => span / s <= most) ?? 3 * MONTH_S;
  const at: number[] = [];
  for (let t = firstTick(view.from, every); t <= view.until; t = nextTick(t, every)) if (t >= view.from) at.push(t);
  return { at, every };
}

/** Not behind an instant, by at most one distance. */
function firstTick(from: number, every: number): number {
  const d = new Date(from);
  if (every <= 3600) {
    const zoneMs = -d.getTimezoneOffset() * 60_000;
    return Math.floor((from + zoneMs) / (every * 1000)) * every * 1000 - zoneMs;
  }
  d.setHours(every < DAY_S ? d.getHours() - (d.getHours() % (every / 3600)) : 0, 0, 0, 0);
  if (every >= MONTH_S) d.setMonth(d.getMonth() - (d.getMonth() % (every / MONTH_S)), 1);
  else if (every === 7 * DAY_S) d.setDate(d.getDate() - ((d.getDay() + 6) % 7));
  else if (every === 2 * DAY_S) d.setDate(d.getDate() - ((d.getDate() + 1) % 2));
  return d.getTime();
}

function nextTick(at: number, every: number): number {
  if (every <= 3600) return at + every * 1000;
  const d = new Date(at);
  if (every >= MONTH_S) d.setMonth(d.getMonth() + every / MONTH_S);
  else if (every >= DAY_S) d.setDate(d.getDate() + every / DAY_S);
  else d.setHours(d.getHours() + every / 3600);
  return Math.max(d.getTime(), at + 1000);
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}

/** The view in the address; without one, a window around now. */
export function viewOf(query: Readonly<Record<string, string>>, nowMs: number): View {
  const from = clamp(Date.parse(query["from"] ?? ""), 0, LAST_MS);
  const until = clamp(Date.parse(query["until"] ?? ""), 0, LAST_MS);
  if (Number.isFinite(from) && Number.isFinite(until) && until > from) return { from, until };
  const span = clamp(Number(query["span"]) * 1000 || 3_600_000, SHORTEST_MS, LONGEST_MS);
  return { from: nowMs - span / 2, until: nowMs + span / 2 };
}
