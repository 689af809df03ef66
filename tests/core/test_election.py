"""The rules of the election, without a database."""

from __future__ import annotations

import itertools

import pytest

from cluster.core.election import LeaderLease, LeaseObservation, may_take_over, observe, read_failed

LEASE = 6.0


def test_a_free_lease_is_taken_at_the_first_read() -> None:
    """A lease without a holder is taken without waiting."""
    seen = observe(LeaseObservation(), LeaderLease(None, 3, 9), 100.0)
    assert may_take_over(seen, 100.0, LEASE)


def test_a_held_lease_is_taken_only_after_it_was_unchanged_for_its_length() -> None:
    """The time counts from the last change that this candidate saw, on its own clock."""
    seen = observe(LeaseObservation(), LeaderLease("a", 3, 9), 100.0)
    assert not may_take_over(seen, 106.0, LEASE)
    assert may_take_over(seen, 106.1, LEASE)


@pytest.mark.parametrize("change", [LeaderLease("a", 3, 10), LeaderLease("b", 4, 10), LeaderLease("a", 4, 9)])
def test_any_change_restarts_the_wait(change: LeaderLease) -> None:
    """A renewal or another term shows that the holder is alive."""
    seen = observe(LeaseObservation(), LeaderLease("a", 3, 9), 100.0)
    seen = observe(seen, change, 105.0)
    assert not may_take_over(seen, 110.9, LEASE)
    assert may_take_over(seen, 111.1, LEASE)


def test_after_an_error_two_more_unchanged_reads_are_needed() -> None:
    """The failed read may be this candidate's own fault."""
    seen = observe(LeaseObservation(), LeaderLease("a", 3, 9), 100.0)
    seen = read_failed(seen)
    for due in (False, True):
        seen = observe(seen, LeaderLease("a", 3, 9), 120.0)
        assert may_take_over(seen, 120.0, LEASE) is due


def test_nothing_observed_means_no_take_over() -> None:
    """A candidate that has never read the lease never claims it."""
    assert not may_take_over(LeaseObservation(), 1e9, LEASE)
    assert not may_take_over(read_failed(LeaseObservation()), 1e9, LEASE)


def test_a_lease_renewed_in_time_is_never_taken() -> None:
    """However reads and renewals interleave, a holder that renews every second keeps its lease."""
    for offset, step in itertools.product((0.0, 0.3, 0.9), (0.5, 1.0, 1.7)):
        seen = LeaseObservation()
        now = offset
        while now < 60:
            seen = observe(seen, LeaderLease("a", 1, int(now)), now)
            assert not may_take_over(seen, now, LEASE)
            now += step
