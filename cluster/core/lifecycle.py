"""The states of an execution and the events between them, as one table. A pair that is not in the table is an error.

pending --claim--> leased --success--> succeeded
   ^                 |  `--refused---> failed
   |                 |  `--exhaust---> dead
   `----release------+  `--retry-----> retrying --claim--> leased
leased --cancel--> cancelled; leased --skip--> skipped; leased --miss--> missed
(never materialised) --catch-up--> missed
failed, dead, cancelled --replay--> retrying
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cluster.core.errors import InvariantBroken


class JobState(StrEnum):
    """The state of a job, as stored. Users never see `deleted`."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    DELETED = "deleted"


class State(StrEnum):
    """The state of an execution, as stored. Users see `leased` as `running` from its send time on."""

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
    """An event in the life of an execution."""

    CLAIM = "claim"
    RELEASE = "release"
    SUCCESS = "success"
    REFUSED = "refused"
    RETRY = "retry"
    EXHAUST = "exhaust"
    CANCEL = "cancel"
    SKIP = "skip"
    MISS = "miss"
    REPLAY = "reopen"


STATE_TEXT = {state: state.value for state in State}
"""Each state as it is stored. To ask a member of an enumeration for its value takes ten times as long."""
OWED = frozenset({State.PENDING, State.LEASED, State.RETRYING})
FINAL = frozenset(State) - OWED
SENT_FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.DEAD})
"""Final after at least one attempt was made. Only a replay sends such an occurrence again."""

REPLAYABLE = (State.FAILED, State.DEAD, State.CANCELLED)
"""The final states that a replay leaves."""

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.CLAIM): State.LEASED,
    (State.RETRYING, Event.CLAIM): State.LEASED,
    (State.LEASED, Event.CLAIM): State.LEASED,  # the lease of a dead node expired
    (State.LEASED, Event.RELEASE): State.PENDING,
    (State.LEASED, Event.SUCCESS): State.SUCCEEDED,
    (State.LEASED, Event.REFUSED): State.FAILED,
    (State.LEASED, Event.RETRY): State.RETRYING,
    (State.LEASED, Event.EXHAUST): State.DEAD,
    (State.LEASED, Event.CANCEL): State.CANCELLED,
    (State.LEASED, Event.SKIP): State.SKIPPED,
    (State.LEASED, Event.MISS): State.MISSED,
    (State.FAILED, Event.REPLAY): State.RETRYING,
    (State.DEAD, Event.REPLAY): State.RETRYING,
    (State.CANCELLED, Event.REPLAY): State.RETRYING,
}


def next_state(state: State, event: Event) -> State:
    """The state after the event. Raises `InvariantBroken` for a pair that the table does not have."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvariantBroken(f"event {event} is impossible for an execution that is {state}") from None


FINAL_RANK = {
    State.SUCCEEDED: 3,
    State.FAILED: 2,
    State.DEAD: 2,
    State.SKIPPED: 1,
    State.MISSED: 1,
    State.CANCELLED: 0,
}


@dataclass(frozen=True, slots=True)
class FinalResult:
    """Of a final result, what decides whether it replaces another one of its execution."""

    state: State
    schedule_version: str
    ended_ms: int


def replaces(new: FinalResult, old: FinalResult) -> bool:
    """Whether a second final result replaces the first.

    A success replaces a failure, and both replace an end without a result. Only the schedule version that owed an occurrence
    skips or misses it; any version may cancel it, also late, one that had ended before it was due. So a skip and a miss
    replace a cancellation. Of two cancellations, or of a skip and a miss, the later one replaces the other if it ended under
    another schedule version, which owed the occurrence again. Otherwise the first result stays.
    """
    rank = FINAL_RANK[old.state]
    if FINAL_RANK[new.state] != rank:
        return FINAL_RANK[new.state] > rank
    sent = rank >= FINAL_RANK[State.FAILED]
    return not sent and new.schedule_version != old.schedule_version and new.ended_ms > old.ended_ms
