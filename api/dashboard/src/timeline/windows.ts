// Maintenance windows on the axis: when each is in force within a view.
import type { Schemas } from "../api/types";
import type { View } from "./view";

type Window = Schemas["WindowView"];

export interface Band extends View {
  name: string;
  mode: string;
}

const MOST_BANDS = 40;

/** When a window is in force. `begins`: the next times at which a recurring one begins, in ms. */
export function bandsOf(w: Pick<Window, "name" | "mode" | "from" | "until" | "durationSeconds" | "inForceUntil">, begins: readonly number[], nowMs: number): Band[] {
  const of = (from: number, until: number): Band => ({ name: w.name, mode: w.mode, from, until });
  if (w.from && w.until) return [of(Date.parse(w.from), Date.parse(w.until))];
  const lasts = (w.durationSeconds ?? 0) * 1000;
  const now = w.inForceUntil ? [of(Math.min(nowMs, Date.parse(w.inForceUntil) - lasts), Date.parse(w.inForceUntil))] : [];
  return [...now, ...begins.map((at) => of(at, at + lasts))];
}

/** Those bands that a view shows, the first ones if there are very many. */
export function inView(bands: readonly Band[], view: View): Band[] {
  return bands.filter((b) => b.until > view.from && b.from < view.until).slice(0, MOST_BANDS);
}
