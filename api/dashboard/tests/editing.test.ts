import { describe, expect, it } from "vitest";
import openapi from "../generated/openapi.json?raw";
import fieldsPart from "../src/screens/editor-fields.tsx?raw";
import followPart from "../src/screens/editor-follow.tsx?raw";
import formPart from "../src/screens/editor-form.tsx?raw";
import whenPart from "../src/screens/editor-when.tsx?raw";
import type { Cluster, StatsPoint } from "../src/api/types";
import { boundsOf, definitionOf, headerLines, mergePatch, readBody, readHeaders, SECRET_SIGN, withField } from "../src/definition";
import { verdictOf } from "../src/health";
import { actionFilter } from "../src/screens/bulk";
import { differences } from "../src/screens/job-revisions";

describe("a definition", () => {
  it("is previewed within its bounds and without the days of its calendar", () => {
    const now = Date.parse("2026-12-01T00:00:00Z");
    const start = "2027-01-01T00:00:00.000Z";
    expect(boundsOf({ schedule: "@hourly" }, now)).toEqual({ asked: {}, endMs: Infinity, first: [] });
    expect(boundsOf({ schedule: "@hourly", startAt: "soon", endAt: "2026-12-02T00:00:00Z" }, now)).toEqual({ asked: {}, endMs: Date.parse("2026-12-02T00:00:00Z"), first: [] });
    expect(boundsOf({ schedule: "0 0 0 * * *", startAt: start, calendar: { name: "days" } }, now)).toMatchObject({ asked: { after: "2026-12-31T23:59:59.999Z", calendar: { name: "days" } }, first: [] });
    expect(boundsOf({ schedule: "@every 7h", startAt: start }, now)).toMatchObject({ asked: { after: start }, first: [start] });
    expect(boundsOf({ schedule: "@every 7h", startAt: "2026-01-01T00:00:00Z" }, now).first).toEqual([]);
  });

  it("is what can be written of a job", () => {
    expect(definitionOf({ jobId: "a", schedule: "@hourly", name: null, state: "active", revision: 3, nextRuns: [] })).toEqual({ schedule: "@hourly" });
  });

  it("differs by a merge patch: null removes, headers are patched, a body is replaced", () => {
    const before = { name: "a", body: { x: 1, y: 2 }, headers: { A: "1", B: { secret: true } }, retry: { maxAttempts: 5, jitter: 0.2 } };
    const after = { body: { x: 1 }, headers: { A: "2", B: { secret: true } }, retry: { maxAttempts: 6, jitter: 0.2 }, tags: ["t"] };
    expect(mergePatch(before, after)).toEqual({ name: null, body: '{"x":1}', bodyType: "json", headers: { A: "2" }, retry: { maxAttempts: 6 }, tags: ["t"] });
    expect(mergePatch(before, before)).toEqual({});
    // In a merge patch null would remove the member, and a member that is not named would stay.
    expect(mergePatch(before, { ...before, body: { x: null } })).toEqual({ body: '{"x":null}', bodyType: "json" });
    expect(mergePatch(before, { ...before, body: "a=1" })).toEqual({ body: "a=1" });
    expect(mergePatch(before, { ...before, body: undefined })).toEqual({ body: null });
    expect(mergePatch({}, { body: [1] })).toEqual({ body: "[1]", bodyType: "json" });
  });

  it("keeps of a callback, a calendar or rules what is not changed, and removes what left them", () => {
    const before = { onSuccess: { api: "https://a/x", headers: { A: "1", B: { secret: true } } }, calendar: { name: "c", onExcluded: "skip" }, alerts: { channels: ["a"], onDead: true } };
    const after = { onSuccess: { channel: "ops" }, calendar: { name: "d", onExcluded: "skip" }, alerts: { channels: ["a", "b"], onDead: true } };
    expect(mergePatch(before, after)).toEqual({ onSuccess: { api: null, headers: null, channel: "ops" }, calendar: { name: "d" }, alerts: { channels: ["a", "b"] } });
    expect(mergePatch(before, { ...before, onSuccess: { api: "https://a/x", headers: { B: { secret: true } } } })).toEqual({ onSuccess: { headers: { A: null } } });
  });

  it("has a field in the form for whatever the API takes, but for what is said elsewhere", () => {
    const elsewhere = new Set(["type", "bodyType", "pausedUntil", "pauseReason"]);
    const form = formPart + fieldsPart + whenPart + followPart;
    const { schemas } = (JSON.parse(openapi) as { components: { schemas: Record<string, { properties: object }> } }).components;
    const parts = ["RetrySpec", "CallbackSpec", "AfterSpec", "CalendarUse", "AlertSpec", "AuthSpec"];
    const names = ["JobSpec", ...parts].flatMap((schema) => Object.keys(schemas[schema]!.properties));
    expect(names.filter((name) => !elsewhere.has(name) && !form.includes(`"${name}"`))).toEqual([]);
  });

  it("keeps a secret header as long as its line stays", () => {
    const headers = { "X-Key": { secret: true }, Plain: "a: b" };
    const lines = headerLines(headers);
    expect(lines).toBe(`X-Key: ${SECRET_SIGN}\nPlain: a: b`);
    expect(readHeaders(lines, headers)).toEqual(headers);
    expect(readHeaders("X-Key: new", headers)).toEqual({ "X-Key": "new" });
    expect(readHeaders("", headers)).toBeUndefined();
  });

  it("has a body of JSON or of text, and fields that can be emptied", () => {
    expect([readBody('{"a":1}'), readBody("a=1&b"), readBody(" ")]).toEqual([{ a: 1 }, "a=1&b", undefined]);
    expect(withField({ a: 1, b: 2 }, "a", "")).toEqual({ b: 2 });
  });

  it("differs from its revision field by field", () => {
    expect(differences({ schedule: "a", retry: { x: 1 } }, { schedule: "b", retry: { x: 1 }, name: "n" })).toEqual([
      { name: "name", before: "–", after: "n" },
      { name: "schedule", before: "a", after: "b" },
    ]);
  });
});

describe("a filter for many jobs", () => {
  it("is that of the list, and says aloud when it is all of them", () => {
    expect(actionFilter({ tag: "billing", failing: "true", sort: "name", cursor: "x" })).toEqual({ tag: "billing", failing: true });
    expect(actionFilter({ sort: "name" })).toEqual({ all: true });
  });
});

describe("the sentence", () => {
  const now = Date.parse("2026-11-26T12:00:00Z");
  const cluster = {
    leader: { nodeId: "n1", term: 3 }, nodes: [{ seenAt: "2026-11-26T11:59:59Z" }], breakers: [], breakersInAll: 0, activeJobs: 12_480,
    backlog: { ready: 0, leased: 0, late: 0, oldestDueAt: null }, rates: { driftMsP99: 41 },
  } as unknown as Cluster;
  const NO_MORE = { incidents: false, failing: false };
  const points = [{ sent: 12_000, missed: 0 }, { sent: 480, missed: 0 }] as unknown as StatsPoint[];

  const said = (v: ReturnType<typeof verdictOf>) => v.detail.map((part) => part.text).join("; ");

  it("says that all is well, with figures that lead to what they count", () => {
    const v = verdictOf({ cluster, points, openIncidents: 0, failingJobs: 0, more: NO_MORE }, now);
    expect([v.well, v.title]).toEqual([true, "All is well"]);
    expect(said(v)).toBe("12,480 jobs on time; 12,480 requests in the last hour; p99 41 ms late; nothing missed in the last hour");
    expect(v.detail.map((part) => part.address)).toEqual(["#/jobs?state=active", "#/executions?since=2026-11-26T11:00:00.000Z", "#/time?by=all&span=3600", undefined]);
  });

  it("is true of a cluster without work, and of one that is only late", () => {
    const idle = { ...cluster, rates: { driftMsP99: null } } as unknown as Cluster;
    const empty = verdictOf({ cluster: idle, points: [], openIncidents: 0, failingJobs: 0, more: NO_MORE }, now);
    expect([empty.title, said(empty)]).toEqual(["All is well", "12,480 jobs on time; nothing was sent in the last hour; nothing missed in the last hour"]);
    const late = verdictOf({ cluster, points, openIncidents: 0, failingJobs: 0, more: NO_MORE, verified: { at: "2026-11-26T11:00:00Z", clean: false, counts: { late: 125, missing: 0, redelivered: 2 } } }, now);
    expect(late.troubles).toEqual([{ text: "verify found 125 late", address: "#/proof" }]);
    expect(said(late)).toMatch(/nothing missing, verified \S*\s?\d\d:\d\d$/);
    const lost = verdictOf({ cluster, points, openIncidents: 0, failingJobs: 0, more: NO_MORE, verified: { at: "2026-11-26T11:00:00Z", clean: false, counts: { missing: 1 } } }, now);
    expect([lost.troubles[0]?.text, said(lost).includes("nothing missing")]).toEqual(["verify found 1 missing", false]);
  });

  it("does not call on time what has been due for a while", () => {
    const held = { ...cluster, backlog: { ready: 352, leased: 1, late: 0, oldestDueAt: "2026-11-26T11:57:30Z" } } as unknown as Cluster;
    const v = verdictOf({ cluster: held, points, openIncidents: 0, failingJobs: 0, more: NO_MORE }, now);
    expect(said(v)).toMatch(/^12,480 active jobs; .*; 352 executions due and not sent, the oldest for 2 min; p99 41 ms late/);
  });

  it("names every trouble and the way to it", () => {
    const bad = { ...cluster, leader: { ...cluster.leader, nodeId: null }, breakersInAll: 1, rates: { driftMsP99: 2500 } } as unknown as Cluster;
    const v = verdictOf({ cluster: bad, points: [{ sent: 1, missed: 7 }] as unknown as StatsPoint[], openIncidents: 1, failingJobs: 100, more: { incidents: false, failing: true } }, now + 60_000);
    expect(v.title).toBe("7 things need a look");
    expect(v.troubles.map((t) => t.address)).toEqual(["#/cluster", "#/cluster", "#/cluster", "#/now?incidents=open", "#/jobs?failing=true", "#/executions?state=missed&since=2026-11-26T11:01:00.000Z", "#/time?by=job&span=3600"]);
    expect(v.troubles[4]?.text).toBe("100 failing jobs or more");
    expect(said(v)).toMatch(/^12,480 active jobs; 1 request in/);
  });
});
