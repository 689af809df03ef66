// Sending calls: JSON in, JSON out; everything that is not well is a Problem.
import { hearTime } from "../clock";
import { apiBase, type Call } from "./calls";

export interface Fault {
  path: string;
  message: string;
}

/** An error of the API (RFC 9457), or of the way to it (status 0). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly faults: readonly Fault[] = [],
  ) {
    super(detail || title);
  }
}

const signedOut = new Set<() => void>();
const back = new Set<() => void>();
let away = false;

/** Tell a listener whenever a request is refused for want of a key. Returns how to stop that. */
export function onSignedOut(listener: () => void): () => void {
  signedOut.add(listener);
  return () => signedOut.delete(listener);
}

/** Tell a listener when requests are answered again, after a time without answers or without a key. Returns how to stop that. */
export function onBack(listener: () => void): () => void {
  back.add(listener);
  return () => back.delete(listener);
}

export function isAway(): boolean {
  return away;
}

function hear(answered: boolean): void {
  if (away === !answered) return;
  away = !answered;
  if (answered) [...back].forEach((tell) => tell());
}

export const base = typeof location === "undefined" ? "" : apiBase(location);

/** The answer's content. Raises `Problem`. */
export async function send<T>(call: Call<T>, signal?: AbortSignal): Promise<T> {
  return (await sendInFull(call, signal)).content;
}

export async function sendInFull<T>(call: Call<T>, signal?: AbortSignal): Promise<{ content: T; headers: Headers }> {
  const body = call.body === undefined ? undefined : typeof call.body === "string" ? call.body : JSON.stringify(call.body);
  let response: Response;
  const began = Date.now();
  try {
    response = await fetch(base + call.address, {
      method: call.method.toUpperCase(),
      headers: { Accept: "application/json", ...call.headers },
      body: body ?? null,
      signal: signal ?? null,
      credentials: "same-origin",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    hear(false);
    throw new Problem(0, "No answer", "The node does not answer. The page tries again.");
  }
  hearTime(response.headers.get("Date"), began, Date.now());
  const text = await response.text();
  const content: unknown = call.asText && response.ok ? text : text ? parsed(text) : undefined;
  if (!response.ok) {
    if (response.status === 401) {
      signedOut.forEach((tell) => tell());
      if (call.method !== "post" || call.address !== "/session") hear(false);
    }
    throw problemOf(response.status, response.statusText, content);
  }
  hear(true);
  return { content: content as T, headers: response.headers };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export function problemOf(status: number, statusText: string, content: unknown): Problem {
  const given = (typeof content === "object" && content !== null ? content : {}) as Record<string, unknown>;
  const faults = Array.isArray(given["errors"]) ? (given["errors"] as Fault[]) : [];
  return new Problem(status, String(given["title"] ?? (statusText || `Status ${status}`)), String(given["detail"] ?? ""), faults);
}
