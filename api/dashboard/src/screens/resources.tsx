// The kinds of named things: queues, channels, calendars, windows, keys, the audit log.
import { loose } from "../api/loose";
import { count, duration } from "../format";
import { href, type Route } from "../route";
import { Action } from "../ui/action";
import { Time } from "../ui/now";
import { Code } from "../ui/parts";
import { StateBadge } from "../ui/state";
import type { Column } from "../ui/table";
import { unfinished } from "./executions";
import { shown } from "./job-target";
import { nameOf, ResourceScreen, type Item, type ResourceSpec } from "./resource";

const text = (item: Item, name: string) => (item[name] === null || item[name] === undefined || item[name] === "" ? <span class="faint">–</span> : shown(item[name]));
const time = (item: Item, name: string) => <Time at={item[name] as string | null} />;
const NAME: Column<Item> = { name: "Name", class: "main-cell", cell: (i) => <b>{nameOf(i)}</b> };
const CHANGED: Column<Item> = { name: "Changed", class: "num mid", cell: (i) => time(i, "updatedAt") };
const column = (name: string, label: string, extra = ""): Column<Item> => ({ name: label, class: extra, cell: (i) => <span class="clip">{text(i, name)}</span> });

/** A number that leads to what it counts. */
const counted = (name: string, label: string, address: (item: Item) => string): Column<Item> => ({
  name: label, class: "num", cell: (i) => (typeof i[name] === "number" ? <a href={address(i)}>{count(i[name])}</a> : text(i, name)),
});

const QUEUES: ResourceSpec = {
  title: "Queues", note: "Limits that several jobs share, for all nodes together. A change takes effect within two seconds.", one: "queue", path: "/queues", needs: "write",
  columns: [
    { ...NAME, cell: (i) => <a class="row-link" href={href(["time"], { by: "queue", span: "3600" })} title="What its jobs sent and will send">{nameOf(i)}</a> },
    column("maxPerSecond", "Per second", "num"), column("maxConcurrent", "At once", "num"), counted("running", "In flight", (i) => unfinished({ queue: nameOf(i) })), CHANGED,
  ],
  fields: [{ name: "maxPerSecond", label: "At most per second", kind: "number" }, { name: "maxConcurrent", label: "At most at once", kind: "number" }],
};

const CHANNELS: ResourceSpec = {
  title: "Channels", note: "Where alerts go. A test alert shows whether it arrives.", one: "channel", path: "/channels", needs: "write", start: { type: "webhook" },
  columns: [
    NAME, column("type", "Type"),
    { name: "Destination", class: "result mid", cell: (i) => <span class="clip">{Array.isArray(i["to"]) && i["to"].length ? i["to"].join(", ") : text(i, "url")}</span> }, CHANGED,
  ],
  fields: [
    { name: "type", label: "Type", kind: "choice", options: ["webhook", "slack", "email"] },
    { name: "url", label: "URL", kind: "text", when: (v) => v["type"] !== "email" },
    { name: "to", label: "Addresses", kind: "words", when: (v) => v["type"] === "email" },
    { name: "signingSecret", label: "Signing secret", kind: "secret", hint: "Write-only: the stored one is kept if this is empty.", when: (v) => v["type"] === "webhook" },
  ],
  more: (i) => (
    <Action
      small label="Test" title={`Send a test alert to ${nameOf(i)}`} call={loose<{ executionId: string }>("post", `/channels/${encodeURIComponent(nameOf(i))}/test`)}
      done={(a) => ({ text: "A test alert is on its way.", link: href(["executions", a.executionId]) })}
    >
      <p>It is an execution like any other; its result shows whether it arrived.</p>
    </Action>
  ),
};

const CALENDARS: ResourceSpec = {
  title: "Calendars", note: "Days on which jobs that name the calendar do not run.", one: "calendar", path: "/calendars", needs: "write", start: { timezone: "UTC" },
  columns: [NAME, column("timezone", "Time zone"), column("dates", "Dates", "result mid"), column("yearly", "Every year", "result mid"), column("weekdays", "Weekdays", "mid"), counted("jobs", "Jobs", (i) => href(["jobs"], { calendar: nameOf(i) })), CHANGED],
  fields: [
    { name: "timezone", label: "Time zone", kind: "text" },
    { name: "dates", label: "Dates", kind: "words", hint: "2026-12-24, 2026-12-31" },
    { name: "yearly", label: "Every year", kind: "words", hint: "12-25, 01-01" },
    { name: "weekdays", label: "Weekdays", kind: "words", hint: "SAT, SUN" },
    { name: "ranges", label: "Ranges", kind: "json", hint: '[{"from": "2026-12-24", "until": "2027-01-02"}]' },
  ],
};

const once = (v: Item) => !v["schedule"];
const recurring = (v: Item) => !v["from"];

const WINDOWS: ResourceSpec = {
  title: "Windows", note: "Maintenance windows: what is due in one waits, is skipped, or is sent without alerts.", one: "window", path: "/windows", needs: "write", start: { mode: "hold", timezone: "UTC" },
  columns: [
    NAME, { name: "Mode", cell: (i) => <StateBadge state={i["inForceUntil"] ? "running" : "completed"} text={String(i["mode"])} /> },
    { name: "For", class: "result mid", cell: (i) => <span class="clip">{["tags", "hosts", "queues"].flatMap((n) => (i[n] as string[] | undefined) ?? []).join(", ")}</span> },
    { name: "When", class: "mid", cell: (i) => (i["schedule"] ? <><code>{String(i["schedule"])}</code> for {duration(Number(i["durationSeconds"]) * 1000)}</> : <><Time at={i["from"] as string} exact /> to <Time at={i["until"] as string} exact /></>) },
    { name: "In force until", class: "num", cell: (i) => time(i, "inForceUntil") },
  ],
  fields: [
    { name: "mode", label: "Mode", kind: "choice", options: ["hold", "skip", "mute"] },
    { name: "tags", label: "Jobs with a tag of", kind: "words" }, { name: "hosts", label: "Jobs to a host of", kind: "words" }, { name: "queues", label: "Jobs in a queue of", kind: "words" },
    { name: "schedule", label: "Begins by", kind: "text", hint: "0 0 2 * * SUN", when: recurring }, { name: "durationSeconds", label: "Lasts (s)", kind: "number", when: recurring },
    { name: "timezone", label: "Time zone", kind: "text", when: recurring },
    { name: "from", label: "From (once)", kind: "text", hint: "2026-12-24T18:00:00Z", when: once }, { name: "until", label: "Until (once)", kind: "text", when: once },
    { name: "spreadSeconds", label: "Spread afterwards (s)", kind: "number" },
  ],
};

const KEYS: ResourceSpec = {
  title: "Keys", note: "API keys in the database. Keys of HORAE_API_KEYS are not listed.", one: "key", path: "/keys", needs: "admin", reads: "admin", saves: "post", deleteWord: "Revoke", deletable: (i) => i["state"] !== "revoked", start: { scope: "read" },
  columns: [
    NAME, column("scope", "Scope"),
    { name: "State", cell: (i) => <StateBadge state={i["state"] === "live" ? "active" : "completed"} text={String(i["state"])} /> },
    { name: "Last used", class: "num mid", cell: (i) => time(i, "lastUsedAt") }, { name: "Expires", class: "num mid", cell: (i) => time(i, "expiresAt") },
  ],
  fields: [
    { name: "scope", label: "Scope", kind: "choice", options: ["read", "write", "admin"] },
    { name: "expires", label: "Valid for", kind: "text", hint: "30d, 12h; forever if empty." },
  ],
  made: (answer) => (
    <>
      <p><b>{nameOf(answer)}</b> is made. This is the only time that the key is shown:</p>
      <Code text={String(answer["key"] ?? "")} label="The new key" />
    </>
  ),
};

interface Actor {
  key: string | null;
  address: string | null;
  via: string;
  command: string | null;
}

const AUDIT: ResourceSpec = {
  title: "Audit", note: "Who did what, latest first.", one: "entry", path: "/audit", needs: "admin", reads: "admin", cannotDelete: true, filters: ["object", "key", "since", "until"],
  idOf: (i) => String(i["id"]),
  columns: [
    { name: "When", class: "num", cell: (i) => time(i, "at") },
    { name: "Who", cell: (i) => <Who by={i["by"] as Actor} /> },
    column("action", "Did"),
    { name: "Object", class: "main-cell", cell: (i) => <Audited object={String(i["object"] ?? "")} /> },
    { name: "What", class: "result mid", cell: (i) => <Changes changes={(i["changes"] as Change[] | undefined) ?? []} counts={i["counts"]} /> },
  ],
};

interface Change {
  path: string;
  before: unknown;
  after: unknown;
}

function Who({ by }: { by: Actor }) {
  const name = by.key ?? by.address ?? by.via;
  return <>{by.key ? <a href={href(["audit"], { key: by.key })}>{by.key}</a> : name}<span class="sub">{[by.via, by.command, by.key ? by.address : ""].filter(Boolean).join(", ")}</span></>;
}

function Changes({ changes, counts }: { changes: readonly Change[]; counts: unknown }) {
  const words = changes.map((c) => `${c.path.slice(1)}: ${JSON.stringify(c.before)} → ${JSON.stringify(c.after)}`).join("; ");
  return <span class="clip" title={words}>{words || (counts ? JSON.stringify(counts) : "")}</span>;
}

function Audited({ object }: { object: string }) {
  const [kind, name = ""] = object.split(/:(.*)/s);
  return <><a href={href(["audit"], { object })}>{object}</a>{kind === "job" && <a class="sub" href={href(["jobs", name])}>Open</a>}</>;
}

/** Every kind, by the first segment of its address. */
export const RESOURCES: Record<string, ResourceSpec> = {
  audit: AUDIT, queues: QUEUES, calendars: CALENDARS, windows: WINDOWS, channels: CHANNELS, keys: KEYS,
};

export function ResourceByAddress({ route }: { route: Route }) {
  const spec = RESOURCES[route.path[0] ?? ""];
  return spec ? <ResourceScreen key={spec.path} spec={spec} route={route} /> : null;
}
