"""The executions that one node holds and has not sent: counted, withdrawn, dropped.

None is sent once the lease of its batch may have ended. None of this awaits: an execution that was found waiting is still
waiting when it is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.clock import Clock
    from cluster.core.execution.model import Execution
    from cluster.worker.held_batch import HeldBatch
    from cluster.worker.model import DroppedExecution
    from cluster.worker.record_queue import RecordQueue

log = structlog.get_logger()


class Unsent:
    """Every change of a `HeldBatch` that changes how many executions wait goes through here, so that `count` is right."""

    def __init__(self, clock: Clock, records: RecordQueue) -> None:
        self._clock = clock
        self._records = records
        self.count = 0
        self.lapsed_leases = 0
        """Batches whose lease ended here before their work was done, and before a renewal said so."""

    def add(self, held: HeldBatch) -> None:
        """A claim brought this batch."""
        self.count += len(held.waiting)

    def withdraw(self, held: HeldBatch) -> list[Execution]:
        """Take back all executions that wait; this node does not send them under this lease. Returns them."""
        taken = held.withdraw()
        self.count -= len(taken)
        return taken

    def move(self, held: HeldBatch, only: Iterable[Execution] | None) -> list[Execution]:
        """Executions that wait (of `only`) go to another batch; each is `recorded` when it is there. Returns them."""
        taken = held.move(only)
        self.count -= len(taken)
        return taken

    def start_sending(self, held: HeldBatch, execution_id: str) -> None:
        """An execution that waited is being sent from now on."""
        held.start(execution_id)
        self.count -= 1

    def drop(self, dropped: DroppedExecution) -> None:
        """An execution that waited must not be sent: the reason is recorded."""
        dropped.held.drop(dropped.execution.id)
        self.count -= 1
        self._records.add(dropped)

    def lose(self, held: HeldBatch) -> list[Execution]:
        """The lease has ended or is given up. Returns the executions that waited: the next owner sends them."""
        taken = held.lose()
        self.count -= len(taken)
        self._records.close_if_done(held)
        return taken

    def abandon(self, held: HeldBatch, execution_id: str) -> None:
        """Nothing will be recorded of this execution: the lease is given up, and the next owner decides."""
        self.count -= len(held.abandon(execution_id))
        self._records.close_if_done(held)

    def drop_if_lapsed(self, held: HeldBatch) -> bool:
        """If the lease may have ended, give the batch up for the next owner to send. Returns whether it may have ended."""
        if not held.lost:
            if self._clock.monotonic() < held.valid_until:
                return False
            log.warning("lease_lapsed", batch=held.batch.id, token=held.batch.token, unsent=len(held.waiting))
            self.lapsed_leases += 1
        self.lose(held)
        return True
