import { describe, expect, it, vi } from "vitest";
import { cellsInParts, cellsOf, stepWords, type Answer } from "../src/timeline/cells";
import { under, type Frame } from "../src/timeline/draw";
import { inksOf, paintRow } from "../src/timeline/pixels";
import { monthOf } from "../src/format";
import { API_LONGEST_MS, asked, covers, LAST_MS, LONGEST_MS, pan, SHORTEST_MS, stepFor, ticks, viewOf, zoomAt } from "../src/timeline/view";
import { bandsOf, inView } from "../src/timeline/windows";

const NOW = Date.parse("2026-11-26T12:00:00Z");
const HOUR = 3_600_000;

describe("the view", () => {
  it("keeps the instant under the pointer where it is", () => {
    const zoomed = zoomAt({ from: 0, until: HOUR }, HOUR / 4, 0.5);
    expect(zoomed).toEqual({ from: HOUR / 8, until: HOUR / 8 + HOUR / 2 });
    expect(pan(zoomed, 1000).from).toBe(HOUR / 8 + 1000);
  });

  it("ends at ten seconds and at a year", () => {
    expect(zoomAt({ from: 0, until: HOUR }, 0, 1e-9).until).toBe(SHORTEST_MS);
    expect(zoomAt({ from: 0, until: HOUR }, 0, 1e9).until).toBe(LONGEST_MS);
  });

  it("asks for whole steps around it, never for more than the API gives", () => {
    for (const span of [SHORTEST_MS, 60_000, HOUR, 86_400_000, 30 * 86_400_000, LONGEST_MS]) {
      const view = { from: NOW - span / 2, until: NOW + span / 2 };
      const wanted = asked(view, { nowMs: NOW, by: "all", filtered: true });
      expect(covers(wanted, view)).toBe(true);
      expect(wanted.from % (wanted.step * 1000)).toBe(0);
      expect((wanted.until - wanted.from) / 1000 / wanted.step).toBeLessThanOrEqual(745);
      expect(wanted.until - wanted.from).toBeLessThanOrEqual(API_LONGEST_MS);
    }
    expect(stepFor(60_000)).toBe(1);
    expect(stepFor(LONGEST_MS)).toBe(86_400);
  });

  it("asks for whole hours where minutes are not kept any more, and for minutes where there are too many executions", () => {
    const DAY = 86_400_000;
    const around = (ms: number, at = NOW) => ({ from: at - ms / 2, until: at + ms / 2 });
    const named = { nowMs: NOW, by: "tag", filtered: false };
    expect(asked(around(DAY), named).step).toBe(300);
    expect(asked(around(DAY, NOW - 2 * DAY), named).step).toBe(3600);
    expect(asked(around(DAY, NOW - 2 * DAY), { ...named, by: "all" }).step).toBe(300);
    expect(asked(around(DAY, NOW - 40 * DAY), { ...named, by: "all" }).step).toBe(3600);
    expect(asked(around(DAY, NOW - 2 * DAY), { ...named, by: "job" }).step).toBe(300);
    expect(asked(around(60_000, NOW - 2 * DAY), named).step).toBe(1);
    expect(asked(around(600_000), { ...named, crowded: true }).step).toBe(60);
    const answers = new Set(Array.from({ length: 60 }, (_, i) => JSON.stringify(asked(pan(around(600_000), i * 1000), named))));
    expect(answers.size).toBeLessThanOrEqual(3);
  });

  it("ends where dates have a text", () => {
    const far = viewOf({ from: "+275760-09-12T00:00:00Z", until: "+275760-09-13T00:00:00Z" }, NOW);
    const before = viewOf({ from: "-002000-01-01T00:00:00Z", until: "1970-01-02T00:00:00Z" }, NOW);
    for (const view of [far, before, pan(far, HOUR), pan({ from: LAST_MS - HOUR, until: LAST_MS }, 2 * HOUR)]) {
      const wanted = asked(view, { nowMs: NOW, by: "all", filtered: false });
      expect([new Date(wanted.from).toISOString(), new Date(wanted.until).toISOString()]).toHaveLength(2);
      expect(view.until).toBeLessThanOrEqual(Math.max(LAST_MS, NOW + HOUR));
    }
  });

  it("follows now unless the address names times", () => {
    expect(viewOf({ span: "600" }, NOW)).toEqual({ from: NOW - 300_000, until: NOW + 300_000 });
    expect(viewOf({ from: "2026-11-26T11:00:00Z", until: "2026-11-26T12:00:00Z" }, NOW + 5)).toEqual({ from: NOW - HOUR, until: NOW });
    expect(viewOf({ from: "nonsense", until: "x" }, NOW).until).toBe(NOW + HOUR / 2);
  });

  it("has ticks at full hours, days and months of the reader, also where the clocks change", () => {
    vi.stubEnv("TZ", "Europe/Berlin");
    expect(ticks({ from: NOW, until: NOW + HOUR }, 6)).toEqual({ at: [0, 600, 1200, 1800, 2400, 3000, 3600].map((s) => NOW + s * 1000), every: 600 });
    const days = ticks({ from: NOW, until: NOW + 3 * 86_400_000 }, 4);
    expect(days.every).toBe(86_400);
    expect(days.at[0]).toBe(Date.parse("2026-11-26T23:00:00Z"));
    const of = (from: string, until: string, most: number) => ticks({ from: Date.parse(from), until: Date.parse(until) }, most).at.map((t) => new Date(t).toISOString().slice(5, 16));
    expect(of("2026-10-24T10:00:00Z", "2026-10-26T10:00:00Z", 2)).toEqual(["10-24T22:00", "10-25T23:00"]);
    expect(of("2027-03-27T20:00:00Z", "2027-03-28T08:00:00Z", 4)).toEqual(["03-27T20:00", "03-27T23:00", "03-28T01:00", "03-28T04:00", "03-28T07:00"]);
    expect(of("2026-10-15T00:00:00Z", "2027-02-15T00:00:00Z", 5)).toEqual(["10-31T23:00", "11-30T23:00", "12-31T23:00", "01-31T23:00"]);
    expect([monthOf(Date.parse("2026-10-31T23:00:00Z")), monthOf(Date.parse("2026-12-31T23:00:00Z"))]).toEqual(["Nov", "2027"]);
    vi.unstubAllEnvs();
  });
});

const ANSWER: Answer = {
  from: "2026-11-26T12:00:00.000Z", until: "2026-11-26T12:00:10.000Z", now: "2026-11-26T12:00:05.000Z", step: 1, jobsLeftOut: 0,
  rows: [{ name: "mail", steps: [{ at: "2026-11-26T12:00:01.000Z", succeeded: 3, dead: 1, late: 1 }, { at: "2026-11-26T12:00:07.000Z", due: 2.5 }] }],
  rest: { rows: 4, steps: [{ at: "2026-11-26T12:00:02.000Z", succeeded: 9, strange: 4 }] },
};

describe("the cells", () => {
  const cells = cellsOf(JSON.stringify(ANSWER), "All jobs");

  it("hold each step of the answer, and what it is called", () => {
    expect(cells.rows.map((r) => r.name)).toEqual(["mail", "4 others"]);
    expect(stepWords(cells.rows[0]!, 1)).toEqual(["3 succeeded", "1 dead", "1 of them late"]);
    expect(stepWords(cells.rows[0]!, 7)).toEqual(["2.5 due"]);
    expect(cells.most).toBe(9);
  });

  it("are found under the pointer", () => {
    const frame: Frame = { width: 350, height: 200, gutter: 150, lane: 40, view: { from: NOW, until: NOW + 10_000 }, cells, now: NOW, hover: undefined };
    expect(under(frame, 150 + 35, 40)).toMatchObject({ row: 0, step: 1 });
    expect(under(frame, 100, 40)).toBeUndefined();
    expect(under(frame, 200, 190)).toBeUndefined();
  });
});

describe("an answer", () => {
  it("is read a row at a time, whatever its rows are called", () => {
    const hostile = ['{"name":', '"steps":[]}', "]}", '\\"', "a\nb", "]},{"];
    const rows = hostile.map((name, i) => ({ name, steps: i % 2 ? [{ at: ANSWER.from, due: i }] : [] }));
    const parts = cellsInParts(JSON.stringify({ ...ANSWER, rows }), "All jobs");
    let count = 0;
    let next = parts.next();
    for (; !next.done; next = parts.next()) count++;
    expect(count).toBe(hostile.length);
    expect(next.value.rows.map((r) => r.name)).toEqual([...hostile, "4 others"]);
    expect(next.value.rows.map((r) => r.total[0])).toEqual([0, 1, 0, 3, 0, 5, 0]);
  });

  it("is read as a whole if it is written in another way", () => {
    const other = { ...ANSWER, rows: ANSWER.rows.map(({ name, steps }) => ({ steps, name })) };
    for (const text of [JSON.stringify(other), JSON.stringify(ANSWER, null, 1)]) expect(cellsOf(text, "All jobs")).toEqual(cellsOf(JSON.stringify(ANSWER), "All jobs"));
    expect(cellsOf(JSON.stringify({ ...ANSWER, rows: [], rest: { rows: 0, steps: [] } }), "All").rows).toEqual([]);
  });
});

describe("pixels", () => {
  const cells = cellsOf(JSON.stringify(ANSWER), "All jobs");
  const inks = inksOf((name) => (name === "ok-fill" ? "#102030" : name === "bad-fill" ? "#f00" : name === "warn" ? "#00f" : "rgb(1 2 3)"));
  const band = { from: cells.from, until: cells.until, width: 100, height: 40, ratio: 1 };
  const paint = (of = cells, into = band) => {
    const pixels = new Uint32Array(into.width * into.height);
    paintRow(pixels, into, of.rows[0]!, of, inks);
    return pixels;
  };
  const column = (pixels: Uint32Array, x: number) => Array.from({ length: 40 }, (_, y) => pixels[y * 100 + x]).filter((p) => p);

  it("have the colours of the theme", () => {
    expect([inks.succeeded, inks.dead, inks.due]).toEqual([0xff302010, 0xff0000ff, 0xff808080]);
  });

  it("stack what a step holds, and leave the others empty", () => {
    const pixels = paint();
    const inStep = column(pixels, 14);
    expect(new Set(inStep)).toEqual(new Set([0xff302010, 0xff0000ff, inks.late]));
    expect(inStep.filter((p) => p === 0xff302010).length).toBeGreaterThan(2 * inStep.filter((p) => p === 0xff0000ff).length);
    expect([column(pixels, 5), column(pixels, 19), column(pixels, 25)]).toEqual([[], [], []]);
    expect(column(pixels, 74).every((p) => p === 0xff808080)).toBe(true);
  });

  it("have a line below the bars of what was late", () => {
    const rows = Array.from({ length: 40 }, (_, y) => y).filter((y) => paint()[y * 100 + 14] === inks.late);
    expect(rows).toEqual([36, 37]);
    expect(column(paint(), 74)).not.toContain(inks.late);
  });

  it("are a field as strong as its amount from an hour a step on", () => {
    const hours = { ...cells, stepMs: HOUR, until: cells.from + 10 * HOUR };
    const strength = column(paint(hours, { ...band, until: hours.until }), 74).map((p) => p! >>> 24);
    expect(new Set(strength).size).toBe(1);
    expect(strength[0]).toBeGreaterThan(64);
    expect(strength[0]).toBeLessThan(255);
  });

  it("of 100,000 ticks stay within their band", () => {
    const steps = Array.from({ length: 600 }, (_, i) => ({ at: new Date(NOW + i * 1000).toISOString(), succeeded: 150, failed: 10, due: 7 }));
    const many = cellsOf(JSON.stringify({ ...ANSWER, until: new Date(NOW + 600_000).toISOString(), rows: [{ name: "m", steps }] }), "All");
    const pixels = paint(many, { ...band, from: NOW + 60_000, until: NOW + 120_000 });
    expect(pixels.subarray(0, 6 * 100).every((p) => p === 0)).toBe(true);
    expect(pixels.subarray(36 * 100).every((p) => p === 0)).toBe(true);
    expect(column(pixels, 99).length).toBeGreaterThan(20);
  });
});

describe("maintenance windows", () => {
  const weekly = { name: "w", mode: "hold" as const, from: null, until: null, durationSeconds: 3600, inForceUntil: null };

  it("are in force once, now, or whenever they begin", () => {
    const once = { ...weekly, from: "2026-11-26T11:00:00Z", until: "2026-11-26T13:00:00Z" };
    expect(bandsOf(once, [], NOW)).toEqual([{ name: "w", mode: "hold", from: NOW - HOUR, until: NOW + HOUR }]);
    expect(bandsOf({ ...weekly, inForceUntil: "2026-11-26T12:30:00Z" }, [NOW + 24 * HOUR], NOW).map((b) => [b.from, b.until])).toEqual([[NOW - HOUR / 2, NOW + HOUR / 2], [NOW + 24 * HOUR, NOW + 25 * HOUR]]);
  });

  it("are shown where the view meets them", () => {
    const bands = bandsOf(weekly, [NOW, NOW + 5 * HOUR], NOW);
    expect(inView(bands, { from: NOW - HOUR, until: NOW + HOUR })).toHaveLength(1);
    expect(inView(bands, { from: NOW + 2 * HOUR, until: NOW + 3 * HOUR })).toHaveLength(0);
  });
});
