"""The states of an execution: every state with every event."""

from __future__ import annotations

import itertools

import pytest

from cluster.core.errors import InvariantBroken
from cluster.core.lifecycle import (
    FINAL,
    FINAL_RANK,
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


@pytest.mark.parametrize(("new", "old"), list(itertools.product(sorted(FINAL), sorted(FINAL))))
def test_a_success_is_never_replaced_and_replaces_all_else(new: State, old: State) -> None:
    """The first final result stays, except that a success replaces a failure, and a result with an attempt one without."""
    for version, ended_ms in (("v1", 1), ("v1", 2), ("v1", 3), ("v2", 1), ("v2", 2)):
        better = replaces(FinalResult(new, version, ended_ms), FinalResult(old, "v1", 2))
        if old is State.SUCCEEDED or new is old:
            assert not better
        elif new is State.SUCCEEDED:
            assert better
        else:
            assert better is (FINAL_RANK[new] > FINAL_RANK[old])


@pytest.mark.parametrize(("new", "old"), list(itertools.product(sorted(FINAL), sorted(FINAL))))
def test_a_later_result_under_another_schedule_version_replaces_only_one_that_was_not_sent(
    new: State, old: State
) -> None:
    """Cancelled, skipped and missed are final only for one schedule version; of two such, the one that ended last stays."""
    unsent = FINAL - SENT_FINAL
    first, second = FinalResult(old, "v1", 2), FinalResult(new, "v2", 3)
    assert replaces(second, first) is (FINAL_RANK[new] > FINAL_RANK[old] or {new, old} <= unsent)
    if {new, old} <= unsent:
        assert not replaces(first, second), "the same results in any order leave the same record"
