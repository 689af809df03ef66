"""The states of an execution: every state with every event."""

from __future__ import annotations

import itertools

import pytest

from cluster.core.errors import InvariantBroken
from cluster.core.lifecycle import (
    FINAL,
    OWED,
    SENT_FINAL,
    TRANSITIONS,
    Event,
    FinalResult,
    State,
    next_state,
    replaces,
)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_meets_every_event(state: State, event: Event) -> None:
    """A pair is either in the table or an error; nothing falls through."""
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(InvariantBroken, match=event.value):
            next_state(state, event)


def test_only_a_replay_leaves_a_final_state() -> None:
    """No other event leads out of a final state. A replay leads to a state that is owed."""
    for (state, event), then in TRANSITIONS.items():
        if state in FINAL:
            assert event is Event.REPLAY
            assert then in OWED


def test_every_owed_state_is_reachable_and_every_leased_one_can_end() -> None:
    """The table has no dead ends among the owed states."""
    for state in OWED:
        assert any(s is state for s, _ in TRANSITIONS)
    assert {TRANSITIONS[p] for p in TRANSITIONS if p[0] is State.LEASED} & FINAL == FINAL


RANKS = (
    {State.SUCCEEDED},
    {State.FAILED, State.DEAD},
    {State.SKIPPED, State.MISSED},
    {State.CANCELLED},
)
"""What replaces all that stands below it, whichever came first."""
PAIRS = list(itertools.product(sorted(FINAL), sorted(FINAL)))
WHEN = [("v1", 1), ("v1", 2), ("v1", 3), ("v2", 1), ("v2", 2), ("v2", 3)]


def rank(state: State) -> int:
    return next(n for n, states in enumerate(RANKS) if state in states)


@pytest.mark.parametrize(("new", "old"), PAIRS)
def test_a_success_is_never_replaced_and_replaces_all_else(new: State, old: State) -> None:
    """A failure replaces what has no result, and a skip or a miss, which only the owing version knows, a cancellation."""
    for version, ended_ms in WHEN:
        better = replaces(FinalResult(new, version, ended_ms), FinalResult(old, "v1", 2))
        if rank(new) != rank(old):
            assert better is (rank(new) < rank(old))
        elif old in SENT_FINAL:
            assert not better, "the first one stays"


@pytest.mark.parametrize(("new", "old"), [p for p in PAIRS if rank(p[0]) == rank(p[1]) and p[0] not in SENT_FINAL])
def test_of_two_ends_without_a_result_the_later_one_stays_if_another_version_owed_it(new: State, old: State) -> None:
    """Under one version the first stays. In whichever order the two are written, the same one is kept."""
    for version, ended_ms in WHEN:
        better = replaces(FinalResult(new, version, ended_ms), FinalResult(old, "v1", 2))
        assert better is ((version, ended_ms) == ("v2", 3))
    assert not replaces(FinalResult(old, "v1", 2), FinalResult(new, "v2", 3))
