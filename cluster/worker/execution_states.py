"""The way of one execution through the dispatcher, as a table: the states it can be in on its node, and what follows them.

Nothing is kept for this table while the node works: the state of an execution is the place where it is. `waiting`,
`sending` and `unrecorded` are stages of its `HeldBatch`; the others are places for executions of the stage `waiting`.
`tests/worker/test_execution_states.py` walks real dispatchers through the table, and the simulation checks every step of
whole workers against it, so a new way through the dispatcher has to be entered here.

| state | place | left when |
|---|---|---|
| waiting | `HeldBatch.waiting`, and in no queue | shortly before the send time its job is read |
| ready | `RunQueue`, for an instant: the send time, or that of a permit | the instant has come and a slot is free |
| deferred | `HostQueues`: its breaker is open, or its host has no slot | the host may get another request |
| asking | `LimitQueues`: its limit has given no permit yet | a permit is there |
| stale | `Preparer`: its job was read too long ago | the job is read again |
| paused | `PausedExecutions`: its job is paused, or a window holds it | it is released, within a second |
| probing | a task of `ProbeLottery` that asks to be the one probe of all nodes | the probe is won or not |
| sending | `HeldBatch.sending`: it holds a slot | the target answered, or not in time |
| unrecorded | `HeldBatch.unrecorded`: a result in `RecordQueue`, or a move | its record is written |
| closed | nowhere on this node | |
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from cluster.worker.held_batch import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExecutionState(StrEnum):
    """Where an execution of a leased batch is on its node."""

    WAITING = "waiting"
    READY = "ready"
    DEFERRED = "deferred"
    ASKING = "asking"
    STALE = "stale"
    PAUSED = "paused"
    PROBING = "probing"
    SENDING = "sending"
    UNRECORDED = "unrecorded"
    CLOSED = "closed"

    @property
    def stage(self) -> Stage:
        """The stage in the life of its batch that this state belongs to."""
        return Stage(self.value) if self.value in _STAGES else Stage.WAITING


_STAGES = frozenset(stage.value for stage in Stage)

_LEFT_BEHIND = frozenset({ExecutionState.UNRECORDED, ExecutionState.CLOSED})
"""From every state of the stage `waiting`: released or dropped (unrecorded), withdrawn or lost with its lease (closed)."""

NEXT: Mapping[ExecutionState, frozenset[ExecutionState]] = {
    ExecutionState.WAITING: _LEFT_BEHIND | {ExecutionState.READY, ExecutionState.PAUSED},
    ExecutionState.READY: _LEFT_BEHIND
    | {
        ExecutionState.READY,  # its permit is for a later instant
        ExecutionState.DEFERRED,
        ExecutionState.ASKING,
        ExecutionState.STALE,
        ExecutionState.PROBING,
        ExecutionState.SENDING,
    },
    ExecutionState.DEFERRED: _LEFT_BEHIND
    | {
        ExecutionState.READY,  # it was drawn to be the probe of its host
        ExecutionState.DEFERRED,
        ExecutionState.ASKING,
        ExecutionState.STALE,
        ExecutionState.PROBING,
        ExecutionState.SENDING,
    },
    ExecutionState.ASKING: _LEFT_BEHIND | {ExecutionState.READY},
    ExecutionState.STALE: _LEFT_BEHIND | {ExecutionState.READY, ExecutionState.PAUSED},
    ExecutionState.PAUSED: _LEFT_BEHIND,
    ExecutionState.PROBING: _LEFT_BEHIND | {ExecutionState.DEFERRED, ExecutionState.SENDING},
    ExecutionState.SENDING: _LEFT_BEHIND,
    ExecutionState.UNRECORDED: frozenset({ExecutionState.CLOSED}),
    ExecutionState.CLOSED: frozenset(),
}
"""What may follow each state. An execution that is claimed again is another one here, under another `HeldBatch`."""
