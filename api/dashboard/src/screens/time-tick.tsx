// What a click on the axis explains: which jobs are in a step of a row, and when exactly; each leads to its explanation.
import { useEffect, useMemo, useRef } from "preact/hooks";
import { loose } from "../api/loose";
import { clock, count, fullTime, plural } from "../format";
import { useLive } from "../live";
import { changeQuery, href, type Route } from "../route";
import { cellsOf, rowWords, type Row } from "../timeline/cells";
import { stepWithin, zoomAt, type View } from "../timeline/view";
import { Card, ProblemNote, Skeleton } from "../ui/parts";

const TIMES = 6;
const JOBS = 20;
const OTHERS = /^\d+ others$|^others$/;

/** The step that the address names; nothing while it names none. */
export function tickOf(query: Route["query"]): (View & { row: string }) | undefined {
  const from = Date.parse(query["at"] ?? "");
  const step = Number(query["step"]) * 1000;
  return query["row"] && Number.isFinite(from) && step >= 1000 ? { row: query["row"], from, until: from + step } : undefined;
}

/** The filter of a row beside that of the screen; nothing if no filter of jobs says it. */
export function filterOfRow(query: Route["query"], row: string): Record<string, string | string[] | undefined> | undefined {
  const { q, tag, host, state, failing } = query;
  const shared = { q, tag, host, state, failing };
  switch (query["by"] ?? "tag") {
    case "all":
      return shared;
    case "tag":
      return OTHERS.test(row) ? undefined : { ...shared, tag: tag && tag !== row ? [tag, row] : row };
    case "host":
      return OTHERS.test(row) ? undefined : { ...shared, host: row };
    case "job":
      return OTHERS.test(row) ? undefined : { ...shared, q: row };
    default:
      return undefined;
  }
}

/** The screen that holds what a row counts: that of its job, or the axis with the row as its filter. */
export function rowAddress(query: Route["query"], row: string): string | undefined {
  const filter = filterOfRow(query, row);
  if (!filter || query["by"] === "all" || Array.isArray(filter["tag"])) return undefined;
  if (query["by"] === "job") return href(["jobs", row]);
  return href(["time"], { ...query, ...(filter as Record<string, string | undefined>), by: "job", row: undefined, at: undefined, step: undefined });
}

export function Tick({ route, nowMs, onZoom }: { route: Route; nowMs: number; onZoom: (view: View) => void }) {
  const tick = tickOf(route.query);
  if (!tick) return null;
  return <Explained key={`${tick.row} ${tick.from} ${tick.until}`} tick={tick} route={route} nowMs={nowMs} onZoom={onZoom} />;
}

function Explained({ tick, route, nowMs, onZoom }: { tick: View & { row: string }; route: Route; nowMs: number; onZoom: (view: View) => void }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  const { row, from, until } = tick;
  const filter = filterOfRow(route.query, row);
  const step = stepWithin(until - from);
  const asks = loose<string>("get", "/timeline", { query: { ...filter, from: iso(from), until: iso(until), step: `${step}s`, by: "job", rows: JOBS } });
  const live = useLive(filter ? { ...asks, asText: true } : null, until < nowMs ? 0 : 15_000);
  const cells = useMemo(() => (live.data ? cellsOf(live.data, "All jobs") : undefined), [live.data]);
  const rows = cells?.rows.filter((r) => r.total.some((n) => n > 0) && (route.query["by"] !== "job" || r.name === row)) ?? [];
  const close = () => {
    changeQuery(route, { row: undefined, at: undefined, step: undefined });
    document.querySelector<HTMLElement>(".axis canvas")?.focus({ preventScroll: true });
  };
  const onlyPast = until <= nowMs;
  return (
    <Card
      class="tick"
      title={<span ref={heading} tabIndex={-1}>{row}, {fullTime(from)}{until - from > 1000 && ` to ${clock(until, from)}`}</span>}
      aside={
        <span class="group-aside">
          {until - from > 1000 && <button type="button" class="small" onClick={() => onZoom(zoomAt({ from, until }, (from + until) / 2, 3))}>Zoom in here</button>}
          <button type="button" class="small" onClick={close}>Close</button>
        </span>
      }
    >
      <ProblemNote problem={live.problem} />
      {filter && !cells && !live.problem && <Skeleton rows={2} />}
      {!filter && <p>No filter of jobs is this row: choose rows by job or by tag to see which jobs are in it.</p>}
      {cells && rows.length === 0 && <p>No job was sent or is due then.</p>}
      <ul class="plain rows">
        {rows.map((r) => (
          <li key={r.name}>
            {OTHERS.test(r.name) ? <span>{r.name}</span> : <a href={href(["jobs", r.name])}>{r.name}</a>}
            <span class="faint">{rowWords(r).join(", ")}</span>
            {!OTHERS.test(r.name) && <Times row={r} from={cells?.from ?? from} stepMs={step * 1000} />}
          </li>
        ))}
      </ul>
      {cells && cells.jobsLeftOut > 0 && <p class="remark">{count(cells.jobsLeftOut)} jobs are not counted ahead: choose a shorter time or a filter.</p>}
      {(onlyPast || from <= nowMs) && <p class="more"><a href={href(["executions"], { since: iso(from), until: iso(until) })}>All executions that ended then</a></p>}
    </Card>
  );
}

/** The seconds at which a job was or will be sent, each with its explanation; coarser steps say only how many there are. */
function Times({ row, from, stepMs }: { row: Row; from: number; stepMs: number }) {
  const at = [...row.total].map((n, i) => (n > 0 ? from + i * stepMs : 0)).filter(Boolean);
  if (stepMs > 1000) return <span class="faint">in {plural(at.length, "part")} of this time</span>;
  return (
    <span class="times">
      {at.slice(0, TIMES).map((t) => <a key={t} href={href(["jobs", row.name], { at: iso(t) })} aria-label={`Explain ${row.name} at ${clock(t, t)}`}>{clock(t, t)}</a>)}
      {at.length > TIMES && <span class="faint">and {count(at.length - TIMES)} more</span>}
    </span>
  );
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
