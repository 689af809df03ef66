"""What one node holds and has not sent yet: counted, given up, dropped. Nothing of it is sent once its lease may have ended.

None of this awaits: an execution that was found waiting is still waiting when it is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.clock import Clock
    from cluster.core.execution.model import Execution
    from cluster.worker.leases import DroppedExecution, HeldBatch

log = structlog.get_logger()


class Unsent:
    """The executions that wait on one node. `dropped` and `forgotten` are told what becomes of them."""

    def __init__(
        self, clock: Clock, dropped: Callable[[DroppedExecution], None], forgotten: Callable[[HeldBatch], None]
    ) -> None:
        self._clock = clock
        self._dropped = dropped
        self._forgotten = forgotten
        self.count = 0
        self.lapsed_leases = 0
        """Batches whose lease ended here before their work was done, and before a renewal said so."""

    def add(self, held: HeldBatch, executions: Iterable[Execution]) -> None:
        """Take on what a claim brought."""
        held.waiting.update((e.id, e) for e in executions)
        self.count += len(held.waiting)

    def withdraw(self, held: HeldBatch, only: Iterable[Execution] | None = None) -> list[Execution]:
        """Take back what has not been sent of a batch; it will not be sent by this node under this lease."""
        wanted = list(held.waiting.values()) if only is None else only
        taken = [e for e in wanted if held.waiting.pop(e.id, None) is not None]
        self.count -= len(taken)
        return taken

    def start_sending(self, held: HeldBatch, execution_id: str) -> None:
        """One that waits is being sent from now on."""
        del held.waiting[execution_id]
        held.sending.add(execution_id)
        self.count -= 1

    def drop(self, dropped: DroppedExecution) -> None:
        """One must not be sent: all that is left is to record why."""
        if dropped.held.waiting.pop(dropped.execution.id, None) is not None:
            self.count -= 1
        dropped.held.unrecorded += 1
        self._dropped(dropped)

    def drop_if_lapsed(self, held: HeldBatch) -> bool:
        """Whether the lease may have ended; what is unsent is dropped then, for whoever claims it next."""
        if held.lost or self._clock.monotonic() >= held.valid_until:
            if not held.lost:
                log.warning("lease_lapsed", batch=held.batch.id, token=held.batch.token, unsent=len(held.waiting))
                self.lapsed_leases += 1
            held.lost = True
            self.withdraw(held)
            if held.done:
                self._forgotten(held)
            return True
        return False
