"""Unsafe timings are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(lease=st.floats(2, 60), lookahead=st.floats(3, 300))
def test_the_look_ahead_covers_a_rest_and_a_late_look_at_the_lease(lease: float, lookahead: float) -> None:
    """A leader dies just before its rest is over, and the next one sees its last renewal and the end of its lease as late as it
    may: its first turn ends before the first execution that nobody has written down is due."""
    t = Timings.from_settings(leader_lease=lease, lookahead=lookahead, batch_lease=10)
    if not timing_problems(t):
        assert t.follow_seconds >= t.renew_retry
        assert t.takeover + 2 * (t.follow_seconds - t.renew_retry) + t.rest_seconds < t.lookahead
    assert (Timings().follow_seconds, Timings().rest_seconds) == (1.5, 2.0)
