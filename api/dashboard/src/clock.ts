// The time that the page goes by. A reader's clock may be an hour wrong, and then "4 min ago" and "silent" would be as well:
// the answers of the nodes carry their time, and a clock that differs by more than that can tell is put right here.

const DATE_RESOLUTION_MS = 1000;
/** A clock that differs by less is believed: it is finer than the time in an answer. */
const BELIEVED_MS = 2000;
/** A difference is told to the reader from here on. */
export const TOLD_MS = 30_000;

let offset = 0;

/** How far the time of the nodes is ahead of the reader's clock, in ms; 0: they agree. */
export function clockOffset(): number {
  return offset;
}

export function nowMs(): number {
  return Date.now() + offset;
}

/** The offset after an answer that was asked for at `began` and came at `ended`, both by the reader's clock. */
export function offsetAfter(before: number, date: string | null, began: number, ended: number): number {
  const told = Date.parse(date ?? "");
  if (Number.isNaN(told)) return before;
  const found = told + DATE_RESOLUTION_MS / 2 - (began + ended) / 2;
  const unsure = BELIEVED_MS + (ended - began) / 2;
  if (Math.abs(found) < unsure) return 0;
  return before !== 0 && Math.abs(found - before) < unsure ? before : Math.round(found);
}

export function hearTime(date: string | null, began: number, ended: number): void {
  offset = offsetAfter(offset, date, began, ended);
}
