// Failures that belong together, as the server counts them: the same host, the same error.
import type { Schemas } from "./api/types";

export type Group = Schemas["FailureGroup"];
export type GroupFilter = Partial<Pick<Schemas["RetryFilter"], "host" | "error" | "status">>;

/** The error, such as `timeout`, or the HTTP status as text. */
export function errorOf(g: Pick<Group, "error" | "status">): string {
  return g.error ?? (g.status === null ? "not sent" : String(g.status));
}

/** What lists exactly this group and what a replay of it is narrowed to; nothing if it is of jobs that were deleted: nothing
 * says any more where it would go. */
export function filterOf(g: Pick<Group, "host" | "error" | "status">): GroupFilter | undefined {
  if (g.host === null) return undefined;
  const { host, status } = g;
  const error = g.error ?? (status === null ? "not_sent" : null);
  return { host, ...(error === null ? {} : { error: error as NonNullable<GroupFilter["error"]> }), ...(status === null ? {} : { status }) };
}
