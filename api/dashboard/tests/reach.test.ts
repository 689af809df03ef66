import { afterEach, describe, expect, it, vi } from "vitest";
import { call } from "../src/api/calls";
import { onBack, send, silence, type Problem } from "../src/api/send";
import { headerLines, readHeaders, SECRET_SIGN, withSecret } from "../src/definition";
import { isJobId, ownerOf } from "../src/screens/execution";
import { filterOfRow, tickOf } from "../src/screens/time-tick";
import { cellsOf, rowWords } from "../src/timeline/cells";
import { neighbourOf } from "../src/timeline/neighbour";
import { stepWithin } from "../src/timeline/view";

const FROM = Date.parse("2026-11-26T12:00:00Z");
const step = (second: number, counts: object) => ({ at: new Date(FROM + second * 1000).toISOString(), ...counts });
const CELLS = cellsOf(
  JSON.stringify({
    from: "2026-11-26T12:00:00Z", until: "2026-11-26T12:00:10Z", now: "2026-11-26T12:00:05Z", step: 1, rest: { rows: 0, steps: [] }, jobsLeftOut: 0,
    rows: [{ name: "a", steps: [step(1, { succeeded: 2, late: 1 }), step(8, { due: 1 })] }, { name: "b", steps: [step(3, { dead: 1 })] }],
  }), "All jobs",
);
const VIEW = { from: FROM, until: FROM + 10_000 };

describe("the ticks of the axis", () => {
  it("are gone through by keys: rows up and down, ticks left and right, none outside the view", () => {
    const to = (key: string, shift: boolean, at?: { row: number; step: number }) => neighbourOf(CELLS, VIEW, FROM + 5000, at, key, shift);
    expect(to("ArrowDown", false)).toEqual({ row: 0, step: 5 });
    expect(to("ArrowDown", false, { row: 1, step: 5 })).toEqual({ row: 1, step: 5 });
    expect(to("ArrowRight", true, { row: 0, step: 5 })).toEqual({ row: 0, step: 8 });
    expect(to("ArrowRight", true, { row: 0, step: 8 })).toEqual({ row: 0, step: 8 });
    expect(to("ArrowLeft", true, { row: 1, step: 5 })).toEqual({ row: 1, step: 3 });
    expect([to("ArrowLeft", false), to("x", true)]).toEqual([undefined, undefined]);
    expect(neighbourOf(CELLS, { from: FROM, until: FROM + 4000 }, FROM + 5000, { row: 0, step: 1 }, "ArrowRight", true)).toEqual({ row: 0, step: 1 });
  });

  it("are looked into by second where that is not too much, and by their row as a filter", () => {
    expect([1000, 60_000, 900_000, 3_600_000, 86_400_000].map(stepWithin)).toEqual([1, 1, 1, 5, 300]);
    expect(rowWords(CELLS.rows[0]!)).toEqual(["2 succeeded", "1 due", "1 of them late"]);
    expect(filterOfRow({ by: "tag", tag: "x", q: "mail" }, "billing")).toMatchObject({ tag: ["x", "billing"], q: "mail" });
    expect(call("get", "/jobs", { query: { tag: ["x", "a,b"], state: "active" } }).address).toBe("/jobs?tag=x&tag=a,b&state=active");
    expect(filterOfRow({}, "billing")).toMatchObject({ tag: "billing" });
    expect(filterOfRow({ by: "host" }, "a:80")).toMatchObject({ host: "a:80" });
    expect([filterOfRow({ by: "queue" }, "mail"), filterOfRow({ by: "tag" }, "12 others")]).toEqual([undefined, undefined]);
    expect(tickOf({ row: "a", at: "2026-11-26T12:00:00.000Z", step: "60" })).toEqual({ row: "a", from: FROM, until: FROM + 60_000 });
    expect([tickOf({}), tickOf({ row: "a", at: "soon", step: "60" }), tickOf({ row: "a", at: "2026-11-26T12:00:00Z", step: "-1" })]).toEqual([undefined, undefined, undefined]);
  });
});

describe("an execution", () => {
  it("has an owner, which is a job, a message, a callback or an alert", () => {
    const ids = [":1795651200000", ":1795651200000:missed", ":1795651200000:4f9c3ef0a3e94f2bb0f8d9a8f2a1c7de", ":1795651200000:after-4f9c3ef0a3e94f2bb0f8d9a8f2a1c7de"];
    expect(ids.map((end) => ownerOf(`mail${end}`))).toEqual(["mail", "mail", "mail", "mail"]);
    expect(["mail", "msg.01", "cb.01", "alert.ops"].map(isJobId)).toEqual([true, false, false, false]);
  });
});

describe("a secret header", () => {
  it("is written once, never shown, and takes the place of one of its name", () => {
    const { text, known } = withSecret("X-Tenant: shop\nauthorization: open", { "X-Key": { secret: true } }, " Authorization ", "Bearer 1");
    expect(text).toBe(`X-Tenant: shop\nAuthorization: ${SECRET_SIGN}`);
    expect(readHeaders(text, known)).toEqual({ "X-Tenant": "shop", Authorization: { secret: "Bearer 1" } });
    expect(headerLines({ Authorization: { secret: true } })).toBe(`Authorization: ${SECRET_SIGN}`);
  });
});

describe("silence", () => {
  afterEach(() => vi.unstubAllGlobals());
  const answers = (...given: (Response | Error)[]) => vi.stubGlobal("fetch", () => {
    const next = given.shift() as Response | Error;
    return next instanceof Error ? Promise.reject(next) : Promise.resolve(next);
  });
  const gateway = () => new Response("<h1>502</h1>", { status: 502 });
  const json = (content: object, status = 200) => new Response(JSON.stringify(content), { status });
  const problem = (method: "get" | "post") => send<unknown>(method === "get" ? call("get", "/session") : call("post", "/jobs", { body: {} as never })).then(() => undefined, (e: unknown) => e as Problem);

  it("is no answer at all, or that of a proxy without a node; it ends with the first answer of a node", async () => {
    let returned = 0;
    const stop = onBack(() => returned++);
    answers(new TypeError("refused"), gateway(), json({ title: "Unavailable", status: 503 }, 503), json({}));
    expect((await problem("get"))?.silent).toBe("node");
    expect(silence()?.of).toBe("node");
    expect(await problem("post")).toMatchObject({ silent: "node", status: 502 });
    expect((await problem("get"))?.silent).toBeUndefined();
    expect([silence(), returned]).toEqual([undefined, 1]);
    expect(await problem("get")).toBeUndefined();
    expect(returned).toBe(1);
    stop();
  });

  it("is also that of the database, which only an answer that was read there ends", async () => {
    let returned = 0;
    const stop = onBack(() => returned++);
    const of = (slug: string) => json({ type: `urn:horae:problem:${slug}`, title: "Unavailable", status: 503 }, 503);
    const asks = (address: "/session" | "/queues") => send<unknown>(call("get", address)).then(() => undefined, (e: unknown) => (e as Problem).silent);
    answers(of("database-away"), json({}), of("outcome-unknown"), json({ title: "Not found" }, 404), gateway(), json({}), of("database-away"), json({}));
    expect(await asks("/queues")).toBe("database");
    const since = silence()?.since;
    expect(await asks("/session")).toBeUndefined();
    expect((await problem("post"))?.silent).toBe("database");
    expect(await asks("/queues")).toBeUndefined();
    expect([silence()?.of, silence()?.since, returned]).toEqual(["database", since, 0]);
    await asks("/queues");
    expect(silence()?.of).toBe("node");
    await asks("/session");
    expect([silence(), returned]).toEqual([undefined, 1]);
    await asks("/queues");
    await asks("/queues");
    expect([silence(), returned]).toEqual([undefined, 2]);
    stop();
  });

  it("leaves open whether a change was made, and says so", async () => {
    answers(gateway(), gateway(), json({}));
    expect((await problem("post"))?.message).toContain("may have been done, or not");
    expect((await problem("get"))?.message).toContain("asks again");
    await problem("get");
  });
});
