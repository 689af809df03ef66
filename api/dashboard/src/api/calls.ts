// A call is a value: the page sends it, and shows the same as curl. Paths, parameters and answers are checked against the
// OpenAPI document, so that a page which asks for something that the API does not know does not build.
import type { paths } from "./types";

export type Method = "get" | "post" | "put" | "patch" | "delete";
type Operation<P extends keyof paths, M extends Method> = paths[P][M];
export type PathsWith<M extends Method> = {
  [P in keyof paths]: paths[P] extends { [K in M]: { responses: unknown } } ? P : never;
}[keyof paths];

type Json<R> = R extends { content: { "application/json": infer T } } ? T : undefined;
type Answers<R> = { [S in keyof R & (200 | 201 | 202)]: Json<R[S]> }[keyof R & (200 | 201 | 202)];
export type Answer<P extends keyof paths, M extends Method> =
  Operation<P, M> extends { responses: infer R } ? Answers<R> : undefined;
type Parameters<O> = O extends { parameters: infer Q } ? Q : object;
type InPath<O> = Parameters<O> extends { path: infer V } ? { [K in keyof V]: string } : Record<never, string>;
type InQuery<O> = Parameters<O> extends { query?: infer V } ? { [K in keyof V]?: unknown } : object;
type Content<O> = O extends { requestBody?: { content: infer C } }
  ? C extends { "application/json": infer B } ? B : C extends { "application/merge-patch+json": infer B } ? B : unknown
  : undefined;

export interface Call<T = unknown> {
  readonly method: Method;
  /** The path with its parameters filled in, and the query; it begins with a slash. */
  readonly address: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** The answer is wanted as it came, as a text. */
  readonly asText?: boolean;
  /** Never set: it carries the type of the answer. */
  readonly answer?: T;
}

interface Options<O> {
  path?: InPath<O>;
  query?: InQuery<O>;
  body?: Content<O>;
  headers?: Record<string, string>;
}

/** A call of one operation of the API. Parameters that are undefined, null or empty are left out. */
export function call<M extends Method, P extends PathsWith<M>>(
  method: M,
  path: P,
  options: Options<Operation<P, M>> = {},
): Call<Answer<P, M>> {
  const values = (options.path ?? {}) as Record<string, string>;
  const filled = String(path).replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(values[name] ?? ""));
  const headers = { ...(options.body === undefined ? {} : { "Content-Type": contentType(method) }), ...options.headers };
  return { method, address: filled + queryText(options.query ?? {}), body: options.body, headers };
}

function contentType(method: Method): string {
  return method === "patch" ? "application/merge-patch+json" : "application/json";
}

export function queryText(values: object): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(values) as [string, unknown][]) {
    if (value === undefined || value === null || value === "" || value === false) continue;
    for (const text of (Array.isArray(value) ? value : [value]).map(String).filter(Boolean)) {
      parts.push(`${encodeURIComponent(name)}=${encodeURIComponent(text).replaceAll("%2C", ",").replaceAll("%3A", ":")}`);
    }
  }
  return parts.length ? `?${parts.join("&")}` : "";
}

/** Where the API is: the page is at `/` of it, whatever a proxy keeps in front. */
export function apiBase(location: { origin: string; pathname: string }): string {
  return location.origin + location.pathname.replace(/[^/]*$/, "").replace(/\/$/, "");
}
