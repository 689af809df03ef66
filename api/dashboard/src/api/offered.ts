// What the API of this checkout offers, known when the page is built: a screen whose operations are not there is not shown.
declare const __PATHS__: readonly string[] | null;

/** Whether the API has a path, as the OpenAPI document writes it. Without the document everything counts as offered. */
export function offers(path: string): boolean {
  return typeof __PATHS__ === "undefined" || __PATHS__ === null || __PATHS__.includes(path);
}
