"""Maintenance windows in virtual time. See `windows.py`.

A failure names its seed: `Windows(816).run()` with `twins.install` is that run again, callback by callback.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.windows import HoldingWindow, SkippingWindow, Window, WindowPeriod, decide
from tests.simulation import model_jobs, twins
from tests.simulation.explore import TIMES, explore, first_to_show
from tests.simulation.windows import AwayInWindows, Windows

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 10 * TIMES
BROKEN_RUNS = 2000


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


@pytest.mark.timeout(300)
def test_nothing_leaves_in_a_window_and_all_of_it_goes_on_or_is_skipped() -> None:
    """Invariants 1 and 6 beside those of whole workers, whoever dies and whatever becomes of the windows."""
    assert len(explore(Windows, RUNS)) == RUNS


@pytest.mark.timeout(300)
def test_what_windows_held_while_no_node_was_there_is_not_missed_for_that_time() -> None:
    """Also by a window that was changed or deleted before a node came; and nothing else is sent against `catchUp`."""
    assert len(explore(AwayInWindows, RUNS)) >= RUNS * 0.9


def _read_once(patch: pytest.MonkeyPatch) -> None:
    """A node never reads the windows again."""
    patch.setattr("cluster.worker.windows.READ_SECONDS", float("inf"))


def _judged_by_now(patch: pytest.MonkeyPatch) -> None:
    """A window skips what is sent in it, and not what was due in it."""

    def by_now(windows: Any, subject: Any, planned: Any, now_ms: int) -> Any:
        return decide(windows, subject, replace(planned, first_ms=max(now_ms, planned.send_ms)), now_ms)

    patch.setattr("cluster.worker.windows.decide", by_now)


def _held_is_skipped(patch: pytest.MonkeyPatch) -> None:
    """What a window would hold is recorded as skipped."""

    def skipping(*args: Any) -> Any:
        found = decide(*args)
        return SkippingWindow(found.window) if isinstance(found, HoldingWindow) else found

    patch.setattr("cluster.worker.windows.decide", skipping)


def _never_let_go(patch: pytest.MonkeyPatch) -> None:
    """What a window holds waits for its end, a day later than that is, and nobody looks at it before."""
    patch.setattr("cluster.worker.paused.MAX_WAIT_MS", 86_400_000)
    patch.setattr("cluster.worker.paused.MIN_WAIT_MS", 86_400_000)
    patch.setattr(Window, "leaves_ms", lambda _, span, __: span.to_ms + 86_400_000)


def _mute_holds(patch: pytest.MonkeyPatch) -> None:
    """A window that mutes alerts holds executions too."""

    def holding(windows: Any, *args: Any) -> Any:
        return decide([replace(w, mode="hold") if w.mode == "mute" else w for w in windows], *args)

    patch.setattr("cluster.worker.windows.decide", holding)


def _gone_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What a window was before it was changed or deleted does not count."""

    async def present(db: Any, _: int) -> list[WindowPeriod]:
        return [WindowPeriod(w, 0, None) for w in await model_jobs.windows_present(db)]

    patch.setattr("cluster.store.windows.periods", present)


def _gone_is_there_still(patch: pytest.MonkeyPatch) -> None:
    """A window that was deleted counts as if it were there."""

    async def endless(db: Any, since_ms: int) -> list[WindowPeriod]:
        return [replace(p, to_ms=None) for p in await model_jobs.windows_periods(db, since_ms)]

    patch.setattr("cluster.store.windows.periods", endless)


def _quiet(seed: int) -> Windows:
    return Windows(seed, trouble=0.0)


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[int], Any], str]] = {
    "windows are read once": (_read_once, Windows, "is sent in its window|due in a window that skips"),
    "a window skips by the time of sending": (
        _judged_by_now,
        _quiet,
        "is sent, and it was due|not recorded as skipped",
    ),
    "what a window holds is skipped": (_held_is_skipped, Windows, "nothing skips it|no window was about its time"),
    "what a window held is not let go": (_never_let_go, _quiet, "left behind"),
    "a window that mutes holds": (_mute_holds, _quiet, "a window that mutes holds nothing"),
    "windows that have gone are forgotten": (_gone_is_forgotten, AwayInWindows, "is missed, and a window held it"),
    "windows that have gone hold on": (_gone_is_there_still, AwayInWindows, "although catchUp is none"),
}
RARE = {"a window skips by the time of sending"}
"""Those that take more than some seconds to find."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "rule", [pytest.param(name, marks=[pytest.mark.chaos] if name in RARE else []) for name in BROKEN]
)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    broken, scenario, finding = BROKEN[rule]
    broken(monkeypatch)
    print(rule, "->", first_to_show(finding, scenario, BROKEN_RUNS, rule))
