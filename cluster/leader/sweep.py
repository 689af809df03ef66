"""The sweep: batches of silent nodes are released without reading a clock, and every owed execution has a batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.store import (
    batches,
    breakers,
    chain_links,
    deferred_batches,
    engine_jobs,
    executions,
    follow_ups,
    history,
    nodes,
)
from cluster.store.enqueue import repair_batches

if TYPE_CHECKING:
    from cluster.core.execution.model import Batch
    from cluster.leader.context import LeaderContext
    from cluster.leader.liveness import Liveness

log = structlog.get_logger()

ORPHANS_EVERY = 60.0
FORGET_NODE_AFTER = 600.0
"""The heartbeat document of a node that has been silent for so long (s) is deleted."""
BREAKER_EXPIRY_MS = 600_000
"""A breaker is closed when no node has wanted to probe its host for so long."""
BREAKERS_AT_ONCE = 20
TOMBSTONES_EVERY = 600.0
TOMBSTONES_AT_ONCE = 5000
TOMBSTONE_GRACE_MS = 3_600_000
"""Tombstones outlive the retention by this: what a job owed just before it was deleted may have been recorded later."""
BATCHES_REPAIRED_AT_ONCE = 1000
HOSTS_AT_ONCE = 500
"""Hosts deferred in one sweep; the others follow in the next, those that wait the longest first."""


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of one step: batches released, batches made late work, batches that were missing."""

    released: int = 0
    demoted: int = 0
    orphans: int = 0


@dataclass(frozen=True, slots=True)
class _WatchedBatch:
    """A batch as it was read, and when it was first read so (monotonic)."""

    batch: Batch
    since: float


class Sweeper:
    """The sweep of one leader."""

    def __init__(self, context: LeaderContext, liveness: Liveness) -> None:
        self._context = context
        self._db = context.db
        self._clock = context.clock
        self._liveness = liveness
        self._watched: dict[str, _WatchedBatch] = {}
        self._orphans_at = 0.0
        self._tombstones_at = float("-inf")
        self._links_trimmed_to = ""

    async def step(self) -> Swept:
        """One sweep."""
        self._context.trusted_term()
        released = await self._release_from_silent_nodes()
        await self._defer_blocked_hosts()
        demoted = 0 if self._clock.in_doubt else await deferred_batches.demote_overdue(self._db)
        if demoted:
            log.warning("batches_demoted", batches=demoted)
        orphans = 0
        now = self._clock.monotonic()
        if now - self._orphans_at > ORPHANS_EVERY:
            self._orphans_at = now
            orphans = await self.repair_orphans()
            await follow_ups.repair(self._db)
            await engine_jobs.forget_callbacks(self._db, self._clock.now_ms())
        if now - self._tombstones_at > TOMBSTONES_EVERY:
            await self.remove_tombstones()
        return Swept(released, demoted, orphans)

    async def remove_tombstones(self) -> int:
        """Delete the tombstones of jobs that were deleted before anything that is still within the retention."""
        days = self._context.retention_days
        before_ms = self._clock.now_ms() - int(days * history.DAY_MS) - TOMBSTONE_GRACE_MS
        removed = await engine_jobs.delete_tombstones(self._db, before_ms, TOMBSTONES_AT_ONCE, days)
        if removed:
            log.info("tombstones_removed", jobs=removed)
        trimmed = await chain_links.trim(self._db, self._clock.now_ms() - history.DAY_MS, self._links_trimmed_to)
        self._links_trimmed_to = trimmed.reached
        if removed < TOMBSTONES_AT_ONCE and not trimmed.reached:  # else there are more, for the next sweep
            self._tombstones_at = self._clock.monotonic()
        return removed

    async def _release_from_silent_nodes(self) -> int:
        """Release the batches of silent nodes that have not been renewed for a lease on this clock.

        That a node is silent is not enough: a node that was cut off, and is back, may have claimed a batch a moment
        before its first heartbeat. A node that trusts a lease has written it: a claim sets the token, a renewal
        `claimable_at`. So no node trusts a batch that was read twice, a lease apart, and is the same. The release
        filters on both fields once more.
        """
        now = self._clock.monotonic()
        lease = self._context.timings.batch_lease
        owners = await batches.owners(self._db)
        self._liveness.watch_owners(owners, now)
        watched: dict[str, _WatchedBatch] = {}
        for owner in owners & self._liveness.silent_nodes(now, lease / 3):
            for batch in await batches.owned_by(self._db, owner):
                before = self._watched.get(batch.id)
                if before is not None and before.batch == batch:
                    watched[batch.id] = before
                else:
                    watched[batch.id] = _WatchedBatch(batch, self._clock.monotonic())
        self._watched = watched
        released: Counter[str] = Counter()
        silent = self._liveness.silent_nodes(now, lease)
        for w in watched.values():
            if w.batch.owner in silent and now - w.since > lease and await batches.release_unrenewed(self._db, w.batch):
                released[w.batch.owner] += 1
        for owner, count in released.items():
            log.warning("node_silent", node=owner, released=count)
        for node in self._liveness.silent_nodes(now, FORGET_NODE_AFTER):
            await nodes.delete(self._db, node)
        return released.total()

    async def _defer_blocked_hosts(self) -> None:
        """Defer claimable batches of hosts whose breaker is open until the host may be tried again.

        These are a few operations, however many hosts are down: when this cluster's own network is broken, all hosts
        are, and the leader still has to materialise what comes due.
        """
        waiting = await deferred_batches.hosts_waiting(self._db, HOSTS_AT_ONCE)
        now = self._clock.now_ms()
        blocked = await breakers.of_hosts(self._db, waiting) if waiting else []
        until = {b.host: b.until_ms for b in blocked if b.until_ms > now}
        if until:
            await deferred_batches.defer_hosts(
                self._db, until, None if self._clock.in_doubt else self._context.timings.unclaimed_ms
            )
        for breaker in await breakers.expired_unprobed(self._db, now - BREAKER_EXPIRY_MS, BREAKERS_AT_ONCE):
            # The jobs of this host are gone. If another comes, its requests show whether the host answers.
            if await breakers.close(self._db, breaker):
                log.info("breaker_expired", host=breaker.host)

    async def repair_orphans(self) -> int:
        """Give owed executions whose batch does not exist a batch. Returns how many batches were missing.

        It is always 0, unless a writer died between its two inserts and no later pass repaired that.
        """
        named = await executions.count_by_batch(self._db)
        missing = set(named) - await batches.existing_ids(self._db, named)
        if not missing:
            return 0
        some = sorted(missing, key=str)[:BATCHES_REPAIRED_AT_ONCE]
        owed, unreadable = await executions.of_batches(self._db, some, BATCHES_REPAIRED_AT_ONCE * 10)
        if unreadable:  # no node can hold them, for there is no such batch
            retention_days = self._context.retention_days
            await history.insert_unreadable(self._db, unreadable, self._clock.now_ms(), retention_days)
            await follow_ups.owe_after_unreadable(self._db, unreadable)
            await executions.delete_unreadable(self._db, unreadable)
        repaired = await repair_batches(self._db, owed)
        if repaired:
            log.error("orphans_repaired", batches=repaired)
        return repaired
