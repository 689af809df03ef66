import { describe, expect, it } from "vitest";
import { Problem } from "../src/api/send";
import { clock, count, duration, fullTime, parseDuration, relative, shortDuration, span } from "../src/format";
import { offsetAfter } from "../src/clock";
import { errorOf, filterOf } from "../src/groups";
import { backOff, changeDelay, mayPass, pollDelay } from "../src/live";
import { attemptTimes } from "../src/retries";
import { placeOf } from "../src/ui/attempt-bar";
import { ruleOf, verdictOf } from "../src/verdict";

const NOON = Date.parse("2026-11-26T12:00:00Z");

describe("the words of an attempt", () => {
  it("stand where neither its bar nor its waiting is", () => {
    expect(placeOf(5, 12)).toEqual({ left: "calc(12% + 8px)" });
    expect(placeOf(90, 100)).toEqual({ right: "calc(10% + 6px)" });
    expect(placeOf(10, 95)["background"]).toBe("var(--surface)");
  });
});

describe("values", () => {
  it("are times relative to now", () => {
    expect(relative(NOON + 12_400, NOON)).toBe("in 12 s");
    expect(relative(NOON - 240_000, NOON)).toBe("4 min ago");
    expect(relative(NOON + 400, NOON)).toBe("now");
    expect(span(86_400_000 * 9)).toBe("9 d");
  });

  it("are times in a zone, with the day unless it is today's", () => {
    expect(clock(NOON, NOON, "Europe/Berlin")).toBe("13:00:00");
    expect(clock(NOON, NOON + 86_400_000, "Europe/Berlin", true)).toBe("2026-11-26 13:00:00.000");
    expect(fullTime(NOON, "Asia/Kolkata")).toBe("Thu 2026-11-26 17:30:00");
  });

  it("are durations and counts", () => {
    expect([0, 0.42, 41.4, 1250, 123_000, 3_660_000].map(duration)).toEqual(["0 ms", "0.4 ms", "41 ms", "1.25 s", "2 min 3 s", "1 h 1 min"]);
    expect([300_000, 3_600_000, 90_000_000, 31_622_400_000].map(duration)).toEqual(["5 min", "1 h", "25 h", "366 d"]);
    expect([8, 1500, 90_000, 5_400_000].map(shortDuration)).toEqual(["8 ms", "1.5 s", "1.5 min", "1.5 h"]);
    expect(duration(null)).toBe("–");
    expect([0, 12_480, 12_345_678].map(count)).toEqual(["0", "12,480", "12.3M"]);
    expect(parseDuration("120ms")).toBe(120);
    expect(parseDuration(null)).toBeNull();
  });
});

describe("failures", () => {
  it("are named as the replay filter names them", () => {
    expect(errorOf({ error: "reset", status: null })).toBe("reset");
    expect(errorOf({ error: null, status: 503 })).toBe("503");
    expect(errorOf({ error: null, status: null })).toBe("not sent");
  });

  it("are sent again by their host and how they ended, and by nothing that says more than the group", () => {
    expect(filterOf({ host: "a:80", error: null, status: 503 })).toEqual({ host: "a:80", status: 503 });
    expect(filterOf({ host: "a:80", error: "too_large", status: 200 })).toEqual({ host: "a:80", error: "too_large", status: 200 });
    expect(filterOf({ host: null, error: null, status: 503 })).toBeUndefined();
    expect(filterOf({ host: "a:80", error: null, status: null })).toEqual({ host: "a:80", error: "not_sent" });
  });

  it("come with the rule that applied", () => {
    expect(ruleOf({ state: "failed", status: 404, error: null, attempt: 1 }, null)).toContain("404");
    expect(ruleOf({ state: "succeeded", status: 302, error: null, attempt: 1 }, [302, "2xx"])).toContain("302, 2xx");
  });

  it("say of the last attempt that it was the last, and of the execution why it was given up", () => {
    const failed: { status: number | null; error: string | null }[] = [{ status: 503, error: null }, { status: 429, error: null }, { status: null, error: "timeout" }, { status: null, error: null }];
    for (const a of failed) {
      expect(verdictOf(a, null).words).toContain("tried again");
      expect(verdictOf(a, null).words).not.toContain("last attempt");
      expect(verdictOf(a, null, true).words).toContain("it was the last attempt");
    }
    expect(verdictOf({ status: 204, error: null }, null, true).good).toBe(true);
    const dead = { state: "dead", status: 503, error: null, attempt: 3 } as const;
    const retry = { initialDelaySeconds: 1, multiplier: 2, maxDelaySeconds: 3 };
    expect(ruleOf(dead, null, { ...retry, maxAttempts: 3 })).toContain("its retries were used up.");
    expect(ruleOf(dead, null, { ...retry, maxAttempts: 9 })).toContain("its time was over.");
    expect(ruleOf(dead, null)).toContain("or its time was over.");
  });
});

describe("retries", () => {
  it("wait longer and longer, up to the longest wait and the greatest age", () => {
    expect(attemptTimes({ maxAttempts: 5, initialDelaySeconds: 1, multiplier: 2, maxDelaySeconds: 3 })).toEqual([0, 1, 3, 6, 9]);
    expect(attemptTimes({ maxAttempts: 9, initialDelaySeconds: 10, multiplier: 1, maxDelaySeconds: 300, maxAgeSeconds: 25 })).toEqual([0, 10, 20]);
  });
});

describe("refresh", () => {
  it("is at most once a second, slower where answers are slow or nobody looks", () => {
    expect(pollDelay(5, 100, true)).toBe(1000);
    expect(pollDelay(5, 5000, true)).toBe(5000);
    expect(pollDelay(5, 5000, false)).toBe(20_000);
    expect(pollDelay(2000, 5000, true)).toBe(40_000);
    expect([changeDelay(20, 1000), changeDelay(20, 100), changeDelay(600, 2000)]).toEqual([0, 300, 10_000]);
    expect(pollDelay(60_000, 5000, true)).toBe(120_000);
  });

  it("waits longer each time that nobody answers, half a minute at most, and not the same for all", () => {
    expect([1, 2, 3].map((n) => backOff(n, 1000, 0.5))).toEqual([2000, 4000, 8000]);
    expect(backOff(30, 1000, 0.5)).toBe(30_000);
    expect(backOff(1, 10_000, 0.5)).toBe(10_000);
    expect(backOff(3, 1000, 0)).not.toBe(backOff(3, 1000, 0.9));
  });

  it("asks again where a later answer may be another one", () => {
    const statuses = [0, 401, 404, 422, 429, 500, 503].filter((s) => mayPass(new Problem(s, "", "")));
    expect(statuses).toEqual([0, 429, 500, 503]);
  });
});

describe("the clock", () => {
  const at = (ms: number) => new Date(ms).toUTCString();

  it("is the reader's as long as that agrees with the nodes", () => {
    expect(offsetAfter(0, at(NOON), NOON + 300, NOON + 500)).toBe(0);
    expect(offsetAfter(0, null, NOON, NOON)).toBe(0);
    expect(offsetAfter(0, "soon", NOON, NOON)).toBe(0);
  });

  it("is the nodes' where the reader's is wrong, and does not jump with each answer", () => {
    const hour = 3_600_000;
    const behind = offsetAfter(0, at(NOON + hour), NOON, NOON + 100);
    expect(Math.abs(behind - hour)).toBeLessThan(1000);
    expect(offsetAfter(behind, at(NOON + hour + 2000), NOON + 2700, NOON + 2800)).toBe(behind);
    expect(offsetAfter(behind, at(NOON), NOON, NOON + 100)).toBe(0);
    expect(offsetAfter(0, at(NOON - hour), NOON, NOON + 100)).toBeLessThan(-hour + 2000);
  });
});
