// Failures that belong together, as the server counts them: the same host, the same error.
import type { Schemas } from "./api/types";

export type Group = Schemas["FailureGroup"];
export type GroupFilter = Partial<Pick<Schemas["RetryFilter"], "host" | "error" | "status">>;

/** The error, such as `timeout`, or the HTTP status as text. */
export function errorOf(g: Pick<Group, "error" | "status">): string {
  return g.error ?? (g.status === null ? "not sent" : String(g.status));
}

/** What a replay of exactly this group is narrowed to; nothing if no filter says it: what was never sent, or is of jobs that
 * were deleted. */
export function filterOf(g: Pick<Group, "host" | "error" | "status">): GroupFilter | undefined {
  if (g.host === null || (g.error === null && g.status === null)) return undefined;
  const { host, error, status } = g;
  return { host, ...(error === null ? {} : { error: error as NonNullable<GroupFilter["error"]> }), ...(status === null ? {} : { status }) };
}
