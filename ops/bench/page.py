"""The page in a real Chromium: each screen with much data, its first paint, the script of a frame of the axis of time, what
viewers cost the nodes, and what a page that is left open keeps and asks.

It needs a Chromium on PATH and the built page (`make setup`).
"""

from __future__ import annotations

import gzip
import random
import shutil
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import orjson

from api.dashboard import built_files
from cluster.core.instants import format_instant
from ops.bench import api
from ops.bench.results import Row
from ops.bench.script_time import script_per_frame
from ops.bench.testbed import caught_up, running_cluster, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from ops.bench.testbed import Cluster, Testbed

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
SCREENS = (
    ("Now", "#/"),
    ("Time, an hour by tag", "#/time?by=tag&span=3600"),
    ("Time, ten minutes by job", "#/time?by=job&span=600&q=bench"),
    ("Time, an hour by host", "#/time?by=host&span=3600"),
    ("Time, a year", "#/time?by=all&span=31536000"),
    ("Jobs", "#/jobs"),
    ("Jobs, failing", "#/jobs?failing=true&sort=name"),
    ("Jobs, searched", "#/jobs?q=bench&sort=-lastRunAt"),
    ("Job", "#/jobs/bench-000042"),
    ("Executions", "#/executions"),
    ("Execution", "#/executions/{execution}"),
    ("Executions, failed", "#/executions?state=failed,dead"),
    ("Failed", "#/failed"),
    ("Failed, a week", "#/failed?hours=168"),
    ("Messages", "#/messages"),
    ("Cluster", "#/cluster"),
    ("Proof", "#/proof"),
    ("Audit", "#/audit"),
    ("Editor", "#/jobs/bench-000042/edit"),
    ("New job", "#/new"),
    ("Queues", "#/queues"),
    ("Calendars", "#/calendars"),
    ("Windows", "#/windows"),
    ("Channels", "#/channels"),
    ("Keys", "#/keys"),
)
REPEATS = 5
VIEWERS = 20
VIEWER_SECONDS = 30
QUIET_SECONDS = 20
VIEWED = ("#/", "#/", "#/time?by=tag&span=600", "#/jobs", "#/cluster")
OPEN_ROUNDS = 1200
ROUND_MS = 1000
ANSWERS_MS = 10
TICKS = 100_000
FRAME_BUDGET_MS = 8
USABLE_MS = 1000

WATCH = """
window.shown = null;
new MutationObserver(() => {
  const heading = document.querySelector("main h1");
  const loading = document.querySelector("main [aria-busy=true]");
  const ready = heading && heading.textContent !== "…" && !loading && !document.body.innerText.includes("Loading…");
  if (ready && window.shown === null) window.shown = performance.now();
  if (!ready) window.shown = null;
}).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
"""
"""Notes when a screen has its heading and nothing in it is loading any more."""


def rows(testbed: Testbed) -> list[Row]:
    """Each screen with 100,000 jobs and a million executions; the size of the scripts; the first paint."""
    with _chromium() as browser:
        with running_cluster(testbed, nodes=1) as cluster:
            api.fill(cluster.db)
            execution = next(str(d["_id"]) for d in cluster.db["history"].find({"state": "failed"}).limit(1))
            for _, address in SCREENS:  # the first reads fill the caches of MongoDB
                _opened(browser, cluster.api.url, address.format(execution=execution))
            made = [_screen(browser, cluster, name, a.format(execution=execution)) for name, a in SCREENS]
        return [_size(), *made]


def open_rows(testbed: Testbed) -> list[Row]:
    """The script of a frame of the axis of time, what viewers cost, and a page that is left open."""
    with _chromium() as browser, running_cluster(testbed) as cluster:
        cluster.load(cluster.job(n, "* * * * * *") for n in range(100))
        wait_for(cluster.settled, 60, "the jobs were not settled")
        wait_for(lambda: caught_up(cluster), 60, "the nodes did not reach the rate")
        return [_axis(browser, cluster), _viewers(browser, cluster), _left_open(browser, cluster)]


@contextmanager
def _chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise click.ClickException("there is no Chromium on PATH (Debian: apt-get install chromium)")
    if not (built_files.DIST / "index.html").exists():
        raise click.ClickException("the page is not built: run `make setup`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def _page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        yield context.new_page()
    finally:
        context.close()


def _size() -> Row:
    scripts = [n for n in built_files.asset_names() if n.endswith(".js") and not n.startswith("docs")]
    size = sum(len(built_files.asset(n).compressed or gzip.compress(built_files.asset(n).content)) for n in scripts)
    return Row("scripts of the page as gzip", note=f"{size / 1024:.1f} KB", extra={"bytes": size})


def _opened(browser: Browser, url: str, address: str) -> tuple[float, float]:
    """Milliseconds from the request of the page until its first paint, and until the screen has what it asked for."""
    with _page(browser) as page:
        page.add_init_script(WATCH)
        page.goto(f"{url}/{address}")
        page.wait_for_selector("main h1")
        wait_for(lambda: _settled(page), 30, f"{address} has not opened")
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null")
        return float(painted or 0), float(page.evaluate("window.shown"))


def _settled(page: Page) -> bool:
    """Whether the screen has been complete for a tenth of a second."""
    return bool(page.evaluate("window.shown !== null && performance.now() - window.shown > 100"))


def _screen(browser: Browser, cluster: Cluster, name: str, address: str) -> Row:
    took = [_opened(browser, cluster.api.url, address) for _ in range(REPEATS)]
    shown = sorted(t for _, t in took)
    painted = statistics.median(t for t, _ in took)
    return Row(
        f"screen {name}",
        executions=REPEATS,
        p50=statistics.median(shown),
        longest=shown[-1],
        earliest=shown[0],
        note=f"ms until it has what it asked for; first paint after {painted:.0f} ms{_slow(shown)}",
        extra={"first_paint_ms": round(painted), "usable_in_time": statistics.median(shown) <= USABLE_MS},
    )


def _slow(shown: list[float]) -> str:
    return "" if statistics.median(shown) <= USABLE_MS else f"; ABOVE {USABLE_MS} ms"


def _answer(rows_: int, steps: int) -> bytes:
    """An answer of `/timeline` with `TICKS` and more, every step of every row filled."""
    now_ms = int(time.time() * 1000) // 10_000 * 10_000
    luck = random.Random(7)  # noqa: S311 - guards nothing
    each = TICKS // rows_ // steps + 1
    first = now_ms - steps // 2 * 10_000
    kinds = ("succeeded", "retried", "failed", "missed", "skipped")

    def step(i: int) -> dict[str, Any]:
        at = first + i * 10_000
        counts: dict[str, Any] = {k: luck.randrange(1, each + 1) for k in kinds} if at < now_ms else {"due": each * 3}
        return {"at": format_instant(at), **counts}

    content = {
        "from": format_instant(first),
        "until": format_instant(first + steps * 10_000),
        "now": format_instant(now_ms),
        "step": 10,
        "by": "tag",
        "source": "history",
        "rows": [{"name": f"tag-{n}", "steps": [step(i) for i in range(steps)]} for n in range(rows_)],
        "rest": {"rows": 0, "steps": []},
        "jobsLeftOut": 0,
    }
    return orjson.dumps(content)


def _axis(browser: Browser, cluster: Cluster) -> Row:
    """The page is dragged and zoomed over 20 rows of 440 steps (what it asks for around 320), all of them filled."""
    content = _answer(20, 440)
    with _page(browser) as page:
        page.route("**/timeline?*", lambda route: route.fulfill(body=content, content_type="application/json"))
        page.goto(f"{cluster.api.url}/#/time?by=tag&span=3200")
        page.wait_for_selector(".as-table")
        page.wait_for_timeout(500)
        frames = script_per_frame(browser, page, lambda: _drag(page))
    spent = [f.wall for f in frames]
    busiest = max(f.cpu for f in frames)
    late = sum(1 for s in spent if s > FRAME_BUDGET_MS)
    return Row(
        f"axis of time, {TICKS:,} ticks in view, dragged and zoomed",
        executions=len(spent),
        p50=statistics.median(spent),
        p95=spent[int(len(spent) * 0.95)],
        p99=spent[int(len(spent) * 0.99)],
        longest=spent[-1],
        note=f"ms of script a frame: {', '.join(_tenths(spent))}; {late} frames above {FRAME_BUDGET_MS} ms; of the processor "
        f"{busiest:.1f} at most",
        extra={"frames_above": late, "max_ms": round(spent[-1], 2), "max_cpu_ms": round(busiest, 2)},
    )


def _tenths(spent: list[float]) -> list[str]:
    places = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    return [f"{name} {spent[int(len(spent) * q)]:.1f}" for name, q in places] + [f"max {spent[-1]:.1f}"]


def _drag(page: Page) -> None:
    box = page.locator(".axis canvas").bounding_box()
    if box is None:
        raise click.ClickException("the axis of time is not shown")
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 100)
    page.mouse.down()
    for i in range(90):
        page.mouse.move(middle + (i % 30 - 15) * 12, box["y"] + 100)
    page.mouse.up()
    for i in range(20):
        page.mouse.wheel(0, 40 if i % 2 else -40)


def _viewers(browser: Browser, cluster: Cluster) -> Row:
    """The CPU of both nodes with viewers beside that without, which is the mean of before and after."""
    time.sleep(3)
    before = _cpu_percent(cluster, QUIET_SECONDS)
    contexts = [browser.new_context(viewport={"width": 1280, "height": 800}) for _ in range(VIEWERS)]
    for i, context in enumerate(contexts):
        page = context.new_page()
        page.goto(f"{cluster.api.url}/{VIEWED[i % len(VIEWED)]}")
        page.wait_for_selector("main h1")
    time.sleep(5)
    seen = _cpu_percent(cluster, VIEWER_SECONDS)
    for context in contexts:
        context.close()
    time.sleep(3)
    idle = (before + _cpu_percent(cluster, QUIET_SECONDS)) / 2
    note = f"nodes: {idle:.1f} % of a core without, {seen:.1f} % with; {seen - idle:.1f} % for {VIEWERS} viewers"
    extra = {"idle_percent": round(idle, 2), "with_viewers_percent": round(seen, 2)}
    return Row(f"{VIEWERS} viewers: four screens, all in front, at 100/s", note=note, extra=extra)


def _cpu_percent(cluster: Cluster, seconds: float) -> float:
    before, began = cluster.cpu()[0], time.monotonic()
    time.sleep(seconds)
    return (cluster.cpu()[0] - before) / (time.monotonic() - began) * 100


def _left_open(browser: Browser, cluster: Cluster) -> Row:
    """Twenty minutes of the clock of the page in some seconds: what it keeps after garbage collections, and how often it asks."""
    with _page(browser) as page:
        page.clock.install()
        page.goto(f"{cluster.api.url}/#/")
        page.wait_for_selector("main h1")
        asked: list[str] = []
        page.on("request", lambda r: asked.append(r.url))
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        kept: list[float] = []
        for i in range(OPEN_ROUNDS):
            page.clock.run_for(ROUND_MS)
            page.wait_for_timeout(ANSWERS_MS)
            if i in (OPEN_ROUNDS // 4, OPEN_ROUNDS - 1):
                session.send("HeapProfiler.collectGarbage")
                values = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
                kept.append(values["JSHeapUsedSize"] / 2**20)
    minutes = OPEN_ROUNDS * ROUND_MS / 60_000
    grown = kept[1] - kept[0]
    return Row(
        f"a page left open for {minutes:.0f} min",
        executions=len(asked),
        note=f"{len(asked) / minutes:.1f} requests a minute; heap {kept[0]:.1f} MB after a quarter, {kept[1]:.1f} MB at the end",
        extra={"requests_a_minute": round(len(asked) / minutes, 1), "heap_grown_mb": round(grown, 2)},
    )
