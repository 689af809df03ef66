// Which tick the keys lead to. Pure.
import type { Cells } from "./cells";
import type { View } from "./view";

export interface Place {
  row: number;
  step: number;
}

/** The tick that a key leads to from another one, or from nowhere; nothing for other keys, or if there is none in view. */
export function neighbourOf(cells: Cells, view: View, now: number, at: Place | undefined, key: string, shift: boolean): Place | undefined {
  const first = Math.max(0, Math.ceil((view.from - cells.from) / cells.stepMs));
  const last = Math.min(cells.rows[0]?.total.length ?? 0, Math.ceil((view.until - cells.from) / cells.stepMs)) - 1;
  const here = at && at.step >= first && at.step <= last ? at.step : Math.min(last, Math.max(first, Math.floor((now - cells.from) / cells.stepMs)));
  if (key === "ArrowUp" || key === "ArrowDown") {
    if (cells.rows.length === 0 || last < first) return undefined;
    const row = at ? at.row + (key === "ArrowDown" ? 1 : -1) : 0;
    return { row: Math.min(cells.rows.length - 1, Math.max(0, row)), step: here };
  }
  if (!shift || (key !== "ArrowLeft" && key !== "ArrowRight")) return undefined;
  const row = at?.row ?? 0;
  const by = key === "ArrowRight" ? 1 : -1;
  for (let step = here + by; step >= first && step <= last; step += by) if ((cells.rows[row]?.total[step] ?? 0) > 0) return { row, step };
  return at ?? undefined;
}
