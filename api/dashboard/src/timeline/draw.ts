// Drawing the axis around its cells, which a layer has as pixels: a frame costs little however many ticks it shows.
import { clock, dayOf, monthOf } from "../format";
import type { Cells } from "./cells";
import { BELOW, BESIDE } from "./pixels";
import { ticks, type View } from "./view";
import type { Band } from "./windows";

export const AXIS = 30;
export const GUTTER = 150;

export interface Theme {
  color: (name: string) => string;
  font: string;
}

export interface Frame {
  width: number;
  height: number;
  view: View;
  cells: Cells | undefined;
  now: number;
  gutter: number;
  /** The height of a row. */
  lane: number;
  hover: { row: number; step: number } | undefined;
  /** Maintenance windows in view. */
  bands?: readonly Band[];
}

/** Few rows are tall, so that there is something to see. */
export function laneFor(rows: number): number {
  return rows <= 2 ? 130 : rows <= 6 ? 64 : 38;
}

export function heightFor(rows: number): number {
  return AXIS + Math.max(1, rows) * laneFor(rows) + 6;
}

/** `cells` copies the painted cells into the frame. */
export function draw(c: CanvasRenderingContext2D, f: Frame, theme: Theme, cells: () => void): void {
  const x = (at: number) => f.gutter + ((at - f.view.from) / (f.view.until - f.view.from)) * (f.width - f.gutter);
  c.clearRect(0, 0, f.width, f.height);
  c.fillStyle = theme.color("sunken");
  const nowX = x(f.now);
  if (nowX < f.width) c.fillRect(Math.max(f.gutter, nowX), AXIS, f.width - Math.max(f.gutter, nowX), f.height - AXIS);
  c.font = theme.font;
  c.textBaseline = "middle";
  for (const band of f.bands ?? []) drawBand(c, f, band, theme, x);
  drawAxis(c, f, theme, x);
  if (f.cells) {
    c.save();
    c.beginPath();
    c.rect(f.gutter, AXIS, f.width - f.gutter, f.height);
    c.clip();
    cells();
    f.cells.rows.forEach((_, i) => drawBase(c, f, i, theme, x));
    c.restore();
    f.cells.rows.forEach((row, i) => drawName(c, f, row.name, i, theme));
  }
  if (nowX >= f.gutter && nowX <= f.width) {
    c.fillStyle = theme.color("accent");
    c.fillRect(Math.round(nowX) - 1, AXIS - 6, 2, f.height);
    c.textAlign = "center";
    c.fillText("now", Math.min(f.width - 14, Math.max(f.gutter + 14, nowX)), 7);
  }
}

/** A window: a tint over all rows, with its name where there is room. */
function drawBand(c: CanvasRenderingContext2D, f: Frame, band: Band, theme: Theme, x: (at: number) => number): void {
  const left = Math.max(f.gutter, x(band.from));
  const width = Math.min(f.width, x(band.until)) - left;
  if (width <= 0) return;
  c.fillStyle = theme.color("warn-tint");
  c.fillRect(left, AXIS, Math.max(2, width), f.height - AXIS);
  const label = `${band.mode}: ${band.name}`;
  if (c.measureText(label).width > width + 40) return;
  c.fillStyle = theme.color("warn");
  c.textAlign = "left";
  c.fillText(label, left, 7);
}

function drawAxis(c: CanvasRenderingContext2D, f: Frame, theme: Theme, x: (at: number) => number): void {
  const { at, every } = ticks(f.view, Math.max(2, Math.floor((f.width - f.gutter) / 90)));
  c.textAlign = "center";
  for (const t of at) {
    const place = Math.round(x(t));
    c.fillStyle = theme.color("line");
    c.fillRect(place, AXIS, 1, f.height);
    c.fillStyle = theme.color("muted");
    if (place > f.gutter + 24 && place < f.width - 24) c.fillText(tickText(t, every), place, 21);
  }
}

function tickText(at: number, every: number): string {
  if (every > 7 * 86_400) return monthOf(at);
  if (every >= 86_400) return dayOf(at).slice(5);
  const time = clock(at, at);
  if (every >= 60 && time === "00:00:00") return dayOf(at).slice(5);
  return every >= 60 ? time.slice(0, 5) : time;
}

/** The line below a row, and the step under the pointer. */
function drawBase(c: CanvasRenderingContext2D, f: Frame, i: number, theme: Theme, x: (at: number) => number): void {
  const bottom = AXIS + (i + 1) * f.lane - BELOW;
  const room = f.lane - BESIDE;
  c.fillStyle = theme.color("line");
  c.fillRect(f.gutter, bottom, f.width - f.gutter, 1);
  if (f.hover?.row !== i || !f.cells) return;
  const { from, stepMs } = f.cells;
  const width = x(from + stepMs) - x(from);
  c.strokeStyle = theme.color("text");
  c.strokeRect(x(from + f.hover.step * stepMs) - 1, bottom - room - 2, Math.max(3, width) + 1, room + 3);
}

function drawName(c: CanvasRenderingContext2D, f: Frame, name: string, i: number, theme: Theme): void {
  c.fillStyle = theme.color("text");
  c.textAlign = "left";
  const y = AXIS + i * f.lane + f.lane / 2;
  let shown = name;
  while (shown.length > 3 && c.measureText(shown).width > f.gutter - 14) shown = `${shown.slice(0, -2).replace(/…$/, "")}…`;
  c.fillText(shown, 4, y);
}

/** Which row and step is under a point; undefined outside. */
export function under(f: Frame, px: number, py: number): { row: number; step: number; at: number } | undefined {
  if (!f.cells || px < f.gutter || py < AXIS) return undefined;
  const at = f.view.from + ((px - f.gutter) / (f.width - f.gutter)) * (f.view.until - f.view.from);
  const row = Math.floor((py - AXIS) / f.lane);
  const step = Math.floor((at - f.cells.from) / f.cells.stepMs);
  const found = f.cells.rows[row];
  return found && step >= 0 && step < found.total.length ? { row, step, at } : undefined;
}
