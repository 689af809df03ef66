"""The search for the highest rate of a benchmark."""

from __future__ import annotations

import pytest

from ops.bench.search import highest_rate


@pytest.mark.parametrize("limit", range(400, 9000, 700))
@pytest.mark.parametrize("start", [500, 3500, 6000])
def test_the_highest_rate_that_holds_is_found_to_a_step(limit: int, start: int) -> None:
    """Whether the first rate holds or not, and without trying any twice."""
    tried: list[int] = []

    def run(rate: int) -> int | None:
        tried.append(rate)
        return rate if rate <= limit else None

    assert highest_rate(run, start, 500) == (limit // 500 * 500 or None)
    assert len(tried) == len(set(tried))
    assert len(tried) <= max(5, abs(limit - start) // 1000 + 4)
