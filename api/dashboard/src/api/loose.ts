// Calls whose operations other parts of the API bring: checked when they answer, not when the page is built.
import { queryText, type Call, type Method } from "./calls";

/** A call of a path that the OpenAPI document may not have yet; the answer's type is the caller's word. */
export function loose<T>(method: Method, path: string, options: { query?: object; body?: unknown } = {}): Call<T> {
  const headers: Record<string, string> = options.body === undefined ? {} : { "Content-Type": "application/json" };
  return { method, address: path + queryText(options.query ?? {}), body: options.body, headers };
}
