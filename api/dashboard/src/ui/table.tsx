// Tables: a heading per column, sorting by buttons in the headings, rows that keep their height. On a phone a row of a table
// that has no sorting becomes a block whose cells carry their headings; the roles keep it a table for screen readers.
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { changeQuery, type Route } from "../route";

export interface Column<T> {
  name: string;
  cell: (row: T) => ComponentChildren;
  /** The value of `sort` that orders by this column. */
  sort?: string;
  class?: string;
}

interface TableProps<T> {
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  id: (row: T) => string;
  route?: Route;
}

export function Table<T>({ label, columns, rows, id, route }: TableProps<T>) {
  const keys = useMemo(() => rows.map(id), [rows]);
  return (
    <div class="table-wrap">
      <table role="table" aria-label={label} class={route ? undefined : "stack"}>
        <thead role="rowgroup">
          <tr role="row">{columns.map((c) => <Heading key={c.name} column={c} route={route} />)}</tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row, i) => (
            <tr role="row" key={keys[i]}>
              {columns.map((c) => <td role="cell" key={c.name} class={c.class} data-name={c.name}>{c.cell(row)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Heading<T>({ column, route }: { column: Column<T>; route: Route | undefined }) {
  if (!column.sort || !route) return <th role="columnheader" scope="col" class={column.class}>{column.name}</th>;
  const sort = route.query["sort"];
  const up = sort === column.sort;
  const down = sort === `-${column.sort}`;
  const next = up ? `-${column.sort}` : down ? undefined : column.sort;
  return (
    <th role="columnheader" scope="col" class={column.class} aria-sort={up ? "ascending" : down ? "descending" : "none"}>
      <button type="button" class="sort" onClick={() => changeQuery(route, { sort: next })}>
        {column.name} <span aria-hidden="true">{up ? "↑" : down ? "↓" : "↕"}</span>
      </button>
    </th>
  );
}

/** The filters of the address that have no control of their own: a press takes one off. */
export function Chips({ route, names }: { route: Route; names: readonly string[] }) {
  return (
    <>
      {names.filter((name) => route.query[name]).map((name) => (
        <button key={name} type="button" class="chip" onClick={() => changeQuery(route, { [name]: undefined })}>
          <span class="hidden">Remove the filter</span> {name}: <b>{route.query[name]}</b> <span aria-hidden="true">✕</span>
        </button>
      ))}
    </>
  );
}

/** The way to the next page; the browser's own way leads back. */
export function Pager({ route, nextCursor, shown }: { route: Route; nextCursor: string | null | undefined; shown: number }) {
  const onLaterPage = Boolean(route.query["cursor"]);
  if (!nextCursor && !onLaterPage) return null;
  return (
    <nav class="pager" aria-label="Pages">
      {onLaterPage && <button type="button" onClick={() => changeQuery(route, { cursor: undefined }, false)}>First page</button>}
      <span class="faint">{shown} on this page</span>
      {nextCursor && <button type="button" onClick={() => changeQuery(route, { cursor: nextCursor }, false)}>Next page</button>}
    </nav>
  );
}
