// What the API answered, laid out for drawing: per row and kind one number per step.
import type { View } from "./view";

export interface Answer {
  from: string;
  until: string;
  now: string;
  step: number;
  rows: AnswerRow[];
  rest: { rows: number; steps: AnswerStep[] };
  jobsLeftOut: number;
}

type AnswerStep = { at: string } & Record<string, number | string>;
interface AnswerRow {
  name: string | null;
  steps: AnswerStep[];
}

/** In the order in which they are stacked, from below. `late` is a part of the others and no kind of its own. */
export const KINDS = ["succeeded", "retried", "failed", "dead", "missed", "skipped", "cancelled", "running", "due"] as const;
export type Kind = (typeof KINDS)[number];
export const COLOR: Record<Kind, string> = {
  succeeded: "ok-fill", retried: "warn-fill", failed: "bad-fill", dead: "bad-fill", missed: "miss-fill", skipped: "off-fill", cancelled: "off-fill", running: "run-fill", due: "due-fill",
};
const SAME: Record<string, Kind> = { unfinished: "running" };

export interface Row {
  name: string;
  counts: Map<Kind, Float64Array>;
  late: Float64Array;
  total: Float64Array;
}

export interface Cells extends View {
  stepMs: number;
  now: number;
  rows: Row[];
  /** The largest total of a step, for the height of the bars. */
  most: number;
  jobsLeftOut: number;
}

const ROW = '{"name":';
const STEPS = '"steps":[';

/** The text of an answer as its head and its rows, which can be parsed one by one: a large one as a whole would hold up a
 * frame. Neither mark can be within a string, where a quotation mark has a backslash. */
function parted(text: string): { head: Answer; rows: readonly string[] } | undefined {
  const rows: string[] = [];
  let [first, end] = [-1, 0];
  for (let at = text.indexOf(ROW); at >= 0; at = text.indexOf(ROW, end)) {
    const steps = text.indexOf(STEPS, at);
    const last = steps < 0 ? -1 : text.indexOf("]", steps);
    if (last < 0 || (first >= 0 && at !== end + 1)) return undefined;
    if (first < 0) first = at;
    end = last + 2;
    rows.push(text.slice(at, end));
  }
  if (first < 0) return undefined;
  try {
    return { head: JSON.parse(text.slice(0, first) + text.slice(end)) as Answer, rows };
  } catch {
    return undefined;
  }
}

export function cellsOf(text: string, allName: string): Cells {
  const parts = cellsInParts(text, allName);
  for (;;) {
    const next = parts.next();
    if (next.done) return next.value;
  }
}

/** What an answer says, laid out for drawing, a row at a time: between two of them a frame may be shown. */
export function* cellsInParts(text: string, allName: string): Generator<undefined, Cells> {
  const parts = parted(text);
  const answer = parts?.head ?? (JSON.parse(text) as Answer);
  const from = Date.parse(answer.from);
  const until = Date.parse(answer.until);
  const stepMs = answer.step * 1000;
  const size = Math.max(1, Math.round((until - from) / stepMs));
  // The same instants come in every row.
  const known = new Map<string, number>();
  const indexOf = (at: string) => {
    let i = known.get(at);
    if (i === undefined) known.set(at, (i = Math.round((Date.parse(at) - from) / stepMs)));
    return i;
  };
  const rows: Row[] = [];
  let most = 1;
  const add = (name: string, steps: readonly AnswerStep[]) => {
    const row = rowOf(name, steps, indexOf, size);
    rows.push(row);
    for (const n of row.total) if (n > most) most = n;
  };
  for (const given of parts?.rows ?? answer.rows) {
    const row = typeof given === "string" ? (JSON.parse(given) as AnswerRow) : given;
    add(row.name ?? allName, row.steps);
    yield undefined;
  }
  if (answer.rest.steps.length > 0) add(answer.rest.rows ? `${answer.rest.rows} others` : "others", answer.rest.steps);
  return { from, until, stepMs, now: Date.parse(answer.now), rows, most, jobsLeftOut: answer.jobsLeftOut };
}

function rowOf(name: string, steps: readonly AnswerStep[], indexOf: (at: string) => number, size: number): Row {
  const row: Row = { name, counts: new Map(), late: new Float64Array(size), total: new Float64Array(size) };
  for (const step of steps) {
    const i = indexOf(step.at);
    if (i < 0 || i >= size) continue;
    for (const what in step) {
      const n = step[what];
      if (typeof n !== "number") continue;
      if (what === "late") {
        row.late[i] = n;
        continue;
      }
      const kind = SAME[what] ?? (what as Kind);
      if (!KINDS.includes(kind)) continue;
      let counts = row.counts.get(kind);
      if (!counts) row.counts.set(kind, (counts = new Float64Array(size)));
      counts[i] = (counts[i] ?? 0) + n;
      row.total[i] = (row.total[i] ?? 0) + n;
    }
  }
  return row;
}

/** What a step of a row holds, in words. */
export function stepWords(row: Row, i: number): string[] {
  const words: string[] = [];
  for (const kind of KINDS) {
    const n = row.counts.get(kind)?.[i] ?? 0;
    if (n > 0) words.push(`${rounded(n)} ${kind}`);
  }
  const late = row.late[i] ?? 0;
  if (late > 0) words.push(`${rounded(late)} of them late`);
  return words;
}

/** What a whole row holds, in words. */
export function rowWords(row: Row): string[] {
  const sum = (values: Float64Array | undefined) => values?.reduce((a, b) => a + b, 0) ?? 0;
  const words = KINDS.filter((kind) => sum(row.counts.get(kind)) > 0).map((kind) => `${rounded(sum(row.counts.get(kind)))} ${kind}`);
  return sum(row.late) > 0 ? [...words, `${rounded(sum(row.late))} of them late`] : words;
}

function rounded(n: number): string {
  return n >= 10 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
}
