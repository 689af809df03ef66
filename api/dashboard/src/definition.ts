// A job's definition as the editor sees it: what of a job can be written, and what a change of it is.

export type Definition = Record<string, unknown>;

/** What the API shows of a job and does not take back. */
const READ_ONLY = new Set([
  "jobId", "stateReason", "revision", "createdAt", "updatedAt", "activeFrom", "nextRuns", "lastExecution", "nextRunAt", "lastRunAt",
  "lastState", "failing", "state", "pausedUntil", "pauseReason",
]);

/** The part of a job that can be written. */
export function definitionOf(job: Readonly<Record<string, unknown>>): Definition {
  return Object.fromEntries(Object.entries(job).filter(([name, value]) => !READ_ONLY.has(name) && value !== null && value !== undefined));
}

const SIGNING = ["signingSecret", "previousSigningSecret"];

/** A copy of a definition without its signing secrets, which only the original has stored; and whether it had any. */
export function withoutSigning(definition: Definition): { copy: Definition; signed: boolean } {
  let signed = false;
  const copy: Definition = {};
  for (const [name, value] of Object.entries(definition)) {
    if (SIGNING.includes(name)) signed = true;
    else if ((name === "onSuccess" || name === "onFailure") && isObject(value)) {
      const callback = withoutSigning(value);
      copy[name] = callback.copy;
      signed ||= callback.signed;
    } else copy[name] = value;
  }
  return { copy, signed };
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** The merge patch (RFC 7396) that makes `after` of `before`; null removes a field. */
export function mergePatch(before: Definition, after: Definition): Definition {
  const patch: Definition = {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const [old, fresh] = [before[name], after[name]];
    if (same(old, fresh)) continue;
    if (fresh === undefined) patch[name] = null;
    else if (name === "body" && typeof fresh !== "string") {
      // A patch of a body keeps the members that it does not name, and removes those that it sets to null. As a text that
      // holds JSON the body is replaced as a whole.
      patch[name] = JSON.stringify(fresh);
      patch["bodyType"] = "json";
    } else if (isObject(old) && isObject(fresh)) patch[name] = mergePatch(old, fresh);
    else patch[name] = fresh;
  }
  return patch;
}

function isObject(value: unknown): value is Definition {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `Name: value` lines. A secret is `••••••`, and stays what it is as long as the line does. */
export const SECRET_SIGN = "••••••";

export function headerLines(headers: unknown): string {
  if (!isObject(headers)) return "";
  return Object.entries(headers).map(([name, value]) => `${name}: ${typeof value === "string" ? value : SECRET_SIGN}`).join("\n");
}

export function readHeaders(text: string, before: unknown): Definition | undefined {
  const old = isObject(before) ? before : {};
  const headers: Definition = {};
  for (const line of text.split("\n")) {
    if (!line.trim()) continue;
    const [name = "", ...rest] = line.split(":");
    const value = rest.join(":").trim();
    headers[name.trim()] = value === SECRET_SIGN && old[name.trim()] !== undefined ? old[name.trim()] : value;
  }
  return Object.keys(headers).length > 0 ? headers : undefined;
}

/** Header lines with one more whose value is a secret, in place of one of that name; and what its sign stands for. */
export function withSecret(text: string, before: unknown, name: string, value: string): { text: string; known: Definition } {
  const other = (line: string) => line.trim() && line.split(":")[0]?.trim().toLowerCase() !== name.trim().toLowerCase();
  const lines = [...text.split("\n").filter(other), `${name.trim()}: ${SECRET_SIGN}`];
  return { text: lines.join("\n"), known: { ...(isObject(before) ? before : {}), [name.trim()]: { secret: value } } };
}

/** A body as text; and back: JSON where it is JSON, else the text itself. */
export function bodyText(body: unknown): string {
  if (body === undefined || body === null) return "";
  return typeof body === "string" ? body : JSON.stringify(body, null, 2);
}

export function readBody(text: string): unknown {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** Set a field, or remove it where the value is empty. */
export function withField(definition: Definition, name: string, value: unknown): Definition {
  const next = { ...definition };
  if (value === undefined || value === "" || (typeof value === "number" && Number.isNaN(value)) || (Array.isArray(value) && value.length === 0)) delete next[name];
  else next[name] = value;
  return next;
}

/** What of a definition bounds its runs, as the preview takes it; texts that are no times yet are left to the server's faults. */
export function boundsOf(value: Definition, nowMs: number): { asked: object; endMs: number; first: string[] } {
  const calendar = value["calendar"] as { name?: string } | undefined;
  const startMs = Date.parse(String(value["startAt"] ?? ""));
  const endMs = Date.parse(String(value["endAt"] ?? ""));
  const later = startMs > nowMs;
  // Intervals begin with the start, which is then the first run; the preview begins behind an instant.
  const every = later && String(value["schedule"] ?? "").startsWith("@every");
  const after = later ? { after: new Date(startMs - (every ? 0 : 1)).toISOString() } : {};
  return {
    asked: { ...(calendar?.name ? { calendar } : {}), ...after },
    endMs: Number.isNaN(endMs) ? Infinity : endMs,
    first: every ? [new Date(startMs).toISOString()] : [],
  };
}
