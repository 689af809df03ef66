// The cells of the axis, painted once into a canvas of their own and copied into each frame: to move the axis costs one copy,
// however many ticks it shows. Painting goes row by row, a few milliseconds a frame; until a new layer is whole, the one
// before it is shown, stretched where the scale has changed.
import type { Cells } from "./cells";
import { drawRow, AXIS, type Frame, type Theme } from "./draw";

const BUDGET_MS = 3;
/** Beyond this many pixels a layer would take too much memory: then less beside the view is painted. */
const WIDEST = 8192;

interface Painted {
  canvas: HTMLCanvasElement;
  cells: Cells;
  key: string;
  /** What it covers. */
  from: number;
  until: number;
  rows: number;
}

export class Layer {
  private whole: Painted | undefined;
  private next: Painted | undefined;
  private lastKey = "";

  /** Copy what is painted into the frame. Returns whether there is more to paint: then another frame is needed. */
  show(c: CanvasRenderingContext2D, f: Frame, theme: Theme, ratio: number, mode: string): boolean {
    if (!f.cells) return false;
    const key = keyOf(f, ratio, mode);
    const matches = (p: Painted | undefined) => p !== undefined && p.cells === f.cells && p.key === key && p.from <= Math.max(f.view.from, f.cells.from) && p.until >= Math.min(f.view.until, f.cells.until);
    // While it is being zoomed the scale differs from frame to frame: nothing is painted that would be of no use.
    const settled = key === this.lastKey;
    this.lastKey = key;
    if (!matches(this.whole)) {
      if (!matches(this.next)) this.next = settled || !this.whole ? begin(f, f.cells, ratio, key) : undefined;
      if (this.next) {
        paint(this.next, f, theme, ratio);
        if (this.next.rows >= f.cells.rows.length) [this.whole, this.next] = [this.next, undefined];
      }
    }
    const shown = this.whole ?? this.next;
    if (shown) copy(c, f, shown);
    return !matches(this.whole);
  }
}

function keyOf(f: Frame, ratio: number, mode: string): string {
  return [Math.round((f.view.until - f.view.from) / 10), f.width, f.gutter, f.lane, ratio, mode].join(" ");
}

function begin(f: Frame, cells: Cells, ratio: number, key: string): Painted {
  const perMs = (f.width - f.gutter) / (f.view.until - f.view.from);
  const most = WIDEST / ratio / perMs;
  const beside = Math.max(0, (most - (f.view.until - f.view.from)) / 2);
  const from = Math.max(cells.from, f.view.from - beside);
  const until = Math.max(from + 1, Math.min(cells.until, f.view.until + beside));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.ceil((until - from) * perMs * ratio));
  canvas.height = Math.max(1, Math.round((f.height - AXIS) * ratio));
  return { canvas, cells, key, from, until, rows: 0 };
}

function paint(p: Painted, f: Frame, theme: Theme, ratio: number): void {
  const context = p.canvas.getContext("2d");
  if (!context) return;
  context.setTransform(ratio, 0, 0, ratio, 0, -AXIS * ratio);
  const frame: Frame = { ...f, cells: p.cells, gutter: 0, width: p.canvas.width / ratio, view: { from: p.from, until: p.until }, hover: undefined };
  const x = (at: number) => ((at - p.from) / (p.until - p.from)) * frame.width;
  const began = performance.now();
  while (p.rows < p.cells.rows.length && performance.now() - began < BUDGET_MS) {
    const row = p.cells.rows[p.rows];
    if (row) drawRow(context, frame, row, p.rows, theme, x);
    p.rows++;
  }
}

function copy(c: CanvasRenderingContext2D, f: Frame, p: Painted): void {
  const x = (at: number) => f.gutter + ((at - f.view.from) / (f.view.until - f.view.from)) * (f.width - f.gutter);
  c.drawImage(p.canvas, x(p.from), AXIS, x(p.until) - x(p.from), f.height - AXIS);
}
