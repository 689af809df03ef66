"""Histograms with fixed buckets: adding is cheap, nodes' counts can be merged, quantiles are exact to a bucket."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MILLIS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750)
_SECONDS = (1, 1.5, 2, 3, 5, 7.5, 10, 15, 30, 60, 300, 3600)
BOUNDS_MS = (*_MILLIS, *(int(s * 1000) for s in _SECONDS))
"""Upper bounds in ms, inclusive. One more bucket counts all larger values."""


COARSE_MS = (1, 2, 5, 10, 20, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
"""For histograms per operation or address: fewer buckets, because each bucket is a series."""


class Histogram:
    """Counts per bucket, and the sum of all values in ms."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, counts: Iterable[int] | None = None, bounds: tuple[int, ...] = BOUNDS_MS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        for i, n in enumerate(counts or ()):
            self.counts[i] = n

    def add(self, value_ms: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value_ms)] += 1
        self.sum += value_ms

    def add_all(self, values_ms: Sequence[float]) -> None:
        """Count each of these values."""
        counts, bounds = self.counts, self.bounds
        for value_ms in values_ms:
            counts[bisect_left(bounds, value_ms)] += 1
        self.sum += sum(values_ms)

    def add_many(self, value_ms: float, n: int) -> None:
        """Count one value `n` times."""
        self.counts[bisect_left(self.bounds, value_ms)] += n
        self.sum += n * value_ms

    def merge(self, counts: Sequence[int]) -> None:
        """Add another histogram's counts."""
        for i, n in enumerate(counts[: len(self.counts)]):
            self.counts[i] += n

    def total(self) -> int:
        """The number of values counted."""
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """The upper bound (ms) of the bucket that holds the `q` quantile (0..1). None if the histogram is empty."""
        total = self.total()
        if not total:
            return None
        rank = q * total
        running = 0
        for bound, n in zip((*self.bounds, self.bounds[-1]), self.counts, strict=True):
            running += n
            if running >= rank and n:
                return float(bound)
        return float(self.bounds[-1])


class HistogramDelta:
    """What a histogram counted since it was last asked."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._taken = [0] * len(histogram.counts)

    def take(self) -> list[int]:
        """Counts per bucket since the last call."""
        new = [n - taken for n, taken in zip(self._histogram.counts, self._taken, strict=True)]
        self._taken = list(self._histogram.counts)
        return new
