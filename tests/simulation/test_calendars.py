"""Calendars that change under jobs that change. See `calendars.py`."""

from __future__ import annotations

import pytest

from tests.simulation import twins
from tests.simulation.calendars import FollowingCalendars
from tests.simulation.explore import TIMES, explore

RUNS = 18 * TIMES


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


@pytest.mark.takes(10)
@pytest.mark.timeout(300)
def test_jobs_owe_what_their_calendar_said_and_follow_its_last_change() -> None:
    """Invariants 1 and 6, whoever dies, freezes or is replaced, and whatever else happens to the jobs."""
    assert len(explore(FollowingCalendars, RUNS)) >= RUNS * 0.9
