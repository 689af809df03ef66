// All jobs: searched, sorted, filtered; the address carries what was chosen.
import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "../api/calls";
import { offers } from "../api/offered";
import type { ListedJob } from "../api/types";
import { hostOf } from "../format";
import { useLive } from "../live";
import { changeQuery, href, type Route } from "../route";
import { useMay } from "../session";
import { LazyStrip } from "../ui/lazy-strip";
import { Time } from "../ui/now";
import { Empty, Head, ProblemNote, Skeleton, Tags } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { Chips, Pager, Table, type Column } from "../ui/table";
import { BulkButton } from "./bulk";
import { ImportDrop } from "./import-drop";

const PAGE = 50;
const TYPING_MS = 250;

export function listCall(query: Route["query"]) {
  const { state, tag, q, host, failing, sort, cursor, nextRunBefore, schedule, calendar } = query;
  return call("get", "/jobs", { query: { state, tag, q, host, failing, sort, cursor, nextRunBefore, schedule, calendar, limit: PAGE } });
}

export function JobsScreen({ route }: { route: Route }) {
  const list = useLive(listCall(route.query));
  const rows = list.data?.items ?? [];
  return (
    <ImportDrop onDone={list.reload}>
      <Head title="Jobs" note="What is to be sent, and when.">
        {offers("/jobs/actions") && <BulkButton route={route} onDone={list.reload} />}
        <NewJob />
      </Head>
      <Filters route={route} />
      <ProblemNote problem={list.problem} />
      {!list.data && !list.problem ? <Skeleton rows={12} /> : null}
      {list.data && rows.length === 0 ? <Empty>{Object.keys(route.query).length > 0 ? <>No job matches. <a href="#/jobs">Show all</a></> : "There is no job yet."}</Empty> : null}
      {rows.length > 0 && <Table label="Jobs" columns={COLUMNS} rows={rows} id={(j) => j.jobId} route={route} />}
      <Pager route={route} nextCursor={list.data?.nextCursor} shown={rows.length} />
    </ImportDrop>
  );
}

function NewJob() {
  return useMay("write") ? <a class="button primary" href="#/new">New job</a> : null;
}

const COLUMNS: readonly Column<ListedJob>[] = [
  {
    name: "Job", sort: "name", class: "main-cell",
    cell: (j) => (
      <>
        <a class="row-link" href={href(["jobs", j.jobId])}>{j.name || j.jobId}</a>
        <span class="sub">{j.name ? `${j.jobId} · ` : ""}{hostOf(j.api)}</span>
      </>
    ),
  },
  { name: "State", cell: (j) => (j.failing && j.state === "active" ? <StateBadge state="failed" text="failing" /> : <StateBadge state={j.state} />) },
  { name: "Schedule", class: "mid", cell: (j) => <><code>{j.schedule ?? `after ${j.after?.jobId ?? ""}`}</code>{j.timezone !== "UTC" && <span class="sub">{j.timezone}</span>}</> },
  { name: "Next", sort: "nextRunAt", class: "num", cell: (j) => <Time at={j.nextRunAt} /> },
  { name: "Last", sort: "lastRunAt", class: "num mid", cell: (j) => <Time at={j.lastRunAt} /> },
  { name: "Last 30", class: "mid", cell: (j) => <LazyStrip jobId={j.jobId} version={j.lastRunAt ?? ""} /> },
  { name: "Tags", class: "wide-only", cell: (j) => <Tags tags={j.tags} /> },
];

const CHOICES = [
  ["All", {}],
  ["Active", { state: "active" }],
  ["Failing", { failing: "true" }],
  ["Paused", { state: "paused" }],
  ["Completed", { state: "completed" }],
] as const satisfies readonly (readonly [string, Record<string, string>])[];

function Filters({ route }: { route: Route }) {
  const { query } = route;
  return (
    <div class="filters">
      <SearchBox route={route} label="Search jobs" />
      <div class="segments" role="group" aria-label="State">
        {CHOICES.map(([label, values]) => {
          const chosen = query["state"] === ("state" in values ? values.state : undefined) && query["failing"] === ("failing" in values ? values.failing : undefined);
          return (
            <button key={label} type="button" aria-pressed={chosen} onClick={() => changeQuery(route, { state: undefined, failing: undefined, ...values })}>
              {label}
            </button>
          );
        })}
      </div>
      <Chips route={route} names={["tag", "host", "schedule", "calendar", "nextRunBefore"]} />
    </div>
  );
}

/** A box that writes `q` into the address a moment after the last key. */
export function SearchBox({ route, label }: { route: Route; label: string }) {
  const [text, setText] = useState(route.query["q"] ?? "");
  const timer = useRef(0);
  useEffect(() => setText(route.query["q"] ?? ""), [route.query["q"]]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const type = (value: string) => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => changeQuery(route, { q: value.trim() || undefined }), TYPING_MS);
  };
  return (
    <input
      class="search" type="search" placeholder={label} aria-label={label} value={text} maxLength={200}
      onInput={(e) => type(e.currentTarget.value)}
    />
  );
}
