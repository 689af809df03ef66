"""Limits as a rule: never more than so many a second, never more than so many at once, whoever asks and whoever dies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.documents.job_json import job_document, read_job
from cluster.core.errors import InvalidInput
from cluster.core.limits.permits import HORIZON_MS, UNLIMITED, Limits, Permits, batch_limit_key, grant, limit_key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

JOB = {"schedule": "@daily", "api": "https://a.example/"}


def marked(names: Iterable[str]) -> dict[str, str]:
    """Each under a mark of its own."""
    return {name: f"{name}'s" for name in names}


@given(
    st.sampled_from([0.5, 1.0, 3.0, 10.0, 250.0]),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 40), st.booleans()), max_size=40),
)
def test_no_second_has_more_instants_than_the_rate(rate: float, steps: list[tuple[int, int, bool]]) -> None:
    """Askers that come at any time and for any number, some of whom die with what they were given: every second that
    begins at an instant has at most `rate` of them, rounded up."""
    seen, now, given_out, n = Permits(), 1_000_000, [], 0
    for pause, count, dies in steps:
        now += pause
        wanted = [f"e{n + i}" for i in range(count)]
        n += count
        found = grant(seen, Limits(rate), marked(wanted), now)
        seen = found.permits
        assert all(now <= at <= now + HORIZON_MS + 1 for at in found.at_ms.values())
        assert list(found.at_ms) == wanted[: len(found.at_ms)], "in the order in which they wait"
        if len(found.at_ms) < count:
            assert found.ask_again_ms is not None
            assert found.ask_again_ms > now
        if not dies:
            given_out += list(found.at_ms.values())
    most = -(-rate // 1) if rate >= 1 else 1
    for at in given_out:
        assert sum(at <= other < at + 1000 for other in given_out) <= most


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_never_more_at_once_than_allowed(most: int, steps: list[tuple[int, int]]) -> None:
    """Permits that are asked for and given back in any order: no more names on the list than allowed, and whoever is
    on it and asks again (another node took its execution over) keeps its place."""
    seen, n = Permits(), 0
    for count, back in steps:
        wanted = dict.fromkeys([*(f"e{n + i}" for i in range(count)), *sorted(seen.granted)], f"m{n}")
        n += count
        found = grant(seen, Limits(None, most), wanted, 1000)
        assert len(found.permits.granted) <= most
        assert seen.granted.keys() <= found.at_ms.keys()
        assert {name: wanted[name] for name in found.at_ms} == found.permits.granted, "whatever it was before"
        seen = Permits(0.0, dict(sorted(found.permits.granted.items())[back:]), seen.rev + 1)


def test_both_limits_hold_together() -> None:
    """Three at once and two a second: two now, the third half a second later, the fourth when one has ended."""
    found = grant(Permits(), Limits(2, 3), marked("abcd"), 10_000)
    assert found.at_ms == {"a": 10_000, "b": 10_500, "c": 11_000}
    assert found.ask_again_ms is None
    assert found.permits.granted == marked("abc")


@given(
    st.lists(st.tuples(st.sampled_from([0.001, 0.1, 2.0, 50.0]), st.integers(0, 3000), st.integers(0, 9)), max_size=40)
)
def test_a_rate_that_changes(steps: list[tuple[float, int, int]]) -> None:
    """Under rates that are raised and lowered: no instant comes sooner after the one before than the fastest rate
    meanwhile allows, and nothing waits for an instant that only a rate of before explains."""
    seen, now, last, before = Permits(), 1_000_000, -1e9, 0.0
    for rate, pause, count in steps:
        now += pause
        found = grant(seen, Limits(rate), marked(f"e{i}" for i in range(count)), now)
        before = max(rate, before)
        for at in sorted(found.at_ms.values()):
            assert at - last >= 1000 / before - 1
            last, before = at, rate
        if found.ask_again_ms is not None:
            assert found.ask_again_ms <= now + 2 * HORIZON_MS + 1000 / rate
        seen = found.permits
        # However slow it was, it is soon as fast as it may be now.
        waited, patient = now, seen
        for _ in range(9):
            one = grant(patient, Limits(50.0), marked("x"), waited)
            if one.at_ms:
                break
            patient, waited = one.permits, int(one.ask_again_ms or 0)
        assert one.at_ms
        assert one.at_ms["x"] <= now + 3 * HORIZON_MS


def test_a_rate_that_is_taken_away() -> None:
    """What is left limits how many run at once and nothing else."""
    slow = grant(Permits(), Limits(0.001), marked("a"), 10_000).permits
    found = grant(slow, Limits(None, 2), marked("bcd"), 10_001)
    assert found.at_ms == {"b": 10_001, "c": 10_001}


def test_whose_limits_a_job_passes() -> None:
    """Its queue's; else its own, for which it shares batches with others until it has to wait; else none."""
    assert limit_key_of("j", None, UNLIMITED) is None
    assert limit_key_of("j", None, Limits(1)) == "j:j"
    assert limit_key_of("j", "mail", UNLIMITED) == "q:mail"
    assert [batch_limit_key(g) for g in (None, "j:j", "q:mail")] == [None, None, "q:mail"]


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"maxPerSecond": 0}, ["maxPerSecond"]),
        ({"maxPerSecond": -1, "maxConcurrent": 0}, ["maxPerSecond", "maxConcurrent"]),
        ({"maxConcurrent": 1.5}, ["maxConcurrent"]),
        ({"queue": "a b"}, ["queue"]),
        ({"queue": ""}, ["queue"]),
        ({"queue": "mail", "maxConcurrent": 1}, ["queue"]),
        ({"successCodes": []}, ["successCodes"]),
        ({"successCodes": [200, 200]}, ["successCodes"]),
        ({"successCodes": [199]}, ["successCodes.0"]),
        ({"successCodes": [200, "6xx"]}, ["successCodes.1"]),
        ({"successCodes": [True]}, ["successCodes.0"]),
        ({"retry": {"maxAgeSeconds": 0}}, ["retry.maxAgeSeconds"]),
    ],
)
def test_wrong_limits_are_named(fields: dict[str, object], paths: list[str]) -> None:
    """Each fault has its path and says what would be right."""
    with pytest.raises(InvalidInput) as caught:
        read_job({**JOB, **fields}, {})
    assert [f.path for f in caught.value.faults] == paths
    assert all("must" in f.message for f in caught.value.faults)


@pytest.mark.parametrize(
    "fields",
    [
        {"maxPerSecond": 0.5, "maxConcurrent": 2},
        {"queue": "mail.out-1"},
        {"successCodes": [200, "3xx", 404]},
        {"retry": {"maxAgeSeconds": 3600.0}},
    ],
)
def test_limits_read_as_they_were_written(fields: dict[str, object]) -> None:
    """A document made of the definition says the same again."""
    first = read_job({**JOB, **fields}, {}).resolve(None)
    shown = job_document(first, write_only=True)
    assert read_job(shown, {}).resolve(None) == first
    for name, value in fields.items():
        assert shown[name] == value or (isinstance(value, dict) and value.items() <= shown[name].items())
