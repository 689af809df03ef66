"""The parts of a lateness add up to it, whatever the clocks did."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.execution.lateness import ON_TIME, LatenessParts, SendTimes, lateness_parts


@pytest.mark.parametrize(
    ("times", "parts"),
    [
        (SendTimes(1000, 0, 1000, 1000, 0, late_work=False), ON_TIME),
        (SendTimes(1000, 0, 1010, 1012, 0, late_work=False), LatenessParts(waited=10, sent=2)),
        (SendTimes(1000, 0, 1500, 1500, 480, late_work=False), LatenessParts(waited=20, held_back=480)),
        (SendTimes(1000, 4000, 4001, 4003, 0, late_work=False), LatenessParts(claimed=3000, waited=1, sent=2)),
        (SendTimes(1000, 4000, 4001, 4003, 0, late_work=True), LatenessParts(written=3000, waited=1, sent=2)),
        (SendTimes(1000, 2000, 900, 1500, 9999, late_work=False), LatenessParts(claimed=500)),
    ],
)
def test_each_part_is_what_it_says(times: SendTimes, parts: LatenessParts) -> None:
    """From the planned time to the request."""
    assert lateness_parts(times) == parts


times = st.integers(0, 10_000)


@given(times, times, times, times, st.integers(-5, 10_000), st.booleans())
def test_the_parts_add_up(planned: int, claimed: int, started: int, sent: int, held: int, late: bool) -> None:
    """None is negative."""
    parts = lateness_parts(SendTimes(planned, claimed, started, sent, held, late_work=late))
    assert sum(parts) == max(0, sent - planned)
    assert min(parts) >= 0
