"""Circuit breakers: which attempts count, when a breaker opens, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.limits.circuit_breaker import (
    MAX_JOBS,
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
    """19 failures are too few; 20 of 40 are half; 20 of 41 are less than half. Each is of another job."""
    window = AttemptWindow()
    for i in range(MIN_ATTEMPTS - 1):
        window.add(0.0, f"a{i}", failed=True)
    assert not window.should_open()
    window.add(0.0, "a", failed=True)
    assert window.should_open()
    for i in range(MIN_ATTEMPTS):
        window.add(1.0, f"b{i}", failed=False)
    assert window.should_open()
    window.add(1.0, "b", failed=False)
    assert not window.should_open()


def filled(**jobs: tuple[int, int]) -> AttemptWindow:
    """A window with so many attempts of each job, of which so many failed."""
    window = AttemptWindow()
    for job_id, (total, failed) in jobs.items():
        for i in range(total):
            window.add(0.0, job_id, failed=i < failed)
    return window


@pytest.mark.parametrize(
    ("jobs", "opens"),
    [
        ({"a": (500, 500)}, False),
        ({"a": (500, 500), "b": (1, 0)}, False),
        ({"a": (500, 500), "b": (1, 1)}, False),
        ({"a": (500, 500), "b": (30, 3)}, False),
        ({"a": (500, 500), "b": (9, 9)}, False),
        ({"a": (10, 10), "b": (10, 10)}, True),
        ({"a": (500, 5), "b": (10, 10)}, False),
        ({"a": (500, 500), "b": (500, 500), "c": (5, 0), "d": (5, 0), "e": (5, 0)}, False),
        ({"a": (500, 500), "b": (500, 500), "c": (5, 4), "d": (5, 0)}, True),
        ({f"j{i}": (1, 1) for i in range(MIN_ATTEMPTS)}, True),
        ({f"j{i}": (2, int(i < 4) * 2) for i in range(10)}, False),
    ],
)
def test_failures_are_weighed_by_distinct_jobs(jobs: dict[str, tuple[int, int]], opens: bool) -> None:
    """However often one job fails, it is not enough; half of the jobs must fail, and half of what is counted of them."""
    assert filled(**jobs).should_open() is opens


def test_a_window_of_very_many_jobs_stays_small() -> None:
    """It counts a sample of them, and others once those are out of it."""
    window = AttemptWindow()
    for i in range(10_000):
        window.add(0.0, f"j{i}", failed=True)
    assert window.jobs == MAX_JOBS
    window.add(WINDOW_SECONDS + 1, "later", failed=True)
    assert window.failing_jobs() == ["later"]


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abc"), st.booleans()), max_size=80))
def test_a_window_holds_the_latest_seconds(steps: list[tuple[float, str, bool]]) -> None:
    """Its sums are those of a list of the attempts within the window, to the second."""
    window, now, plain = AttemptWindow(), 0.0, []
    for step, job_id, failed in steps:
        now += step
        window.add(now, job_id, failed=failed)
        plain.append((int(now), job_id, failed))
        inside = [(j, f) for second, j, f in plain if second > now - WINDOW_SECONDS]
        assert (window.total, window.failed) == (len(inside), sum(f for _, f in inside))
        assert window.jobs == len({j for j, _ in inside})


def test_a_breaker_stays_open_longer_each_time_and_then_admits_a_probe() -> None:
    """5 s, 10 s, ... up to a minute, or no longer than 10 s while few jobs failed; until then no request is admitted, then a
    probe.
    """
    for jobs in (4, 5, 16):
        assert [open_duration_ms(n, jobs) for n in (1, 2, 3, 4, 5, 50)] == [
            5000,
            10_000,
            20_000,
            40_000,
            60_000,
            60_000,
        ]
    for jobs in (1, 2, 3):
        assert [open_duration_ms(n, jobs) for n in (1, 2, 3, 4, 5, 50)] == [5000] + [10_000] * 5
    breaker = Breaker("a", half_open=False, until_ms=1000, opens=1, rev=1, opened_ms=0, why="", node="n")
    assert breaker.admission(999) is Admission.HOLD
    assert breaker.admission(1000) is Admission.PROBE
