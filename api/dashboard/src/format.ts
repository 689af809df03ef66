// Values as people read them. Everything here is pure.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `in 12 s`, `4 min ago`, `now`. */
export function relative(atMs: number, nowMs: number): string {
  const distance = atMs - nowMs;
  const size = Math.abs(distance);
  if (size < SECOND) return "now";
  const text = span(size);
  return distance > 0 ? `in ${text}` : `${text} ago`;
}

/** One unit: `12 s`, `4 min`, `3 h`, `9 d`. */
export function span(ms: number): string {
  if (ms < SECOND) return duration(ms);
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`;
  if (ms < 2 * DAY) return `${Math.floor(ms / HOUR)} h`;
  return `${Math.floor(ms / DAY)} d`;
}

/** A measured duration: `0.4 ms`, `41 ms`, `1.25 s`, `2 min 3 s`. */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms === 0) return "0 ms";
  if (ms < 10) return `${trimmed(ms, 1)} ms`;
  if (ms < SECOND) return `${Math.round(ms)} ms`;
  if (ms < MINUTE) return `${trimmed(ms / SECOND, 2)} s`;
  if (ms < HOUR) return twoUnits(Math.round(ms / SECOND), 60, "min", "s");
  if (ms < 2 * DAY) return twoUnits(Math.round(ms / MINUTE), 60, "h", "min");
  return twoUnits(Math.round(ms / HOUR), 24, "d", "h");
}

function twoUnits(value: number, size: number, large: string, small: string): string {
  const rest = value % size;
  return `${Math.floor(value / size)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

/** A duration for an axis: one unit. */
export function shortDuration(ms: number): string {
  if (ms < SECOND) return `${trimmed(ms, 1)} ms`;
  if (ms < MINUTE) return `${trimmed(ms / SECOND, 1)} s`;
  if (ms < HOUR) return `${trimmed(ms / MINUTE, 1)} min`;
  return `${trimmed(ms / HOUR, 1)} h`;
}

function trimmed(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)));
}

/** `12,480`; beyond a million `1.2M`. */
export function count(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value >= 10_000_000) return `${trimmed(value / 1_000_000, 1)}M`;
  return new Intl.NumberFormat("en-US", { maximumFractionDigits: value < 10 ? 1 : 0 }).format(value);
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** `14:03:07`, with the day in front unless that is today; in a zone if one is named. */
export function clock(atMs: number, nowMs: number, zone?: string, withMs = false): string {
  const time = format(atMs, zone, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
    ...(withMs ? { fractionalSecondDigits: 3 } : {}),
  });
  const day = dayOf(atMs, zone);
  return day === dayOf(nowMs, zone) ? time : `${day} ${time}`;
}

export function dayOf(atMs: number, zone?: string): string {
  return format(atMs, zone, { year: "numeric", month: "2-digit", day: "2-digit" }, "sv-SE");
}

/** `Nov`; of a January the year. */
export function monthOf(atMs: number): string {
  const month = format(atMs, undefined, { month: "short" });
  return month === "Jan" ? format(atMs, undefined, { year: "numeric" }) : month;
}

/** `+02:00`, as a zone has it at an instant. */
export function offsetOf(atMs: number, zone: string): string {
  const parts = new Intl.DateTimeFormat("en-GB", { timeZone: zone, timeZoneName: "longOffset" }).formatToParts(atMs);
  return parts.find((p) => p.type === "timeZoneName")?.value.replace("GMT", "") || "+00:00";
}

/** `Thu 2026-11-26 14:03:07`. */
export function fullTime(atMs: number, zone?: string): string {
  return `${format(atMs, zone, { weekday: "short" })} ${dayOf(atMs, zone)} ${clock(atMs, atMs, zone)}`;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function format(atMs: number, zone: string | undefined, options: Intl.DateTimeFormatOptions, locale = "en-GB"): string {
  const key = `${locale} ${zone ?? ""} ${JSON.stringify(options)}`;
  let made = formats.get(key);
  if (!made) {
    made = new Intl.DateTimeFormat(locale, { ...options, ...(zone ? { timeZone: zone } : {}) });
    formats.set(key, made);
  }
  return made.format(atMs);
}

/** The zone of the reader. */
export function ownZone(): string {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone;
}

/** The milliseconds in `"120ms"`, as the API writes them. */
export function parseDuration(text: string | null | undefined): number | null {
  const match = /^([\d.]+)ms$/.exec(text ?? "");
  return match ? Number(match[1]) : null;
}

/** The host of a URL; the text itself if it is none. */
export function hostOf(url: string): string {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}
