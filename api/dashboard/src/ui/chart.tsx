// Series over time, drawn by uPlot in the colours of the theme; screen readers hear the latest and the highest values.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Series {
  label: string;
  /** The name of a colour of the theme, such as `ok`. */
  color: string;
  values: readonly (number | null)[];
  format?: (value: number) => string;
  dots?: boolean;
  fill?: boolean;
}

interface ChartProps {
  label: string;
  /** Milliseconds, ascending. */
  at: readonly number[];
  series: readonly Series[];
  height?: number;
  unit: (value: number) => string;
  /** The unit on the axis, if it is a shorter one. */
  axisUnit?: (value: number) => string;
}

export function Chart({ label, at, series, height = 150, unit, axisUnit }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  const shape = series.map((s) => s.label).join("|");
  const data = [at.map((t) => t / 1000), ...series.map((s) => [...s.values])] as uPlot.AlignedData;
  useEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element, series, height, axisUnit ?? unit), data, element);
    };
    make();
    const sizes = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    sizes.observe(element);
    const themes = new MutationObserver(make);
    themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", make);
    return () => {
      system.removeEventListener("change", make);
      sizes.disconnect();
      themes.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [shape, height]);
  useEffect(() => plot.current?.setData(data), [at, series]);
  const latest = series.map((s) => `${s.label} ${text(s.values.findLast((v) => v !== null), s.format ?? unit)}, highest ${text(highest(s.values), s.format ?? unit)}`).join("; ");
  return (
    <figure class="chart">
      <figcaption>
        {series.map((s) => (
          <span key={s.label} class="key"><span class={`swatch c-${s.color}`} aria-hidden="true" />{s.label} <b>{text(s.values.findLast((v) => v !== null), s.format ?? unit)}</b></span>
        ))}
      </figcaption>
      <div ref={place} class={`plot h-${height}`} role="img" aria-label={`${label}. Latest: ${latest}`} />
    </figure>
  );
}

function text(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? "–" : format(value);
}

function highest(values: readonly (number | null)[]): number | undefined {
  let most: number | undefined;
  for (const v of values) if (v !== null && (most === undefined || v > most)) most = v;
  return most;
}

function lonely(values: ArrayLike<number | null | undefined>): boolean {
  for (let i = 1; i < values.length; i++) if (values[i] != null && values[i - 1] != null) return false;
  return true;
}

/** A colour of the theme as it is now. */
export function themeColor(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function options(element: HTMLElement, series: readonly Series[], height: number, unit: (v: number) => string): uPlot.Options {
  const axis = { stroke: themeColor("muted"), grid: { stroke: themeColor("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width: element.clientWidth,
    height,
    padding: [8, 26, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 7 } },
    scales: { y: { range: (_u, _min, max) => [0, max > 0 ? max * 1.12 : 1] } },
    axes: [
      { ...axis, grid: { show: false }, space: 70, size: 28, values: [[3600, "{HH}:{mm}", null, null, null, null, null, null, 1], [60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] },
      { ...axis, size: 58, space: 30, values: (_u, ticks) => ticks.map(unit) },
    ],
    series: [
      {},
      ...series.map((s): uPlot.Series => {
        const stroke = themeColor(s.color);
        return {
          label: s.label,
          stroke,
          width: 1.5,
          ...(s.fill ? { fill: `${stroke}22` } : {}),
          // A line needs two values: where there are fewer, one is a dot.
          points: { show: (u: uPlot, i: number) => s.dots ?? lonely(u.data[i] ?? []), size: 5, fill: stroke },
          ...(s.dots ? { paths: () => null } : {}),
          spanGaps: false,
        };
      }),
    ],
  };
}
