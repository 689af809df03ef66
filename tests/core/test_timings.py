"""Unsafe timings are named."""

from __future__ import annotations

import pytest

from cluster.core.timings import Timings, timing_problems


def test_the_default_timings_are_safe() -> None:
    """The default timings satisfy their own inequalities."""
    assert timing_problems(Timings()) == []
    assert timing_problems(Timings.from_settings(leader_lease=2, lookahead=15, batch_lease=10)) == []


@pytest.mark.parametrize(
    ("timings", "words"),
    [
        (Timings(leader_lease=3.9), "HORAE_LEADER_LEASE_SECONDS"),
        (Timings(renew_retry=3.1), "renew retry"),
        (Timings(lookahead=10), "HORAE_LOOKAHEAD_SECONDS"),
        (Timings(batch_lease=4), "HORAE_BATCH_LEASE_SECONDS"),
        (Timings.from_settings(leader_lease=1.5, lookahead=15, batch_lease=10), "HORAE_LEADER_LEASE_SECONDS"),
        (Timings.from_settings(leader_lease=12, lookahead=15, batch_lease=10), "HORAE_LOOKAHEAD_SECONDS"),
    ],
)
def test_each_unsafe_inequality_is_named(timings: Timings, words: str) -> None:
    """The message names the setting and the value that it violates."""
    assert any(words in p for p in timing_problems(timings))
