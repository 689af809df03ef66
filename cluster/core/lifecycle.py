"""The life of an execution: one table. A pair that is not in it is an error.

pending --claim--> leased --send ok--> succeeded
   ^                 |  `--refused----> failed
   |                 |  `--used up----> dead
   `--move/release---+  `--retry------> retrying --claim--> leased
pending, leased, retrying --not to be sent--> cancelled | skipped; --cannot be sent--> dead
(never materialised) --catch-up--> missed
failed, dead --asked again--> retrying
"""

from __future__ import annotations

from enum import StrEnum

from cluster.core.errors import InvariantBroken


class JobState(StrEnum):
    """Job states as stored; `deleted` is never shown."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    DELETED = "deleted"


class State(StrEnum):
    """Execution states as stored. `leased` reads as `running` outside once its send time has come."""

    PENDING = "pending"
    LEASED = "leased"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"


class Event(StrEnum):
    """What can happen to an execution."""

    CLAIM = "claim"
    RELEASE = "release"
    SUCCESS = "success"
    REFUSED = "refused"
    RETRY = "retry"
    EXHAUST = "exhaust"
    CANCEL = "cancel"
    SKIP = "skip"
    REPLAY = "reopen"


OWED = frozenset({State.PENDING, State.LEASED, State.RETRYING})
FINAL = frozenset(State) - OWED
SENT_FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.DEAD})
"""Final after at least one attempt left this cluster: such an occurrence is never sent again unless asked for."""

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.CLAIM): State.LEASED,
    (State.RETRYING, Event.CLAIM): State.LEASED,
    (State.LEASED, Event.CLAIM): State.LEASED,  # the lease of a dead node ran out
    (State.LEASED, Event.RELEASE): State.PENDING,
    (State.LEASED, Event.SUCCESS): State.SUCCEEDED,
    (State.LEASED, Event.REFUSED): State.FAILED,
    (State.LEASED, Event.RETRY): State.RETRYING,
    (State.LEASED, Event.EXHAUST): State.DEAD,
    (State.LEASED, Event.CANCEL): State.CANCELLED,
    (State.LEASED, Event.SKIP): State.SKIPPED,
    (State.FAILED, Event.REPLAY): State.RETRYING,
    (State.DEAD, Event.REPLAY): State.RETRYING,
}


def next_state(state: State, event: Event) -> State:
    """The state that follows; raises `InvariantBroken` for a pair that cannot happen."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvariantBroken(f"an execution that is {state} cannot {event}") from None


FINAL_RANK = {
    State.SUCCEEDED: 2,
    State.FAILED: 1,
    State.DEAD: 1,
    State.CANCELLED: 0,
    State.SKIPPED: 0,
    State.MISSED: 0,
}


def replaces(new: State, old: State) -> bool:
    """Whether a second final result takes the place of the first.

    The first stays, except that what was sent replaces what was not, and a success replaces a failure.
    """
    return FINAL_RANK[new] > FINAL_RANK[old]
