// What an answer means, in words, and the request as a target received it.
import type { Attempt, ExecutionInFull, Job } from "./api/types";
import { duration, plural } from "./format";
import type { Retry } from "./retries";

type Codes = readonly (number | string)[] | null;
const RETRYABLE = [408, 425, 429];

function isSuccess(status: number, codes: Codes): boolean {
  if (codes === null) return status >= 200 && status < 300;
  return codes.some((c) => (typeof c === "number" ? c === status : c[0] === String(status)[0]));
}

/** The rule that applied to one attempt: as `cluster/core/execution/verdict.py` has it. `gaveUp`: it was the last one of an
 * execution that was given up. */
export function verdictOf(a: Pick<Attempt, "status" | "error">, codes: Codes, gaveUp = false): { good: boolean; words: string } {
  const success = codes ? `one of ${codes.join(", ")}` : "2xx";
  if (a.error === "denied") return { good: false, words: "refused, because the address is not allowed: no attempt can change that" };
  if (a.error !== null || a.status === null) {
    const what = a.error === null ? "no answer" : "no whole answer";
    return { good: false, words: gaveUp ? `${what}, and not tried again: it was the last attempt` : `tried again, because there was ${what}` };
  }
  if (isSuccess(a.status, codes)) return { good: true, words: `success, which is ${success}` };
  if (a.status >= 500 || RETRYABLE.includes(a.status)) {
    return { good: false, words: gaveUp ? "not tried again, as 408, 425, 429 and 5xx are: it was the last attempt" : "tried again, as 408, 425, 429 and 5xx are" };
  }
  if (a.status === 410) return { good: false, words: "gone: the execution fails, and the job is paused" };
  return { good: false, words: `refused: success is ${success}, and ${a.status} is not tried again` };
}

/** The rule by which an execution ended, or goes on. */
export function ruleOf(e: Pick<ExecutionInFull, "state" | "status" | "error" | "attempt">, codes: Codes, retry?: Retry): string {
  const success = codes ? `one of ${codes.join(", ")}` : "2xx";
  const most = retry?.maxAttempts ? ` of ${retry.maxAttempts}` : "";
  switch (e.state) {
    case "succeeded":
      return `The target answered ${e.status}: success is ${success}.`;
    case "failed":
      if (e.error?.startsWith("denied")) return "The address of the target is not allowed, which no later attempt would change.";
      if (e.status === null) return "The request could not be made, and a later attempt would not differ.";
      if (e.status === 410) return "The target answered 410 Gone: that ends the execution and pauses its job.";
      return `The target refused with ${e.status}: 3xx and 4xx other than 408, 425 and 429 end an execution at once.`;
    case "dead":
      return `It was given up after ${plural(e.attempt, "attempt")}${most}, the last with ${e.status ?? e.error ?? "no answer"}: ${spent(e.attempt, retry)}.`;
    case "retrying":
      return e.attempt ? `Attempt ${e.attempt}${most} ended with ${e.status ?? e.error ?? "no answer"}, which is tried again.` : "It is sent again, because somebody asked for it.";
    case "missed":
      return "Nothing was sent: nobody was there to send it in time, and the catch-up policy does not ask for it later.";
    case "skipped":
      return "Nothing was sent: the run before it had not ended and the job has overlap: skip, or a window skips it.";
    case "cancelled":
      return "It was cancelled before it could end.";
    case "running":
      return "The request is on its way.";
    default:
      return "It waits for its time, or for a free place to be sent from.";
  }
}

function spent(attempts: number, retry: Retry | undefined): string {
  if (!retry?.maxAttempts) return "its retries were used up, or its time was over";
  return attempts >= retry.maxAttempts ? "its retries were used up" : "its time was over";
}

/** How long an attempt waited at its node, in words; nothing if that is not known. */
export function heldWords(a: Pick<Attempt, "claimedAt" | "sentAt">): string | undefined {
  return a.claimedAt ? `claimed ${duration(Date.parse(a.sentAt) - Date.parse(a.claimedAt))} before it was sent` : undefined;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The request to the target as curl. Secrets are not known here: `$SECRET` stands for each. */
export function requestAsCurl(job: Pick<Job, "api"> & Partial<Pick<Job, "headers" | "body">>, e: Pick<ExecutionInFull, "executionId" | "scheduledAt" | "attempt">): string {
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
