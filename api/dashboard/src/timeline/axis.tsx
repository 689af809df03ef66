// The axis on the screen: pointer, wheel, keys; drawn again only when something changed.
import { useEffect, useRef, useState } from "preact/hooks";
import { clock } from "../format";
import { themeColor } from "../ui/chart";
import { stepWords, type Cells } from "./cells";
import { AXIS, draw, GUTTER, heightFor, laneFor, under, type Frame, type Theme } from "./draw";
import { Layer } from "./layer";
import { inksOf, type Inks } from "./pixels";
import { neighbourOf } from "./neighbour";
import { pan, zoomAt, type View } from "./view";
import type { Band } from "./windows";

interface AxisProps {
  view: View;
  cells: Cells | undefined;
  now: number;
  bands: readonly Band[];
  onView: (view: View) => void;
  onPick: (row: string, from: number, until: number) => void;
}

interface Tip {
  x: number;
  y: number;
  title: string;
  words: string[];
  /** Chosen by keys: then it is read aloud. */
  byKeys?: boolean;
}

const PHONE = 600;

function themeOf(): Theme & { inks: Inks } {
  const known = new Map<string, string>();
  const color = (name: string) => {
    let value = known.get(name);
    if (!value) known.set(name, (value = themeColor(name)));
    return value;
  };
  return { color, font: "12px system-ui, sans-serif", inks: inksOf(color) };
}

export function Axis({ view, cells, now, bands, onView, onPick }: AxisProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [tip, setTip] = useState<Tip>();
  const [theme, setTheme] = useState(themeOf);
  const layer = useRef(new Layer());
  const hover = useRef<{ row: number; step: number }>();
  const drag = useRef<{ x: number; view: View; moved: boolean }>();
  const height = heightFor(cells?.rows.length ?? 6);
  const gutter = width < PHONE ? 84 : GUTTER;
  const frame: Frame = { width, height, view, cells, now, gutter, lane: laneFor(cells?.rows.length ?? 6), hover: hover.current, bands };
  const latest = useRef({ frame, onView, onPick });
  latest.current = { frame, onView, onPick };

  useEffect(() => {
    const element = canvas.current;
    if (!element) return undefined;
    const sizes = new ResizeObserver(() => setWidth(element.clientWidth));
    sizes.observe(element);
    const dress = () => setTheme(themeOf);
    const watch = new MutationObserver(dress);
    watch.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", dress);
    // Not passive: the page must not scroll while the wheel zooms.
    const wheel = (e: WheelEvent) => {
      e.preventDefault();
      const { frame: f, onView: move } = latest.current;
      const span = f.view.until - f.view.from;
      if (Math.abs(e.deltaX) > Math.abs(e.deltaY) || e.shiftKey) return move(pan(f.view, ((e.deltaX || e.deltaY) / f.width) * span));
      const at = f.view.from + Math.max(0, (e.offsetX - f.gutter) / (f.width - f.gutter)) * span;
      return move(zoomAt(f.view, at, e.deltaY > 0 ? 1.25 : 0.8));
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => {
      sizes.disconnect();
      watch.disconnect();
      system.removeEventListener("change", dress);
      element.removeEventListener("wheel", wheel);
    };
  }, []);

  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || width === 0) return undefined;
    let request = 0;
    const frameNow = () => {
      const ratio = devicePixelRatio || 1;
      if (element.width !== Math.round(width * ratio) || element.height !== Math.round(height * ratio)) {
        element.width = Math.round(width * ratio);
        element.height = Math.round(height * ratio);
      }
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      let more = false;
      draw(context, frame, theme, () => (more = layer.current.show(context, frame, theme.inks, ratio)));
      if (more) request = requestAnimationFrame(frameNow);
    };
    request = requestAnimationFrame(frameNow);
    return () => cancelAnimationFrame(request);
  }, [width, height, view.from, view.until, cells, now, bands, theme, tip]);

  const name = (at: { row: number; step: number }, x: number, y: number, byKeys = false) => {
    const f = latest.current.frame;
    hover.current = at;
    const row = f.cells?.rows[at.row];
    if (!row || !f.cells) return setTip(undefined);
    const words = stepWords(row, at.step);
    return setTip({ x: Math.min(x + 14, Math.max(0, width - 190)), y: y + 14, title: `${row.name}, ${clock(f.cells.from + at.step * f.cells.stepMs, now)}`, words: words.length ? words : ["nothing"], byKeys });
  };
  const unname = () => {
    hover.current = undefined;
    setTip(undefined);
  };
  const pick = (at: { row: number; step: number }) => {
    const { cells: c } = latest.current.frame;
    const row = c?.rows[at.row];
    if (c && row) onPick(row.name, c.from + at.step * c.stepMs, c.from + (at.step + 1) * c.stepMs);
  };
  const move = (e: PointerEvent) => {
    const f = latest.current.frame;
    if (drag.current) {
      const by = ((drag.current.x - e.offsetX) / (f.width - f.gutter)) * (drag.current.view.until - drag.current.view.from);
      if (Math.abs(drag.current.x - e.offsetX) > 3) drag.current.moved = true;
      if (drag.current.moved) return onView(pan(drag.current.view, by));
    }
    const found = under(f, e.offsetX, e.offsetY);
    return found ? name(found, e.offsetX, e.offsetY) : unname();
  };
  const up = (e: PointerEvent) => {
    const f = latest.current.frame;
    const moved = drag.current?.moved;
    drag.current = undefined;
    const found = under(f, e.offsetX, e.offsetY);
    if (!moved && found) pick(found);
  };
  const keys = (e: KeyboardEvent) => {
    if (keyOfTick(e)) return e.preventDefault();
    const span = view.until - view.from;
    const moves: Record<string, View> = {
      ArrowLeft: pan(view, -span / 8), ArrowRight: pan(view, span / 8),
      "+": zoomAt(view, (view.from + view.until) / 2, 0.5), "-": zoomAt(view, (view.from + view.until) / 2, 2),
    };
    const next = moves[e.key];
    if (!next) return;
    e.preventDefault();
    onView(next);
  };
  const keyOfTick = (e: KeyboardEvent): boolean => {
    const f = latest.current.frame;
    if (e.key === "Enter" && hover.current) {
      pick(hover.current);
      return true;
    }
    if (e.key === "Escape" && hover.current) {
      unname();
      return true;
    }
    const next = f.cells && neighbourOf(f.cells, view, now, hover.current, e.key, e.shiftKey);
    if (!f.cells || !next) return false;
    const x = f.gutter + ((f.cells.from + next.step * f.cells.stepMs - view.from) / (view.until - view.from)) * (width - f.gutter);
    name(next, x, AXIS + next.row * f.lane, true);
    return true;
  };
  return (
    <div class="axis" style={{ height: `${height}px` }}>
      <canvas
        ref={canvas} tabIndex={0} role="application" onKeyDown={keys} onBlur={unname}
        aria-label="Executions on an axis of time. Left and right move it, plus and minus zoom. Up and down choose a row, with Shift left and right go from tick to tick, Enter explains. The table below has the same as text."
        onPointerDown={(e) => (drag.current = { x: e.offsetX, view, moved: false })} onPointerMove={move} onPointerUp={up}
        onPointerLeave={() => ((drag.current = undefined), unname())}
      />
      <p class="hidden" role="status">{tip?.byKeys && `${tip.title}: ${tip.words.join(", ")}`}</p>
      {tip && (
        <div class="tip" style={{ left: `${tip.x}px`, top: `${tip.y}px` }} aria-hidden="true">
          <b>{tip.title}</b>
          {tip.words.map((w) => <span key={w}>{w}</span>)}
        </div>
      )}
    </div>
  );
}
