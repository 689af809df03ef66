// The same request for a terminal.
import type { Call } from "./calls";

function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A command that does what the button does. With keys it reads one from `$HORAE_API_KEY`. */
export function curl(call: Call, base: string, withKey: boolean): string {
  const parts = ["curl"];
  if (call.method !== "get" && !(call.method === "post" && call.body !== undefined)) parts.push(`-X ${call.method.toUpperCase()}`);
  parts.push(quoted(base + call.address));
  if (withKey) parts.push(`-H "Authorization: Bearer $HORAE_API_KEY"`);
  for (const [name, value] of Object.entries(call.headers ?? {})) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (call.body !== undefined) {
    const body = typeof call.body === "string" ? call.body : JSON.stringify(call.body);
    parts.push(`${typeof call.body === "string" ? "--data-binary" : "-d"} ${quoted(body)}`);
  }
  return parts.join(" \\\n  ");
}
