// The address bar is the state of the page: `#/jobs?state=active&q=mail`. Everything that a reader chose is in it.
import { useEffect, useState } from "preact/hooks";
import { queryText } from "./api/calls";

export type Query = Readonly<Record<string, string>>;

export interface Route {
  /** The segments of the path, decoded; `[]` is the first screen. */
  readonly path: readonly string[];
  readonly query: Query;
}

export function parseRoute(fragment: string): Route {
  const [pathText = "", queryPart = ""] = fragment.replace(/^#/, "").split(/\?(.*)/s);
  const query: Record<string, string> = {};
  for (const [name, value] of new URLSearchParams(queryPart)) if (value) query[name] = value;
  return { path: pathText.split("/").filter(Boolean).map(decoded), query };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a screen. Empty values are left out. */
export function href(path: readonly string[], query: Readonly<Record<string, string | undefined>> = {}): string {
  return `#/${path.map(encodeURIComponent).join("/").replaceAll("%3A", ":")}${queryText(query)}`;
}

const listeners = new Set<() => void>();

export function go(address: string, { replace = false } = {}): void {
  if (replace) {
    history.replaceState(null, "", address);
    listeners.forEach((tell) => tell());
  } else {
    location.hash = address;
  }
}

/** Change some values of the query and keep the rest. A new filter begins at the first page. */
export function changeQuery(route: Route, changes: Readonly<Record<string, string | undefined>>, replace = true): void {
  go(href(route.path, { ...route.query, cursor: undefined, ...changes }), { replace });
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const follow = () => setRoute(parseRoute(location.hash));
    listeners.add(follow);
    addEventListener("hashchange", follow);
    return () => {
      listeners.delete(follow);
      removeEventListener("hashchange", follow);
    };
  }, []);
  return route;
}
