// Bars and heat of one row as pixels. Written by hand into an array, because a path of very many rectangles holds up the frame
// in which the browser has to draw it. Pure: nothing here touches the page.
import { COLOR, KINDS, type Cells, type Kind, type Row } from "./cells";
import type { View } from "./view";

const HEAT_FROM_MS = 3_600_000;
/** In CSS pixels: below the bars, and above and below them together. */
export const BELOW = 5;
export const BESIDE = 12;

/** A pixel as canvases store it: red is the lowest byte. */
export type Ink = number;
export type Inks = Readonly<Record<Kind | "late", Ink>>;

export interface Band extends View {
  /** Device pixels. */
  width: number;
  height: number;
  ratio: number;
}

/** `#rgb` or `#rrggbb` as a pixel; what is neither is grey. */
export function inkOf(color: string): Ink {
  const short = /^#([0-9a-f])([0-9a-f])([0-9a-f])$/i.exec(color);
  const digits = short ? short.slice(1).map((d) => d + d).join("") : /^#([0-9a-f]{6})$/i.exec(color)?.[1] ?? "808080";
  const value = Number.parseInt(digits, 16);
  return ((0xff << 24) | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

export function inksOf(color: (name: string) => string): Inks {
  return Object.fromEntries([["late", inkOf(color("warn"))], ...KINDS.map((kind) => [kind, inkOf(color(COLOR[kind]))])]) as unknown as Inks;
}

/** The same at a share of its strength. */
function faded(ink: Ink, share: number): Ink {
  return ((ink & 0xffffff) | (Math.round(255 * share) << 24)) >>> 0;
}

/** Paint a row into a band of `width * height` pixels, which is emptied first. */
export function paintRow(pixels: Uint32Array, band: Band, row: Row, cells: Cells, inks: Inks): void {
  pixels.fill(0);
  const { from, stepMs, most } = cells;
  const perMs = band.width / (band.until - band.from);
  const first = Math.max(0, Math.floor((band.from - from) / stepMs));
  const last = Math.min(row.total.length - 1, Math.ceil((band.until - from) / stepMs));
  const stepWidth = stepMs * perMs;
  const gap = stepWidth > 4 * band.ratio ? Math.round(band.ratio) : 0;
  const bottom = Math.round(band.height - BELOW * band.ratio);
  const room = band.height - BESIDE * band.ratio;
  const least = 2 * band.ratio;
  const heat = stepMs >= HEAT_FROM_MS;
  const logMost = Math.log1p(most);
  const leftOf = (s: number) => Math.round((from + s * stepMs - band.from) * perMs);
  // What was late is a part of all kinds: a line below the bars.
  for (let s = first; s <= last; s++) {
    if (row.late[s]) fillRect(pixels, band, leftOf(s), Math.max(leftOf(s) + least, leftOf(s + 1) - gap), bottom + band.ratio, bottom + 3 * band.ratio, inks.late);
  }
  const base = new Float64Array(Math.max(0, last - first + 1));
  for (const kind of KINDS) {
    const counts = row.counts.get(kind);
    if (!counts) continue;
    const ink = inks[kind];
    for (let s = first; s <= last; s++) {
      const n = counts[s] ?? 0;
      if (n === 0) continue;
      const total = row.total[s] ?? n;
      const strength = 0.25 + 0.75 * (Math.log1p(total) / logMost);
      const height = Math.max(least, room * (heat ? 1 : strength) * (n / total));
      const below = base[s - first] ?? 0;
      base[s - first] = below + height;
      const left = leftOf(s);
      const right = Math.max(left + 1, leftOf(s + 1) - gap);
      fillRect(pixels, band, left, right, bottom - Math.round(below + height), bottom - Math.round(below), heat ? faded(ink, strength) : ink);
    }
  }
}

function fillRect(pixels: Uint32Array, band: Band, left: number, right: number, top: number, bottom: number, ink: Ink): void {
  const [x0, x1] = [Math.max(0, left), Math.min(band.width, right)];
  for (let y = Math.max(0, Math.round(top)); y < Math.min(band.height, Math.round(bottom)); y++) {
    const line = y * band.width;
    for (let x = line + x0; x < line + x1; x++) pixels[x] = ink;
  }
}
