"""Circuit breakers: which attempts count, when a breaker opens, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.limits.circuit_breaker import (
    MIN_ATTEMPTS,
    WINDOW_SECONDS,
    Admission,
    AttemptWindow,
    Breaker,
    is_host_failure,
    open_duration_ms,
)


@pytest.mark.parametrize(
    ("status", "error", "counts"),
    [
        (200, None, False),
        (404, None, False),
        (410, None, False),
        (429, None, False),
        (500, None, True),
        (503, None, True),
        (None, "timeout", True),
        (None, "connect", True),
        (None, "dns", True),
        (None, "tls", True),
        (None, "reset", True),
        (None, "denied", False),
        (None, "stalled", False),
    ],
)
def test_only_missing_answers_and_5xx_are_failures_of_the_host(
    status: int | None, error: str | None, counts: bool
) -> None:
    """Any other answer is not a failure of the host, nor is a refusal by the address guard."""
    assert is_host_failure(status, error) is counts


def test_a_breaker_needs_volume_and_rate() -> None:
    """19 failures are too few; 20 of 40 are half; 20 of 41 are less than half."""
    window = AttemptWindow()
    for _ in range(MIN_ATTEMPTS - 1):
        window.add(0.0, failed=True)
    assert not window.should_open()
    window.add(0.0, failed=True)
    assert window.should_open()
    for _ in range(MIN_ATTEMPTS):
        window.add(1.0, failed=False)
    assert window.should_open()
    window.add(1.0, failed=False)
    assert not window.should_open()


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80))
def test_a_window_holds_the_latest_seconds(steps: list[tuple[float, bool]]) -> None:
    """Its sums are those of a list of the attempts within the window, to the second."""
    window, now, plain = AttemptWindow(), 0.0, []
    for step, failed in steps:
        now += step
        window.add(now, failed=failed)
        plain.append((int(now), failed))
        inside = [f for second, f in plain if second > now - WINDOW_SECONDS]
        assert (window.total, window.failed) == (len(inside), sum(inside))


def test_a_breaker_stays_open_longer_each_time_and_then_admits_a_probe() -> None:
    """5 s, 10 s, ... up to a minute; until then no request is admitted, then a probe."""
    assert [open_duration_ms(n) for n in (1, 2, 3, 4, 5, 50)] == [5000, 10_000, 20_000, 40_000, 60_000, 60_000]
    breaker = Breaker("a", half_open=False, until_ms=1000, opens=1, rev=1, opened_ms=0, why="", node="n")
    assert breaker.admission(999) is Admission.HOLD
    assert breaker.admission(1000) is Admission.PROBE
