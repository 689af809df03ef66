// Sending calls: JSON in, JSON out; everything that is not well is a Problem.
import { hearTime } from "../clock";
import { apiBase, type Call } from "./calls";

export interface Fault {
  path: string;
  message: string;
}

/** An error of the API (RFC 9457), or of the way to it: then it is `silent`, and nobody knows whether the request was done. So
 * it is when a node has no answer of its database. The page says both once, above what it shows. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly faults: readonly Fault[] = [],
    readonly silent?: Silence["of"],
  ) {
    super(detail || title);
  }
}

const signedOut = new Set<() => void>();
const back = new Set<() => void>();
const moved = new Set<() => void>();
/** Who does not answer, and since when by the reader's clock. */
export interface Silence {
  of: "node" | "database";
  since: number;
}

/** Undefined: requests are answered, or there is no key. */
let silent: Silence | undefined;
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

export function silence(): Silence | undefined {
  return silent;
}

/** Tell a listener whenever `silence` begins or ends. Returns how to stop that. */
export function onSilence(listener: () => void): () => void {
  moved.add(listener);
  return () => moved.delete(listener);
}

function hear(what: "answer" | "no key" | Silence["of"]): void {
  const was = { away, silent };
  away = what !== "answer";
  if (what === "answer" || what === "no key") silent = undefined;
  else if (silent?.of !== what) silent = { of: what, since: Date.now() };
  if (silent !== was.silent) [...moved].forEach((tell) => tell());
  if (was.away && !away) [...back].forEach((tell) => tell());
}

/** An answer ends the silence of nodes; that of the database is ended by one that was read there. */
function hearAnswer(call: Call, ok: boolean): void {
  if (silent?.of === "database" && !(ok && call.method === "get" && call.address !== "/session")) return;
  hear("answer");
}

const ASKS_AGAIN = "No node answers. The page asks again.";
const UNKNOWN = "No node answered: this may have been done, or not. Press again once a node answers; it is not done twice.";
/** What a proxy says that has no node behind it. */
const GATEWAY = [502, 503, 504];

function unanswered(call: Call, status: number): Problem {
  hear("node");
  return new Problem(status, "No answer", call.method === "get" ? ASKS_AGAIN : UNKNOWN, [], "node");
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
    throw unanswered(call, 0);
  }
  hearTime(response.headers.get("Date"), began, Date.now());
  const text = await response.text();
  const content: unknown = call.asText && response.ok ? text : text ? parsed(text) : undefined;
  if (!response.ok) {
    // An error of a node itself has a title; without one it is of a proxy that has no node.
    if (GATEWAY.includes(response.status) && !isProblem(content)) throw unanswered(call, response.status);
    if (response.status === 401) {
      signedOut.forEach((tell) => tell());
      if (call.method !== "post" || call.address !== "/session") hear("no key");
    } else if (isOfDatabase(response.status, content)) {
      hear("database");
      const told = problemOf(response.status, response.statusText, content);
      throw new Problem(told.status, told.title, told.detail, [], "database");
    } else hearAnswer(call, false);
    throw problemOf(response.status, response.statusText, content);
  }
  hearAnswer(call, true);
  return { content: content as T, headers: response.headers };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function isProblem(content: unknown): boolean {
  return typeof content === "object" && content !== null && "title" in content;
}

function isOfDatabase(status: number, content: unknown): boolean {
  const type = isProblem(content) ? (content as Record<string, unknown>)["type"] : undefined;
  return status === 503 && (type === "urn:horae:problem:database-away" || type === "urn:horae:problem:outcome-unknown");
}

export function problemOf(status: number, statusText: string, content: unknown): Problem {
  const given = (typeof content === "object" && content !== null ? content : {}) as Record<string, unknown>;
  const faults = Array.isArray(given["errors"]) ? (given["errors"] as Fault[]) : [];
  return new Problem(status, String(given["title"] ?? (statusText || `Status ${status}`)), String(given["detail"] ?? ""), faults);
}
