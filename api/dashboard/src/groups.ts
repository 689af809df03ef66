// Failures that belong together: the same host, the same error.
import type { Execution, ListedJob } from "./api/types";
import { hostOf } from "./format";

export interface Group {
  host: string;
  /** The error, such as `timeout`, or the HTTP status as text. */
  error: string;
  status: number | null;
  items: Execution[];
  jobs: string[];
  latest: string;
}

/** The error of an execution as the replay filter names it. */
export function errorOf(e: Pick<Execution, "error" | "status">): string {
  const kind = /^(dns|connect|tls|timeout|stalled|reset|denied|too_large|protocol|other)\b/.exec(e.error ?? "")?.[1];
  if (kind) return kind;
  return e.status === null ? "not sent" : String(e.status);
}

/** Groups of failures, the largest first. `hosts` is by job id; a job that is not in it has an unknown host. */
export function groupFailures(items: readonly Execution[], hosts: ReadonlyMap<string, string>): Group[] {
  const groups = new Map<string, Group>();
  for (const e of items) {
    const jobId = e.jobId ?? "";
    const host = hosts.get(jobId) ?? "unknown host";
    const error = errorOf(e);
    const key = `${host}\n${error}`;
    const group = groups.get(key) ?? { host, error, status: /^\d/.test(error) ? e.status : null, items: [], jobs: [], latest: e.timestamp };
    group.items.push(e);
    if (!group.jobs.includes(jobId)) group.jobs.push(jobId);
    if (e.timestamp > group.latest) group.latest = e.timestamp;
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.items.length - a.items.length || b.latest.localeCompare(a.latest));
}

export function hostsOf(jobs: readonly Pick<ListedJob, "jobId" | "api">[]): Map<string, string> {
  return new Map(jobs.map((j) => [j.jobId, hostOf(j.api)]));
}
