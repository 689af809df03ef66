// The cells of the axis, painted once into a canvas of their own and copied into each frame: to move the axis costs one copy,
// however many ticks it shows. Painting goes row by row, a few milliseconds a frame; until a new layer is whole, the one
// before it is shown, stretched where the scale has changed.
import type { Cells } from "./cells";
import { AXIS, type Frame } from "./draw";
import { paintRow, type Inks } from "./pixels";

const BUDGET_MS = 2;
/** Beyond this many pixels a layer would take too much memory: then less beside the view is painted. */
const WIDEST = 8192;

interface Painted {
  canvas: HTMLCanvasElement;
  context: CanvasRenderingContext2D;
  /** The pixels of one row, used for each of them. */
  image: ImageData;
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
  show(c: CanvasRenderingContext2D, f: Frame, inks: Inks, ratio: number): boolean {
    if (!f.cells) return false;
    const key = keyOf(f, ratio, inks);
    const matches = (p: Painted | undefined) => p !== undefined && p.cells === f.cells && p.key === key && p.from <= Math.max(f.view.from, f.cells.from) && p.until >= Math.min(f.view.until, f.cells.until);
    // While it is being zoomed the scale differs from frame to frame: nothing is painted that would be of no use.
    const settled = key === this.lastKey;
    this.lastKey = key;
    if (!matches(this.whole)) {
      if (!matches(this.next)) this.next = settled || !this.whole ? begin(f, f.cells, ratio, key) : undefined;
      if (this.next) {
        paint(this.next, inks, ratio);
        if (this.next.rows >= f.cells.rows.length) [this.whole, this.next] = [this.next, undefined];
      }
    }
    const shown = this.whole ?? this.next;
    if (shown) copy(c, f, shown);
    return !matches(this.whole);
  }
}

function keyOf(f: Frame, ratio: number, inks: Inks): string {
  return [Math.round((f.view.until - f.view.from) / 10), f.width, f.gutter, f.lane, ratio, inks.succeeded].join(" ");
}

function begin(f: Frame, cells: Cells, ratio: number, key: string): Painted | undefined {
  const perMs = (f.width - f.gutter) / (f.view.until - f.view.from);
  const most = WIDEST / ratio / perMs;
  const beside = Math.max(0, (most - (f.view.until - f.view.from)) / 2);
  const from = Math.max(cells.from, f.view.from - beside);
  const until = Math.max(from + 1, Math.min(cells.until, f.view.until + beside));
  const canvas = document.createElement("canvas");
  const lane = Math.round(f.lane * ratio);
  canvas.width = Math.max(1, Math.ceil((until - from) * perMs * ratio));
  canvas.height = Math.max(1, cells.rows.length * lane);
  const context = canvas.getContext("2d");
  return context ? { canvas, context, image: new ImageData(canvas.width, lane), cells, key, from, until, rows: 0 } : undefined;
}

function paint(p: Painted, inks: Inks, ratio: number): void {
  const pixels = new Uint32Array(p.image.data.buffer);
  const band = { from: p.from, until: p.until, width: p.image.width, height: p.image.height, ratio };
  const began = performance.now();
  while (p.rows < p.cells.rows.length && performance.now() - began < BUDGET_MS) {
    const row = p.cells.rows[p.rows];
    if (row) {
      paintRow(pixels, band, row, p.cells, inks);
      p.context.putImageData(p.image, 0, p.rows * band.height);
    }
    p.rows++;
  }
}

function copy(c: CanvasRenderingContext2D, f: Frame, p: Painted): void {
  const x = (at: number) => f.gutter + ((at - f.view.from) / (f.view.until - f.view.from)) * (f.width - f.gutter);
  c.drawImage(p.canvas, x(p.from), AXIS, x(p.until) - x(p.from), p.cells.rows.length * f.lane);
}
