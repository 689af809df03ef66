"""One step: lease a batch, fence its executions, leave out what is final already. Claim and reclaim are one query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import FIRST_TOKEN
from cluster.store import batches, executions, follow_ups, history
from cluster.store.enqueue import repair_batches

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.core.execution.model import Batch, Execution
    from cluster.core.timings import Timings
    from cluster.store.batches import ClaimFilter
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

SPLIT_AFTER = 5
"""A batch claimed more often than this is split, so that one request that kills its node does not take others along."""
SUSPECT_AFTER = 7
"""A node holds at most one batch claimed more often than this, so that only the request that crashes nodes is given up."""
GIVE_UP_AFTER = 10
MAX_REBUILT = 10_000


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch that this node holds until `valid_until` (monotonic seconds, margin taken off), with its owed executions."""

    batch: Batch
    executions: tuple[Execution, ...]
    valid_until: float
    unreadable: dict[str, str] = field(default_factory=dict)
    """Executions of the batch whose documents cannot be read, and why."""

    @property
    def must_split(self) -> bool:
        """Whether its executions must go on in batches of their own."""
        return self.batch.claims > SPLIT_AFTER and len(self.executions) > 1

    @property
    def suspect(self) -> bool:
        """Whether its node may hold no other suspect beside it."""
        return self.batch.claims > SUSPECT_AFTER

    @property
    def must_give_up(self) -> bool:
        """Whether too many nodes were lost while they held its one execution."""
        return self.batch.claims > GIVE_UP_AFTER and len(self.executions) == 1


class Claimer:
    """Claims for one node."""

    def __init__(self, db: Database, clock: Clock, timings: Timings, owner: str) -> None:
        self._db = db
        self._clock = clock
        self._timings = timings
        self._owner = owner

    async def step(self, which: ClaimFilter) -> ClaimedBatch | None:
        """Claim one batch; None if there is none. Raises `StoreUnavailable`: the batch may carry this node's name then."""
        started = self._clock.monotonic()
        lease = self._timings.batch_lease
        try:
            batch = await batches.claim(self._db, self._owner, lease, which, lease / 2)
        except StoreUnavailable:
            raise
        except Exception as exc:  # the query has no other way to fail, so a document must be at fault
            if not await self._rebuild_corrupt(exc):
                raise
            return None
        if batch is None:
            return None
        if batch.claims > 1:
            log.info("batch_reclaimed", batch=batch.id, token=batch.token, claims=batch.claims, size=len(batch.ids))
        owed, unreadable, stamped = await self._own(batch)
        if batch.claims > 1:
            # Its last owner may have died inside a move: the batch that its executions went to must exist.
            await repair_batches(self._db, [e for e in owed.values() if e.batch != batch.id], batch.claims)
        final = await history.final_ids(self._db, {e.id: e.schedule_version for e in stamped})
        if final:
            # Who ended them may have died before it wrote what follows them.
            await follow_ups.owe_after(self._db, [e for e in stamped if e.id in final])
            await executions.delete_final(self._db, {(batch.id, batch.token): sorted(final)})
            log.info("executions_already_final", batch=batch.id, executions=len(final))
        return ClaimedBatch(
            batch=batch,
            executions=tuple(e for e in stamped if e.id not in final),
            valid_until=started + lease - self._timings.margin,
            unreadable=unreadable,
        )

    async def _own(self, batch: Batch) -> tuple[dict[str, Execution], dict[str, str], list[Execution]]:
        """The owed executions that the batch lists, why others cannot be read, and those that this claim owns.

        What is claimed for the first time was written under the token of that claim, and is owned without a stamp: this
        spares the dearest part of a claim. It is fenced all the same, because no other claim of the batch has this token.
        """
        if batch.token == FIRST_TOKEN:
            owed, unreadable = await executions.read_owed(self._db, batch.ids)
            listed = [e for e in owed.values() if e.batch == batch.id]
            if all(e.is_of_first_claim for e in listed):
                return owed, unreadable, [e.leased_by(self._owner) for e in listed]
        await executions.stamp(self._db, batch.ids, batch.id, self._owner, batch.token)
        owed, unreadable = await executions.read_owed(self._db, batch.ids)
        return owed, unreadable, [e for e in owed.values() if e.batch == batch.id and e.token == batch.token]

    async def _rebuild_corrupt(self, exc: Exception) -> bool:
        """Delete batches that cannot be claimed or read, and make them again from the executions that name them."""
        corrupt = await batches.delete_corrupt(self._db)
        if corrupt:
            log.error("batches_corrupt", batches=corrupt, error=str(exc)[:200])
            owed, _ = await executions.of_batches(self._db, corrupt, MAX_REBUILT)
            await repair_batches(self._db, owed, claims=1)  # nothing says any more whether it was claimed
        return bool(corrupt)
