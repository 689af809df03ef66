"""Histograms with fixed buckets."""

from __future__ import annotations

from cluster.core.histogram import BOUNDS_MS, Histogram


def test_quantiles_are_exact_to_a_bucket_also_after_a_merge() -> None:
    """Quantiles are good to a bucket, also after a merge, also beyond the last bound."""
    a, b = Histogram(), Histogram()
    assert a.quantile(0.5) is None
    for v in range(1, 100):
        a.add(v)
    b.add(10**9)
    a.merge(b.counts)
    assert a.total() == 100
    assert a.quantile(0.5) == 50
    assert a.quantile(0.95) == 100
    assert a.quantile(1.0) == BOUNDS_MS[-1]


def test_values_that_are_added_together_count_as_one_by_one() -> None:
    """In the same buckets and the same sum."""
    values = [0.2, 7, 7.5, 10**9]
    together, single = Histogram(), Histogram()
    together.add_all(values)
    for v in values:
        single.add(v)
    assert (together.counts, together.sum) == (single.counts, single.sum)
