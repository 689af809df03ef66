"""The search for the highest rate of a benchmark."""

from __future__ import annotations

import pytest

from ops.bench.search import MOST_RUNS, highest_rate


@pytest.mark.parametrize("limit", range(400, 9000, 700))
@pytest.mark.parametrize("start", [500, 3500, 6000])
def test_the_highest_rate_that_holds_is_found_to_a_step(limit: int, start: int) -> None:
    """Whether the first rate holds or not, and without trying any twice."""
    tried: list[int] = []

    def run(rate: int) -> int | None:
        tried.append(rate)
        return rate if rate <= limit else None

    assert highest_rate(run, start, 500, most=20) == (limit // 500 * 500 or None)
    assert len(tried) == len(set(tried))
    assert len(tried) <= 14


@pytest.mark.parametrize("limit", [0, 100, 2600, 4700, 10**9])
def test_the_search_ends_after_so_many_runs_whatever_holds(limit: int) -> None:
    """What it found by then counts: a rate that held, whether a higher one would or not."""
    tried: list[int] = []

    def run(rate: int) -> int | None:
        tried.append(rate)
        return rate if rate <= limit else None

    best = highest_rate(run, 3500, 500)
    assert len(tried) <= MOST_RUNS
    assert best == max((rate for rate in tried if rate <= limit), default=None)
    if limit in (2600, 4700):
        assert best == limit // 500 * 500
