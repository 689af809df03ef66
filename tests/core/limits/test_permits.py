"""Permits: never more per second and never more at once than the limits, whichever nodes ask and whichever die."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.limits.permits import HORIZON_MS, UNLIMITED, Limits, Permits, batch_limit_key, grant, limit_key_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def with_ids(names: Iterable[str]) -> dict[str, str]:
    """Each with a permit id of its own."""
    return {name: f"{name}'s" for name in names}


@given(
    st.sampled_from([0.5, 1.0, 3.0, 10.0, 250.0]),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 40), st.booleans()), max_size=40),
)
def test_no_second_has_more_instants_than_the_rate(rate: float, steps: list[tuple[int, int, bool]]) -> None:
    """Requests at any time and for any number, and nodes that die with their permits: every second that starts at an
    instant has at most `rate` instants, rounded up."""
    permits, now, given_out, n = Permits(), 1_000_000, [], 0
    for pause, count, dies in steps:
        now += pause
        wanted = [f"e{n + i}" for i in range(count)]
        n += count
        answer = grant(permits, Limits(rate), with_ids(wanted), now)
        permits = answer.permits
        assert all(now <= at <= now + HORIZON_MS + 1 for at in answer.at_ms.values())
        assert list(answer.at_ms) == wanted[: len(answer.at_ms)], "in the order in which they wait"
        if len(answer.at_ms) < count:
            assert answer.ask_again_ms is not None
            assert answer.ask_again_ms > now
        if not dies:
            given_out += list(answer.at_ms.values())
    most = -(-rate // 1) if rate >= 1 else 1
    for at in given_out:
        assert sum(at <= other < at + 1000 for other in given_out) <= most


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_never_more_at_once_than_allowed(most: int, steps: list[tuple[int, int]]) -> None:
    """Permits that are requested and released in any order: the list has no more executions than the limit, and an
    execution on it that is requested again (another node claimed it) keeps its place."""
    permits, n = Permits(), 0
    for count, back in steps:
        wanted = dict.fromkeys([*(f"e{n + i}" for i in range(count)), *sorted(permits.granted)], f"m{n}")
        n += count
        answer = grant(permits, Limits(None, most), wanted, 1000)
        assert len(answer.permits.granted) <= most
        assert permits.granted.keys() <= answer.at_ms.keys()
        assert {name: wanted[name] for name in answer.at_ms} == answer.permits.granted, "whatever it was before"
        permits = Permits(0.0, dict(sorted(answer.permits.granted.items())[back:]), permits.rev + 1)


def test_both_limits_hold_together() -> None:
    """Three at once and two a second: two now, the third half a second later, the fourth when one has ended."""
    answer = grant(Permits(), Limits(2, 3), with_ids("abcd"), 10_000)
    assert answer.at_ms == {"a": 10_000, "b": 10_500, "c": 11_000}
    assert answer.ask_again_ms is None
    assert answer.permits.granted == with_ids("abc")


@given(
    st.lists(st.tuples(st.sampled_from([0.001, 0.1, 2.0, 50.0]), st.integers(0, 3000), st.integers(0, 9)), max_size=40)
)
def test_a_rate_may_change_at_any_time(steps: list[tuple[float, int, int]]) -> None:
    """Rates that are raised and lowered: the distance of two instants is that of the fastest rate in between at least,
    and no execution waits for an instant that only an earlier rate explains."""
    permits, now, last, before = Permits(), 1_000_000, -1e9, 0.0
    for rate, pause, count in steps:
        now += pause
        answer = grant(permits, Limits(rate), with_ids(f"e{i}" for i in range(count)), now)
        before = max(rate, before)
        for at in sorted(answer.at_ms.values()):
            assert at - last >= 1000 / before - 1
            last, before = at, rate
        if answer.ask_again_ms is not None:
            assert answer.ask_again_ms <= now + 2 * HORIZON_MS + 1000 / rate
        permits = answer.permits
        # However slow it was, it is soon as fast as it may be now.
        waited, patient = now, permits
        for _ in range(9):
            one = grant(patient, Limits(50.0), with_ids("x"), waited)
            if one.at_ms:
                break
            patient, waited = one.permits, int(one.ask_again_ms or 0)
        assert one.at_ms
        assert one.at_ms["x"] <= now + 3 * HORIZON_MS


def test_a_rate_that_is_removed_limits_nothing() -> None:
    """The other limit, of requests at once, still holds."""
    slow = grant(Permits(), Limits(0.001), with_ids("a"), 10_000).permits
    answer = grant(slow, Limits(None, 2), with_ids("bcd"), 10_001)
    assert answer.at_ms == {"b": 10_001, "c": 10_001}


def test_a_job_counts_against_its_queues_limits_or_its_own() -> None:
    """Jobs with limits of their own share batches with other jobs until they have to wait."""
    assert limit_key_of("j", None, UNLIMITED) is None
    assert limit_key_of("j", None, Limits(1)) == "j:j"
    assert limit_key_of("j", "mail", UNLIMITED) == "q:mail"
    assert [batch_limit_key(g) for g in (None, "j:j", "q:mail")] == [None, None, "q:mail"]
