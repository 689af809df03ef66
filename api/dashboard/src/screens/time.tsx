// One axis of time: left of now what was sent, right of it what will be due; from a year down to one second.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { loose } from "../api/loose";
import { clock, count, duration, fullTime } from "../format";
import { useLive } from "../live";
import { changeQuery, go, href, type Route } from "../route";
import { Axis } from "../timeline/axis";
import { cellsInParts, COLOR, KINDS, stepWords, type Cells } from "../timeline/cells";
import { useWindows } from "../timeline/use-windows";
import { asked, covers, pan, viewOf, zoomAt, type View } from "../timeline/view";
import { inView } from "../timeline/windows";
import { useNowMs } from "../ui/now";
import { Head, ProblemNote } from "../ui/parts";
import { Chips } from "../ui/table";
import { SearchBox } from "./jobs";
import { rowAddress, Tick } from "./time-tick";

const SPANS = [["1 min", 60], ["10 min", 600], ["1 hour", 3600], ["1 day", 86_400], ["30 days", 2_592_000], ["1 year", 31_536_000]] as const;
const ROWS = [["all", "All"], ["tag", "Tag"], ["queue", "Queue"], ["host", "Host"], ["job", "Job"]] as const;
const SETTLE_MS = 150;
const STILL_MS = 80;
const TIMELINE_MS = 15_000;

export function TimeScreen({ route }: { route: Route }) {
  const nowMs = useNowMs();
  const { query } = route;
  const follows = !query["from"];
  const [moved, setMoved] = useState<View>();
  const view = moved ?? viewOf(query, nowMs);
  const by = query["by"] ?? "tag";
  const settle = useRef(0);
  useEffect(() => setMoved(undefined), [query["from"], query["until"], query["span"]]);
  const move = (next: View) => {
    setMoved(next);
    clearTimeout(settle.current);
    settle.current = window.setTimeout(() => changeQuery(route, { from: iso(next.from), until: iso(next.until), span: undefined }), SETTLE_MS);
  };
  const live = useTimeline(useStill(view, moved !== undefined), by, query, nowMs);
  const windows = useWindows();
  const bands = useMemo(() => inView(windows, view), [windows, view.from, view.until]);
  const pick = (name: string, from: number, until: number) => {
    if (by === "job" && until - from === 1000 && !/^\d+ others$/.test(name)) return go(href(["jobs", name], { at: iso(from) }));
    return changeQuery(route, { row: name, at: iso(from), step: String((until - from) / 1000) }, false);
  };
  const note = live.cells ? (isEmpty(live.cells, view) ? "Nothing was sent then, and nothing is due." : "") : live.problem ? "" : "Counting…";
  const middle = (view.from + view.until) / 2;
  return (
    <>
      <Head title="Time" note={`${fullTime(view.from)} to ${fullTime(view.until)}, ${duration(view.until - view.from)}. Left of now is what was, right of it what will be due.`} />
      <div class="filters">
        <div class="segments" role="group" aria-label="Span">
          {SPANS.map(([label, seconds]) => (
            <button key={label} type="button" aria-pressed={follows && Number(query["span"] ?? 3600) === seconds} onClick={() => changeQuery(route, { span: String(seconds), from: undefined, until: undefined }, false)}>{label}</button>
          ))}
        </div>
        <div class="segments" role="group" aria-label="Rows by">
          {ROWS.map(([value, label]) => <button key={value} type="button" aria-pressed={by === value} onClick={() => changeQuery(route, { by: value, row: undefined, at: undefined, step: undefined })}>{label}</button>)}
        </div>
        <div class="segments" role="group" aria-label="Move">
          <button type="button" aria-label="Earlier" onClick={() => move(pan(view, -(view.until - view.from) / 2))}>←</button>
          <button type="button" aria-label="Zoom out" onClick={() => move(zoomAt(view, middle, 2))}>−</button>
          <button type="button" aria-label="Zoom in" onClick={() => move(zoomAt(view, middle, 0.5))}>+</button>
          <button type="button" aria-label="Later" onClick={() => move(pan(view, (view.until - view.from) / 2))}>→</button>
        </div>
        <SearchBox route={route} label="Only these jobs" />
        <Chips route={route} names={["tag", "host", "state", "failing"]} />
      </div>
      <ProblemNote problem={live.problem} />
      <div class="card axis-card"><Axis view={view} cells={live.cells} now={nowMs} bands={bands} onView={move} onPick={pick} />{note && <p class="axis-note">{note}</p>}</div>
      <Legend windows={bands.length > 0} />
      <Tick route={route} nowMs={nowMs} onZoom={(to) => changeQuery(route, { from: iso(to.from), until: iso(to.until), span: undefined, row: undefined, at: undefined, step: undefined }, false)} />
      {live.cells && live.cells.jobsLeftOut > 0 && <p class="remark">{count(live.cells.jobsLeftOut)} jobs are not counted ahead: choose a shorter time or a filter.</p>}
      {live.cells && <AsTable cells={live.cells} view={view} nowMs={nowMs} query={query} onPick={pick} />}
    </>
  );
}

function isEmpty(cells: Cells, view: View): boolean {
  const first = Math.max(0, Math.floor((view.from - cells.from) / cells.stepMs));
  const last = Math.max(first, Math.ceil((view.until - cells.from) / cells.stepMs));
  return covers(cells, view) && !cells.rows.some((row) => row.total.subarray(first, last).some((n) => n > 0));
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

const PART_MS = 2;

/** The answer laid out for drawing, a few milliseconds at a time; the cells before it stay meanwhile. */
function useCells(answer: string | undefined): Cells | undefined {
  const [cells, setCells] = useState<Cells>();
  useEffect(() => {
    if (!answer) return undefined;
    const parts = cellsInParts(answer, "All jobs");
    let timer = 0;
    const go = () => {
      const began = performance.now();
      let next = parts.next();
      while (!next.done && performance.now() - began < PART_MS) next = parts.next();
      if (next.done) setCells(next.value);
      else timer = window.setTimeout(go);
    };
    go();
    return () => clearTimeout(timer);
  }, [answer]);
  return cells;
}

/** The view once it has stood still: while it is dragged nothing is asked for. */
function useStill(view: View, moving: boolean): View {
  const [still, setStill] = useState(view);
  useEffect(() => {
    if (!moving) return undefined;
    const timer = setTimeout(() => setStill(view), STILL_MS);
    return () => clearTimeout(timer);
  }, [moving, view.from, view.until]);
  return moving ? still : view;
}

/** The cells for a view; the last ones stay until newer ones are there. A view that follows now asks for whole steps. */
function useTimeline(view: View, by: string, query: Route["query"], nowMs: number) {
  const { q, tag, host, state, failing } = query;
  const [crowded, setCrowded] = useState(0);
  const span = view.until - view.from;
  const source = { nowMs, by, filtered: Boolean(q || tag || host || state || failing), crowded: crowded > 0 && span <= crowded };
  const { from, until, step } = asked(view, source);
  const asks = loose<string>("get", "/timeline", { query: { from: iso(from), until: iso(until), step: `${step}s`, by: by === "all" ? undefined : by, q, tag, host, state, failing, rows: 20 } });
  const live = useLive({ ...asks, asText: true }, TIMELINE_MS);
  // Too many to be counted one by one: whole minutes are rolled up.
  const tooMany = live.problem?.status === 422 && step < 60 && !source.filtered && by !== "job";
  useEffect(() => {
    if (tooMany) setCrowded(span);
  }, [tooMany]);
  const cells = useCells(live.data);
  return { cells, problem: tooMany ? undefined : live.problem };
}

function Legend({ windows }: { windows: boolean }) {
  const shown = KINDS.filter((k) => k !== "dead" && k !== "cancelled");
  const names: Record<string, string> = { failed: "failed, dead", skipped: "skipped, cancelled", running: "not finished" };
  return (
    <p class="legend">
      {shown.map((kind) => <span key={kind} class="key"><span class={`swatch fill-${COLOR[kind].replace("-fill", "")}`} aria-hidden="true" />{names[kind] ?? kind}</span>)}
      <span class="key"><span class="swatch late" aria-hidden="true" />some of them late</span>
      {windows && <span class="key"><span class="swatch window" aria-hidden="true" />maintenance window</span>}
    </p>
  );
}

/** The same as text: per row what the view holds, and its busiest step, which a press explains as a click on the axis does. */
function AsTable({ cells, view, nowMs, query, onPick }: { cells: Cells; view: View; nowMs: number; query: Route["query"]; onPick: (row: string, from: number, until: number) => void }) {
  const [open, setOpen] = useState(false);
  const first = Math.max(0, Math.floor((view.from - cells.from) / cells.stepMs));
  const last = Math.ceil((view.until - cells.from) / cells.stepMs);
  return (
    <details class="as-table" onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary>The same as a table</summary>
      {open && <div class="table-wrap dense">
        <table>
          <thead><tr><th scope="col">Row</th><th scope="col" class="num">In view</th><th scope="col">Busiest {duration(cells.stepMs)}</th></tr></thead>
          <tbody>
            {cells.rows.map((row) => {
              const total = row.total.subarray(first, last).reduce((a, b) => a + b, 0);
              let busiest = first;
              for (let i = first; i < Math.min(last, row.total.length); i++) if ((row.total[i] ?? 0) > (row.total[busiest] ?? 0)) busiest = i;
              const address = rowAddress(query, row.name);
              const inView = count(Math.round(total));
              return (
                <tr key={row.name}>
                  <td>{row.name}</td><td class="num">{address ? <a href={address}>{inView}</a> : inView}</td>
                  <td>
                    {(row.total[busiest] ?? 0) > 0
                      ? <button type="button" class="link" onClick={() => onPick(row.name, cells.from + busiest * cells.stepMs, cells.from + (busiest + 1) * cells.stepMs)}>{clock(cells.from + busiest * cells.stepMs, nowMs)}: {stepWords(row, busiest).join(", ")}</button>
                      : "nothing"}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>}
    </details>
  );
}
