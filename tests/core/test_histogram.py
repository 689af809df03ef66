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
