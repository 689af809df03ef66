"""How long scripts run in each frame of a page, from Chromium's own trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Page

SCRIPT = frozenset(
    {"FunctionCall", "RunMicrotasks", "FireAnimationFrame", "TimerFire", "EvaluateScript", "EventDispatch"}
)
FRAME = "FireAnimationFrame"


class Frame(NamedTuple):
    """Milliseconds of script of one frame: by the clock, and of the processor alone, which others do not take."""

    wall: float
    cpu: float


def script_per_frame(browser: Browser, page: Page, work: Callable[[], None]) -> list[Frame]:
    """The script between one animation frame of the page and the next, while `work` is done; in order of size."""
    browser.start_tracing(page=page, categories=["devtools.timeline", "v8", "disabled-by-default-devtools.timeline"])
    work()
    events: list[dict[str, Any]] = orjson.loads(browser.stop_tracing())["traceEvents"]
    scripts = [e for e in events if e.get("ph") == "X" and e.get("name") in SCRIPT]
    frames = sorted((e["pid"], e["tid"], e["ts"]) for e in scripts if e["name"] == FRAME)
    if not frames:
        return [Frame(0.0, 0.0)]
    thread = frames[0][:2]
    begins = [ts for *of, ts in frames if tuple(of) == thread]
    spans = sorted((e["ts"], e["ts"] + e["dur"], e.get("tdur", 0)) for e in scripts if (e["pid"], e["tid"]) == thread)
    return sorted(_sums(_without_nested(spans), begins))


def _without_nested(spans: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """A script that runs within another one counts once."""
    outer: list[tuple[float, float, float]] = []
    for span in spans:
        if not outer or span[0] >= outer[-1][1]:
            outer.append(span)
    return outer


def _sums(spans: list[tuple[float, float, float]], begins: list[float]) -> list[Frame]:
    sums = [Frame(0.0, 0.0)] * len(begins)
    place = 0
    for begin, end, cpu in spans:
        while place + 1 < len(begins) and begins[place + 1] <= begin:
            place += 1
        sums[place] = Frame(sums[place].wall + (end - begin) / 1000, sums[place].cpu + cpu / 1000)
    return sums
