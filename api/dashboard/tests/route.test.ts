import { describe, expect, it } from "vitest";
import { apiBase, call, queryText } from "../src/api/calls";
import { curl } from "../src/api/curl";
import { href, parseRoute } from "../src/route";

describe("the fragment", () => {
  it("comes back as it was written, whatever the values are", () => {
    const hostile = `<img src=x>&q=1?#/%2f"'`;
    const route = parseRoute(href(["jobs", hostile], { q: hostile, state: "active,paused", empty: "", none: undefined }));
    expect(route).toEqual({ path: ["jobs", hostile], query: { q: hostile, state: "active,paused" } });
  });

  it("is read although it is broken", () => {
    expect(parseRoute("#/jobs/%E0%A4%A?x=%ZZ")).toEqual({ path: ["jobs", "%E0%A4%A"], query: { x: "%ZZ" } });
    expect(parseRoute("")).toEqual({ path: [], query: {} });
  });

  it("keeps the colon of an execution readable", () => {
    expect(href(["executions", "a:1795651200000"])).toBe("#/executions/a:1795651200000");
  });
});

describe("a call", () => {
  it("fills in the path and leaves out what is empty", () => {
    const made = call("get", "/jobs/{jobId}/executions", { path: { jobId: "a/b" }, query: { limit: 5, state: undefined } });
    expect(made.address).toBe("/jobs/a%2Fb/executions?limit=5");
    expect(queryText({ a: ["x", "y"], b: null, c: "", d: 0, e: false })).toBe("?a=x&a=y&d=0");
  });

  it("is the same as curl, with every quote kept", () => {
    const made = call("patch", "/jobs/{jobId}", { path: { jobId: "it" }, body: { name: "it's" } });
    expect(curl(made, "http://127.0.0.1:5000", true)).toBe(
      [
        "curl -X PATCH", "http://127.0.0.1:5000/jobs/it", `-H "Authorization: Bearer $HORAE_API_KEY"`,
        "-H 'Content-Type: application/merge-patch+json'", `-d '{"name":"it'\\''s"}'`,
      ].join(" \\\n  ").replace("curl -X PATCH", "curl \\\n  -X PATCH"),
    );
  });

  it("goes below the address of the page", () => {
    expect(apiBase({ origin: "https://x.example", pathname: "/ops/horae/" })).toBe("https://x.example/ops/horae");
    expect(apiBase({ origin: "http://127.0.0.1:5000", pathname: "/" })).toBe("http://127.0.0.1:5000");
  });
});
