// What an answer means, in words, and the request as a target received it.
import type { ExecutionInFull, Job } from "./api/types";

/** The rule by which an execution ended, or goes on. */
export function ruleOf(e: Pick<ExecutionInFull, "state" | "status" | "error" | "attempt">, codes: readonly (number | string)[] | null): string {
  const success = codes ? `one of ${codes.join(", ")}` : "2xx";
  switch (e.state) {
    case "succeeded":
      return `The target answered ${e.status}: success is ${success}.`;
    case "failed":
      return e.status === null
        ? "The request could not be made, and a later attempt would not differ."
        : `The target refused with ${e.status}: 3xx and 4xx other than 408, 425 and 429 end an execution at once.`;
    case "dead":
      return `All attempts failed (${e.attempt}), the last with ${e.status ?? e.error ?? "no answer"}, or the execution became too old.`;
    case "retrying":
      return `Attempt ${e.attempt} ended with ${e.status ?? e.error ?? "no answer"}, which is tried again.`;
    case "missed":
      return "Nothing was sent: no node was running, and the catch-up policy did not ask for it later.";
    case "skipped":
      return "Nothing was sent: the run before it had not ended, and the job has overlap: skip.";
    case "cancelled":
      return "It was cancelled before it could end.";
    case "running":
      return "The request is on its way.";
    default:
      return "It waits for its time, or for a free place to be sent from.";
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The request to the target as curl. Secrets are not known here: `$SECRET` stands for each. */
export function requestAsCurl(job: Pick<Job, "api" | "headers" | "body">, e: Pick<ExecutionInFull, "executionId" | "scheduledAt" | "attempt">): string {
  const lines = [`curl -X POST ${quoted(job.api)}`];
  const text = typeof job.body === "string";
  if (job.body !== null && job.body !== undefined && !text) lines.push(`-H 'Content-Type: application/json'`);
  for (const [name, value] of Object.entries(job.headers ?? {})) {
    lines.push(typeof value === "string" ? `-H ${quoted(`${name}: ${value}`)}` : `-H "${name}: $SECRET"`);
  }
  lines.push(`-H ${quoted(`Idempotency-Key: ${e.executionId}`)}`, `-H ${quoted(`Horae-Execution-Id: ${e.executionId}`)}`);
  lines.push(`-H ${quoted(`Horae-Scheduled-At: ${e.scheduledAt}`)}`, `-H 'Horae-Attempt: ${Math.max(1, e.attempt)}'`);
  if (job.body !== null && job.body !== undefined) lines.push(`-d ${quoted(text ? String(job.body) : JSON.stringify(job.body))}`);
  return lines.join(" \\\n  ");
}
