"""A leased batch on its node, and the life of each of its executions under that lease, as one table.

An execution of a leased batch is in one stage at a time. `LIFE` is the whole law of it: a pair of stage and event that is
missing from the table is a bug and raises `KeyError`. The methods of `HeldBatch` are the events; no other code writes a
field of it. Check and act on a `HeldBatch` without an `await` in between. Nothing here reads a clock or the database.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from cluster.core.execution.model import Batch, Execution


class Stage(StrEnum):
    """Where an execution of a held batch is."""

    WAITING = "waiting"
    """Not sent yet; its request may be ready, or wait for its host or its limit (see `execution_states`)."""
    SENDING = "sending"
    """It holds a slot of the node; its request leaves now or is in flight."""
    UNRECORDED = "unrecorded"
    """Its result or its move to another batch is being written. The batch must not be deleted before that."""
    CLOSED = "closed"
    """This batch has nothing more to do with it."""


LIFE: Mapping[tuple[Stage, str], Stage] = {
    (Stage.WAITING, "start"): Stage.SENDING,
    (Stage.WAITING, "drop"): Stage.UNRECORDED,
    (Stage.WAITING, "move"): Stage.UNRECORDED,
    (Stage.WAITING, "withdraw"): Stage.CLOSED,
    (Stage.WAITING, "lose"): Stage.CLOSED,
    (Stage.SENDING, "finish"): Stage.UNRECORDED,
    (Stage.SENDING, "abandon"): Stage.CLOSED,
    (Stage.SENDING, "move"): Stage.SENDING,
    (Stage.SENDING, "withdraw"): Stage.SENDING,
    (Stage.SENDING, "lose"): Stage.SENDING,
    (Stage.UNRECORDED, "recorded"): Stage.CLOSED,
    (Stage.UNRECORDED, "abandon"): Stage.CLOSED,
    (Stage.UNRECORDED, "move"): Stage.UNRECORDED,
    (Stage.UNRECORDED, "withdraw"): Stage.UNRECORDED,
    (Stage.UNRECORDED, "lose"): Stage.UNRECORDED,
    (Stage.CLOSED, "recorded"): Stage.CLOSED,
    (Stage.CLOSED, "abandon"): Stage.CLOSED,
    (Stage.CLOSED, "move"): Stage.CLOSED,
    (Stage.CLOSED, "withdraw"): Stage.CLOSED,
    (Stage.CLOSED, "lose"): Stage.CLOSED,
}
"""`move` and `withdraw` leave executions as they are that do not wait: they may have been sent since they were chosen. `recorded` may be
repeated, as the writes before it may. An execution that was sent outlives the loss of the lease: its result is recorded."""


class HeldBatch:
    """A batch that this node holds. All executions that the claim brought begin as `waiting`."""

    __slots__ = (
        "__weakref__",
        "_lost",
        "_sending",
        "_unrecorded",
        "_valid_until",
        "_waiting",
        "attempt_bytes",
        "batch",
        "body_bytes",
        "claimed_ms",
    )

    def __init__(self, batch: Batch, valid_until: float, executions: Iterable[Execution], claimed_ms: int = 0) -> None:
        self.batch = batch
        self.claimed_ms = claimed_ms
        """When it was claimed, in cluster time."""
        self._valid_until = valid_until
        self._lost = False
        self._waiting = {e.id: e for e in executions}
        self.attempt_bytes = sum(
            len(a.excerpt or "") + len(a.detail or "") for e in self._waiting.values() for a in e.attempts
        )
        """About how much memory the answers to earlier attempts take up, which are recorded with the next one."""
        self.body_bytes = sum(
            len(e.message.get("body") or b"") for e in self._waiting.values() if e.message is not None
        )
        """About how much memory the bodies of its messages take up while they wait."""
        self._sending: set[str] = set()
        self._unrecorded: set[str] = set()

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> Mapping[str, Execution]:
        """The executions that have not been sent, by id."""
        return self._waiting

    @property
    def sending(self) -> AbstractSet[str]:
        """Ids of the executions that hold a slot."""
        return self._sending

    @property
    def unrecorded(self) -> AbstractSet[str]:
        """Ids of the executions of which something is still to be written under this batch."""
        return self._unrecorded

    @property
    def lost(self) -> bool:
        """Whether the lease is known to be lost, or was given up."""
        return self._lost

    @property
    def valid_until(self) -> float:
        """Until when the lease is valid on this node: monotonic seconds, the margin taken off."""
        return self._valid_until

    @property
    def done(self) -> bool:
        """Whether nothing of it is open."""
        return not self._waiting and not self._sending and not self._unrecorded

    @property
    def untouched(self) -> bool:
        """Whether every execution that the batch lists still waits."""
        return len(self._waiting) == len(self.batch.ids) and not self._sending and not self._unrecorded

    def stage(self, execution_id: str) -> Stage:
        """Where this execution is."""
        if execution_id in self._waiting:
            return Stage.WAITING
        if execution_id in self._sending:
            return Stage.SENDING
        return Stage.UNRECORDED if execution_id in self._unrecorded else Stage.CLOSED

    # -- events of one execution ---------------------------------------------------------------------------------

    def start(self, execution_id: str) -> None:
        """It has a slot and is being sent from now on."""
        del self._waiting[execution_id]
        self._sending.add(execution_id)

    def finish(self, execution_id: str) -> None:
        """Its request has ended, or was not made after all: its result is to be recorded."""
        self._sending.remove(execution_id)
        self._unrecorded.add(execution_id)

    def drop(self, execution_id: str) -> None:
        """It must not be sent: the reason is to be recorded."""
        del self._waiting[execution_id]
        self._unrecorded.add(execution_id)

    def recorded(self, execution_id: str) -> None:
        """Everything about it is written."""
        if execution_id in self._unrecorded:
            self._unrecorded.remove(execution_id)
        elif self.stage(execution_id) is not Stage.CLOSED:
            raise KeyError(execution_id)

    def abandon(self, execution_id: str) -> list[Execution]:
        """Nothing will be written about it, so only the end of the lease can help it: the lease is given up with it.

        It may be closed already, when what came after its record has failed. Returns the executions that waited, as
        `lose` does.
        """
        if self.stage(execution_id) is Stage.WAITING:
            raise KeyError(execution_id)
        self._sending.discard(execution_id)
        self._unrecorded.discard(execution_id)
        return self.lose()

    # -- events of the batch -------------------------------------------------------------------------------------

    def renewed(self, valid_until: float) -> None:
        """The lease was extended."""
        self._valid_until = valid_until

    def lose(self) -> list[Execution]:
        """The lease has ended or is given up. Returns the executions that waited: the next owner sends them."""
        self._lost = True
        return self.withdraw()

    def withdraw(self, only: Iterable[Execution] | None = None) -> list[Execution]:
        """Take out executions that wait (of `only`); this node does not send them under this lease. Returns them."""
        wanted = list(self._waiting.values()) if only is None else only
        return [e for e in wanted if self._waiting.pop(e.id, None) is not None]

    def move(self, only: Iterable[Execution] | None = None) -> list[Execution]:
        """Executions that wait (of `only`) go to another batch, and are unrecorded until they are there. Returns them."""
        taken = self.withdraw(only)
        self._unrecorded.update(e.id for e in taken)
        return taken


class HeldBatches(dict[str, HeldBatch]):
    """The batches that one node holds, by id."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = asyncio.Event()

    def add(self, held: HeldBatch) -> None:
        """It is held from now on."""
        self[held.batch.id] = held
        self.end_rest()

    def until_held(self) -> asyncio.Event:
        """For loops that have nothing to do while the node holds nothing, as now: what to wait for, the next batch."""
        self._arrived.clear()
        return self._arrived

    def end_rest(self) -> None:
        """Loops that wait for a batch have something to do."""
        self._arrived.set()

    def count_due(self, now_ms: int) -> int:
        """How many executions are due at this instant (cluster time) and wait."""
        return sum(len(held.waiting) for held in self.values() if held.batch.send_ms <= now_ms)

    def forget(self, held: HeldBatch) -> None:
        """It is not held any more. A later claim of the same batch stays."""
        if self.get(held.batch.id) is held:
            del self[held.batch.id]
