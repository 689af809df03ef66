"""Small pure rules: life of an execution, verdicts, back-off, ids, timings, lanes, histograms."""

from __future__ import annotations

import itertools

import pytest

from cluster.core.errors import InvariantBroken
from cluster.core.execution.model import RetryPolicy
from cluster.core.execution.verdict import Verdict, expand_codes, next_retry, round_up_to_grain, verdict_of
from cluster.core.histogram import BOUNDS_MS, Histogram
from cluster.core.ids import execution_id, lane_of, parse_execution_id, spread_ms, trigger_due_ms
from cluster.core.lifecycle import FINAL, FINAL_RANK, OWED, TRANSITIONS, Event, State, next_state, replaces
from cluster.core.timings import Timings, timing_problems


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_meets_every_event(state: State, event: Event) -> None:
    """A pair is either in the table or an error; nothing falls through."""
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(InvariantBroken, match=event.value):
            next_state(state, event)


def test_final_states_are_left_only_by_asking_again() -> None:
    """No event but `reopen` leads out of a final state, and it leads to one that is owed."""
    for (state, event), then in TRANSITIONS.items():
        if state in FINAL:
            assert event is Event.REPLAY
            assert then in OWED


def test_every_owed_state_is_reachable_and_every_leased_one_can_end() -> None:
    """The table has no dead ends among what is owed."""
    for state in OWED:
        assert any(s is state for s, _ in TRANSITIONS)
    assert {TRANSITIONS[p] for p in TRANSITIONS if p[0] is State.LEASED} & FINAL == FINAL - {State.MISSED}


@pytest.mark.parametrize(("new", "old"), list(itertools.product(sorted(FINAL), sorted(FINAL))))
def test_a_success_is_never_replaced_and_replaces_all_else(new: State, old: State) -> None:
    """The first final result stays, except that a success replaces a failure and what was sent what was not."""
    if old is State.SUCCEEDED or new is old:
        assert not replaces(new, old)
    elif new is State.SUCCEEDED:
        assert replaces(new, old)
    else:
        assert replaces(new, old) is (FINAL_RANK[new] > FINAL_RANK[old])


@pytest.mark.parametrize("status", range(100, 600))
def test_verdict_of_every_status(status: int) -> None:
    """2xx succeeds; 408, 425, 429 and 5xx are tried again; 410 is gone for good; all else is refused at once."""
    expected = Verdict.REFUSED
    if 200 <= status <= 299:
        expected = Verdict.SUCCESS
    elif status in (408, 425, 429) or status >= 500:
        expected = Verdict.RETRY
    elif status == 410:
        expected = Verdict.GONE
    assert verdict_of(status, None) is expected
    # A job's own codes say what success is, and nothing else changes: what was a success is then like any answer.
    own = expand_codes(("2xx", 404, 410, 503))
    assert verdict_of(status, None, own) is (Verdict.SUCCESS if status in (404, 410, 503) else expected)
    other = expand_codes((202,))
    without = Verdict.REFUSED if expected is Verdict.SUCCESS else expected
    assert verdict_of(status, None, other) is (Verdict.SUCCESS if status == 202 else without)


@pytest.mark.parametrize(
    "error", ["dns", "connect", "tls", "timeout", "stalled", "reset", "too_large", "protocol", "other"]
)
def test_no_answer_is_tried_again(error: str) -> None:
    """A failure to get an answer says nothing about the next time."""
    assert verdict_of(None, error) is Verdict.RETRY


def test_a_denied_address_is_refused_at_once() -> None:
    """The guard's answer does not change with time."""
    assert verdict_of(None, "denied") is Verdict.REFUSED


@pytest.mark.parametrize("made", range(1, 12))
@pytest.mark.parametrize("luck", [0.0, 0.5, 0.999])
def test_backoff_grows_within_its_jitter_and_its_limit(made: int, luck: float) -> None:
    """The delay after n attempts is initial x multiplier^(n-1), at most the maximum, give or take the jitter."""
    retry = RetryPolicy(max_attempts=20, initial_delay_seconds=1, multiplier=2, max_delay_seconds=60, jitter=0.2)
    again = next_retry(retry, made, jitter=luck)
    assert again is not None
    nominal = min(2 ** (made - 1), 60) * 1000
    assert nominal * 0.8 - 1 <= again.delay_ms <= nominal * 1.2


def test_attempts_are_used_up() -> None:
    """After `max_attempts` attempts there is no next."""
    assert next_retry(RetryPolicy(max_attempts=3), 2, jitter=0.5) is not None
    assert next_retry(RetryPolicy(max_attempts=3), 3, jitter=0.5) is None


def test_retry_after_lengthens_up_to_the_limit_and_never_shortens() -> None:
    """A target may ask for more patience, within what the job allows."""
    retry = RetryPolicy(max_delay_seconds=30, jitter=0)
    for asked, expected in ((0.0, 1000), (10.0, 10_000), (9999.0, 30_000)):
        again = next_retry(retry, 1, jitter=0.5, retry_after_seconds=asked)
        assert again is not None
        assert again.delay_ms == expected


def test_huge_attempt_numbers_do_not_overflow() -> None:
    """Back-off stays finite for any number of attempts."""
    again = next_retry(RetryPolicy(max_attempts=10**6, multiplier=100), 5000, jitter=0.5)
    assert again is not None
    assert again.delay_ms <= 300_000 * 1.2


def test_retries_share_a_grain() -> None:
    """Rounded up to 250 ms, never into the past."""
    assert [round_up_to_grain(t) for t in (0, 1, 249, 250, 251)] == [0, 250, 250, 250, 500]


def test_execution_ids_round_trip_and_sort_by_time() -> None:
    """13 digits keep lexical and temporal order the same."""
    ids = [execution_id("a-b_C", t) for t in (0, 999, 1795651200000, 9999999999999)]
    assert ids == sorted(ids)
    assert [parse_execution_id(i) for i in ids] == [("a-b_C", t) for t in (0, 999, 1795651200000, 9999999999999)]


@pytest.mark.parametrize(
    "text", ["", "a", "a:1", "a:12345678901234", "a b:1795651200000", ":1795651200000", "a:١٧٩٥٦٥١٢٠٠٠٠٠"]
)
def test_other_texts_are_no_execution_ids(text: str) -> None:
    """A wrong id is told apart before the database is asked."""
    assert parse_execution_id(text) is None


def test_names_are_stable_for_ever() -> None:
    """Lanes and spreads must not change between releases: they decide ids of stored documents."""
    assert lane_of("Example.com:443") == lane_of("example.com:443") == 32
    assert spread_ms("nightly", 60) == 6000
    assert spread_ms("nightly", 0) == 0


def test_triggered_runs_never_take_a_whole_second() -> None:
    """Whole seconds belong to the schedules."""
    assert trigger_due_ms(1795651200000) == 1795651200001
    assert trigger_due_ms(1795651200123) == 1795651200123


def test_the_default_timings_are_safe() -> None:
    """What is shipped keeps its own inequalities."""
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
    """An operator reads which setting is wrong and against what."""
    assert any(words in p for p in timing_problems(timings))


def test_histograms_merge_and_answer() -> None:
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
