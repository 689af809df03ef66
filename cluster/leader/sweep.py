"""The sweep: what dead nodes held is freed without reading a clock, and nothing owed stays without a batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.store import batches, breakers, deferred_batches, engine_jobs, executions, history, nodes, schedules
from cluster.store.enqueue import repair_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.clock import Clock
    from cluster.core.execution.model import Batch, Term
    from cluster.core.timings import Timings
    from cluster.leader.liveness import Liveness
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

ORPHANS_EVERY = 60.0
FORGET_AFTER = 600.0
UNWANTED_MS = 600_000
"""A breaker that nobody has wanted to probe for so long is closed."""
TOMBSTONES_EVERY = 600.0
TOMBSTONES_AT_ONCE = 5000
TOMBSTONE_GRACE_MS = 3_600_000
"""Tombstones outlive the retention by this: what a job owed just before it was deleted may have been recorded later."""
REPAIRED_AT_ONCE = 1000
HOSTS_AT_ONCE = 500
"""Put off in one sweep; the rest has its turn in the next, those that wait the longest first."""
FORGOTTEN_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Swept:
    """What one step found: batches released, demoted, executions without a batch, jobs completed."""

    released: int = 0
    demoted: int = 0
    orphans: int = 0
    completed: int = 0


@dataclass(frozen=True, slots=True)
class _Watched:
    """A batch as it was read, and when it was first read so (monotonic)."""

    batch: Batch
    since: float


class Sweeper:
    """The sweep of one leader."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        timings: Timings,
        trusted: Callable[[], Term],
        census: Liveness,
        retention_days: float = 7.0,
    ) -> None:
        self._db = db
        self._clock = clock
        self._timings = timings
        self._trusted = trusted
        self._census = census
        self._retention_days = retention_days
        self._watched: dict[str, _Watched] = {}
        self._orphans_at = 0.0
        self._tombstones_at = float("-inf")

    async def step(self) -> Swept:
        """One sweep."""
        self._trusted()
        released = await self._free_dead()
        await self._put_off()
        demoted = await batches.demote_overdue(self._db)
        if demoted:
            log.warning("batches_demoted", batches=demoted)
        orphans = 0
        now = self._clock.monotonic()
        if now - self._orphans_at > ORPHANS_EVERY:
            self._orphans_at = now
            orphans = await self.repair_orphans()
        if now - self._tombstones_at > TOMBSTONES_EVERY:
            await self.remove_tombstones()
        return Swept(released, demoted, orphans, await self._complete())

    async def remove_tombstones(self) -> int:
        """Remove what is left of jobs deleted so long ago that nothing they owed is within the retention."""
        kept_ms = int(self._retention_days * history.DAY_MS) + TOMBSTONE_GRACE_MS
        before_ms = self._clock.now_ms() - kept_ms
        removed = await engine_jobs.delete_tombstones(self._db, before_ms, TOMBSTONES_AT_ONCE, self._retention_days)
        if removed:
            log.info("tombstones_removed", jobs=removed)
        if removed < TOMBSTONES_AT_ONCE:  # else there are more: they are next sweep's
            self._tombstones_at = self._clock.monotonic()
        return removed

    async def _free_dead(self) -> int:
        """Free what silent nodes hold, once it has not been renewed for a lease on this clock.

        That the node is silent is not enough: one that was cut off, and is back, may have claimed a batch a moment
        before its first heartbeat. Whoever trusts a lease has written it: a claim sets the token, a renewal
        `claimable_at`. So a batch that was read twice, a lease apart, and is the same is trusted by nobody, and the
        release names both once more.
        """
        now = self._clock.monotonic()
        lease = self._timings.batch_lease
        holders = await batches.owners(self._db)
        self._census.watch_owners(holders, now)
        watched: dict[str, _Watched] = {}
        for owner in holders & self._census.silent_nodes(now, lease / 3):
            for batch in await batches.owned_by(self._db, owner):
                before = self._watched.get(batch.id)
                same = before is not None and before.batch == batch
                watched[batch.id] = before if same and before is not None else _Watched(batch, self._clock.monotonic())
        self._watched = watched
        freed: Counter[str] = Counter()
        silent = self._census.silent_nodes(now, lease)
        for w in watched.values():
            if w.batch.owner in silent and now - w.since > lease and await batches.release_unrenewed(self._db, w.batch):
                freed[w.batch.owner] += 1
        for owner, released in freed.items():
            log.warning("node_silent", node=owner, released=released)
        for node in self._census.silent_nodes(now, FORGET_AFTER):
            await nodes.delete(self._db, node)
        return freed.total()

    async def _put_off(self) -> None:
        """What is claimable for a host that nobody may send to waits until it may be tried again.

        A few operations, however many hosts are away: with our own way out broken that is all of them, and the leader
        has to go on writing down what comes due.
        """
        waiting = await deferred_batches.hosts_waiting(self._db, HOSTS_AT_ONCE)
        now = self._clock.now_ms()
        until = {b.host: b.until_ms for b in await breakers.of_hosts(self._db, waiting) if b.until_ms > now}
        if until:
            await deferred_batches.defer_hosts(self._db, until)
        for breaker in await breakers.expired_unprobed(self._db, now - UNWANTED_MS, FORGOTTEN_AT_ONCE):
            # Its jobs are gone. Whatever comes for the host after all may find out like anything else.
            if await breakers.close(self._db, breaker):
                log.info("breaker_expired", host=breaker.host)

    async def repair_orphans(self) -> int:
        """Give owed executions whose batch does not exist a batch. Returns how many batches were missing: 0, always,
        unless a writer died between its two inserts and nobody came by since.
        """
        named = await executions.count_by_batch(self._db)
        missing = set(named) - await batches.existing_ids(self._db, named)
        if not missing:
            return 0
        some = sorted(missing, key=str)[:REPAIRED_AT_ONCE]
        owed, unreadable = await executions.of_batches(self._db, some, REPAIRED_AT_ONCE * 10)
        if unreadable:  # nobody can hold them: there is no such batch
            await history.insert_unreadable(self._db, unreadable, self._clock.now_ms(), self._retention_days)
            await executions.delete_unreadable(self._db, unreadable)
        found = await repair_batches(self._db, owed)
        if found:
            log.error("orphans_repaired", batches=found)
        return found

    async def _complete(self) -> int:
        """Jobs whose end is past are completed, once everything up to now has been written down."""
        now = self._clock.now_ms()
        earliest = await schedules.earliest_next_ms(self._db)
        if earliest is not None and earliest < now:
            return 0
        return await engine_jobs.complete_ended(self._db, now - 1000)
