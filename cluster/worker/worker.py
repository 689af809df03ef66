"""The worker: claims batches, keeps their leases, has them sent, recorded or handed back. Every node runs one.

It composes the steps; each loop is a wait and a step. Nothing here decides who owns what: the steps' filters do.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import Ending, Rescheduled
from cluster.core.execution.planning import MAX_BATCH
from cluster.core.lifecycle import State
from cluster.loops import Loop, cancel_and_wait
from cluster.store import batches
from cluster.store.batches import ClaimFilter
from cluster.worker.circuit_breakers import CircuitBreakers
from cluster.worker.claim import SUSPECT_AFTER, ClaimedBatch, Claimer
from cluster.worker.context import WorkerContext
from cluster.worker.dispatch import Dispatcher, DispatchHooks
from cluster.worker.leases import HeldBatch, HeldBatches, SuspectSlot
from cluster.worker.metrics import WorkerStats
from cluster.worker.overlap import may_overlap
from cluster.worker.rate_limiter import RateLimiter
from cluster.worker.record import MoveOptions, Recorder
from cluster.worker.release import Releaser
from cluster.worker.results import Results

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.clock import Clock
    from cluster.core.execution.trace import SpanCollector
    from cluster.core.timings import Timings
    from cluster.outbound.sender import Sender
    from cluster.store.mongo.client import Database
    from cluster.worker.leases import DroppedExecution, FinishedRequest

log = structlog.get_logger()

MIN_IDLE = 0.025
MAX_IDLE = 0.25
RENEW_RETRY_SECONDS = 0.5
"""After a renewal that failed: a lease is too short to wait for the next third of it."""
BEHIND_MS = 1000
BEHIND_SECONDS = 1.0
"""What was claimed so recently should have been sent a second before: there is a backlog."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What one worker may use. Counts are executions."""

    node: str
    slots: int = 256
    waiting: int = 2048
    unrecorded: int = 4096
    claimers: int = 2
    spare_claimers: int = 4
    """These claim too while there is a backlog."""
    retention_days: float = 7.0


class Worker:
    """Claims, sends and records for one node."""

    def __init__(self, db: Database, clock: Clock, timings: Timings, sender: Sender, settings: WorkerSettings) -> None:
        self._db = db
        self._clock = clock
        self._timings = timings
        self._settings = settings
        self._claimer = Claimer(db, clock, timings, settings.node)
        self._recorder = Recorder(db, settings.retention_days, int(timings.prefetch * 1000))
        self.held = HeldBatches()
        self.stats = WorkerStats()
        self.breakers = CircuitBreakers(db, clock, settings.node)
        doors = WorkerContext(db, clock, sender, self.breakers, RateLimiter(db, clock))
        hooks = DispatchHooks(self._ended, self._ended, self.held.forget, partial(may_overlap, db))
        self.dispatcher = Dispatcher(doors, settings.node, settings.slots, hooks)
        self.results = Results(doors, self._recorder, self.dispatcher, self.held, self.stats, self.pause_reclaiming)
        self.releaser = Releaser(doors, self._recorder, self.dispatcher, self.results, self.held, settings.waiting // 4)
        self.loops: list[Loop] = []
        self._claimers: list[Loop] = []
        self._unowned_until = 0.0
        self._suspect = SuspectSlot()
        self._strays = False
        self._primary: tuple[str, int] | None = None
        self._claiming = 0
        self._behind_until = 0.0
        self._handing_back = False
        self._turn = 0
        self.shutting_down = False
        self.draining = False
        """Nothing is claimed for the time being."""

    def set_tracer(self, trace: SpanCollector | None) -> None:
        """What is sent and recorded is told to this trace."""
        self.dispatcher.set_tracer(trace)
        self.results.trace = trace

    def start(self) -> None:
        """Begin to work."""
        self._claimers = [
            *(Loop("claim", self._claim_turns()) for _ in range(self._settings.claimers)),
            # A claim waits for the database most of its time. A backlog is often one of small batches, after an outage all
            # the more of retries, so that it is these waits that it is worked off by.
            *(Loop("claim", self._claim_turns(spare=True)) for _ in range(self._settings.spare_claimers)),
        ]
        self.loops = [
            *self._claimers,
            Loop("renew", self._renew_turn),
            *(Loop("record", self.results.turn) for _ in range(2)),
            Loop("hand_back", self._hand_back_turn),
        ]
        for loop in self.loops:
            loop.start()

    def _ended(self, result: FinishedRequest | DroppedExecution) -> None:
        self.results.add(result)

    # -- claiming ------------------------------------------------------------------------------------------------

    def pause_reclaiming(self) -> None:
        """After trouble with the database or its clock: let owners renew before anybody reclaims."""
        self._unowned_until = self._clock.monotonic() + self._timings.batch_lease

    def clock_jumped(self) -> None:
        """Cluster time is another than was thought: what waits for an instant of it looks again, and owners come first."""
        self.pause_reclaiming()
        self.dispatcher.clock_jumped()

    def _claim_turns(self, *, spare: bool = False) -> Callable[[], Awaitable[float | None]]:
        """The turns of one claimer, which polls ever less often while there is nothing to claim.

        `spare`: it claims while there is a backlog alone.
        """
        idle = MIN_IDLE

        async def turn() -> float | None:
            nonlocal idle
            if self.shutting_down:
                return None
            if spare and self._clock.monotonic() > self._behind_until:
                return MAX_IDLE
            found = False
            try:
                found = await self.claim_once()
            except StoreUnavailable as exc:
                log.warning("claim_unavailable", error=str(exc))
                self.pause_reclaiming()
                self._strays = True
                idle = MAX_IDLE
            except Exception:
                self._strays = True  # whatever it was, a batch may carry our name
                raise
            idle = MIN_IDLE if found else min(MAX_IDLE, idle * 1.5)
            return 0.0 if found else idle * random.uniform(0.8, 1.2)  # noqa: S311 - spreads polls, guards nothing

        return turn

    def _has_room(self) -> bool:
        return (
            self.dispatcher.waiting < self._settings.waiting
            and len(self.results.unrecorded) < self._settings.unrecorded
            and not self.shutting_down
            and not self.draining
            and not self.dispatcher.stuck()
        )

    async def claim_once(self) -> bool:
        """Claim one batch and take it on. False: nothing to claim, or no room."""
        if not self._has_room() or self._handing_back:
            return False
        if self._strays:
            if self._claiming:
                return False  # what the other claimer has just claimed carries our name and is no stray
            self._handing_back = True
            try:
                await self._hand_back_strays()
            finally:
                self._handing_back = False
        self._claiming += 1
        try:
            return await self._claim()
        finally:
            self._claiming -= 1

    async def _claim(self) -> bool:
        self._look_for_failover()
        self._turn += 1
        late_first = self._turn % 10 == 0
        for late in (late_first, not late_first):
            # Late work takes what is idle, and never the room that current work needs; other claims may bring as much.
            if late and self.dispatcher.waiting + (self._claiming - 1) * MAX_BATCH >= self._settings.waiting // 4:
                continue
            with self._suspect.claiming() as may_be_one:
                claimed = await self._claimer.step(self._which(None if may_be_one else SUSPECT_AFTER - 1, late=late))
                if claimed is not None:
                    await self._take_on(claimed)
                    return True
        return False

    def _which(self, claims_most: int | None, *, late: bool) -> ClaimFilter:
        unowned = self._clock.monotonic() < self._unowned_until
        return ClaimFilter(
            late, self.dispatcher.hosts_blocked(), self.dispatcher.saturated_limits(), unowned, claims_most
        )

    def _look_for_failover(self) -> None:
        """Another primary, maybe with another clock: leases that look ended to it may be alive."""
        primary = self._db.primary()
        if primary is not None and primary != self._primary:
            if self._primary is not None:
                log.warning("primary_changed", primary=f"{primary[0]}:{primary[1]}")
                self.pause_reclaiming()
            self._primary = primary

    async def _take_on(self, claimed: ClaimedBatch) -> None:
        newer = self.held.get(claimed.batch.id)
        if newer is not None and newer.batch.token > claimed.batch.token:
            return  # this claim took longer than its lease, and our other claimer has made the next one
        self.stats.counters["claimed"] += 1
        self.stats.counters["reclaimed"] += claimed.batch.claims > 1
        now_ms = self._clock.now_ms()
        if claimed.batch.send_ms < now_ms - BEHIND_MS:
            self._behind_until = self._clock.monotonic() + BEHIND_SECONDS
        held = HeldBatch(claimed.batch, claimed.valid_until, claimed_ms=now_ms)
        if claimed.unreadable:
            await self._recorder.record_unreadable(claimed.batch, claimed.unreadable, self._clock.now_ms())
        if claimed.must_split:
            moved = [Rescheduled(e, e.attempts, e.send_ms) for e in claimed.executions]
            log.warning("batch_split", batch=claimed.batch.id, executions=len(moved), claims=claimed.batch.claims)
            await self._recorder.reschedule(
                moved, MoveOptions(claimed.batch.late, claimed.batch.claims, one_per_batch=True)
            )
            await self._recorder.delete_finished([claimed.batch])
            return
        if claimed.must_give_up:
            e = claimed.executions[0]
            reason = f"node_lost: {claimed.batch.claims - 1} nodes were lost while they sent it"
            log.error("execution_given_up", execution=e.id, claims=claimed.batch.claims)
            await self._recorder.record_final(
                [Ending(e, State.DEAD, self._clock.now_ms(), e.attempts, reason, alert_pending=True)]
            )
            self.stats.counters["dead"] += 1
            await self._recorder.delete_finished([claimed.batch])
            return
        if not claimed.executions:
            await self._recorder.delete_finished([claimed.batch])
            return
        self.held[claimed.batch.id] = held
        self.dispatcher.add(held, claimed.executions)
        if claimed.suspect:
            self._suspect.hold(held)

    async def _hand_back_strays(self) -> None:
        """After an unknown outcome: batches that carry our name and that we do not hold."""
        self._strays = False
        for batch in await batches.owned_by(self._db, self._settings.node):
            held = self.held.get(batch.id)
            if held is None or held.batch.token != batch.token:
                await batches.release(self._db, batch, None, nothing_sent=True)
                log.info("stray_released", batch=batch.id, token=batch.token)

    # -- keeping -------------------------------------------------------------------------------------------------

    async def _renew_turn(self) -> float:
        try:
            await self.renew_once()
        except StoreUnavailable as exc:
            log.warning("renew_unavailable", error=str(exc))
            self.pause_reclaiming()
            return RENEW_RETRY_SECONDS
        return self._timings.batch_lease / 3

    async def renew_once(self) -> set[str]:
        """Extend every lease we hold. Returns the batches that were lost."""
        mine = {i: h for i, h in self.held.items() if not h.lost}
        if not mine:
            return set()
        started = self._clock.monotonic()
        pairs = [(i, h.batch.token) for i, h in mine.items()]
        lost = await batches.renew(self._db, self._settings.node, pairs, self._timings.batch_lease)
        until = started + self._timings.batch_lease - self._timings.margin
        self.stats.counters["renewed"] += len(mine) - len(lost)
        for batch_id, held in mine.items():
            if batch_id not in lost:
                held.valid_until = until
            elif not held.done:  # what was finished while we asked is not lost
                self._lose(held)
        return lost

    def _lose(self, held: HeldBatch) -> None:
        held.lost = True
        unsent = self.dispatcher.withdraw(held)
        log.warning("lease_lost", batch=held.batch.id, token=held.batch.token, unsent=len(unsent))
        self.stats.counters["leases_lost"] += 1
        if held.done:
            self.held.forget(held)

    async def _hand_back_turn(self) -> float | None:
        return None if self.shutting_down else await self.releaser.turn()

    # -- stopping ------------------------------------------------------------------------------------------------

    async def shutdown(self, seconds: float) -> None:
        """Stop claiming, hand back what is unsent, finish what is in flight, record it. The rest is the leases'.

        Ends after `seconds` and a moment, whatever the database or the targets do.
        """
        self.shutting_down = True
        deadline = self._clock.monotonic() + seconds
        self.dispatcher.halt()
        work = asyncio.get_running_loop().create_task(self._wind_down(deadline))
        try:
            await asyncio.wait({work}, timeout=seconds)
        finally:
            in_time = work.done()
            await cancel_and_wait([work])
            await self.dispatcher.close()
            await cancel_and_wait(loop.task for loop in self.loops if loop.task is not None)
        if not in_time or (not work.cancelled() and work.exception() is not None):
            log.warning("shutdown_cut_short", left=len(self.held), exc_info=work.exception() if in_time else None)
        log.info("worker_stopped", left=len(self.held))

    async def _wind_down(self, deadline: float) -> None:
        claimers = [loop.task for loop in self._claimers if loop.task is not None]
        if claimers:  # a claim under way is finished and handed back with the others
            await asyncio.wait(claimers, timeout=self._timings.operation)
            await cancel_and_wait(claimers)
        await self.releaser.release_all()
        await self.dispatcher.wait_in_flight(max(0.0, deadline - self._clock.monotonic() - 1.0))
        while (self.results.unrecorded or self.held) and self._clock.monotonic() < deadline - 0.2:
            self.results.wake_if_finished()
            await asyncio.sleep(0.02)
        await cancel_and_wait(loop.task for loop in self.loops if loop.task is not None)
        await self.results.record_remaining()
        await self._hand_back_strays()

    async def drain(self) -> None:
        """Claim nothing more and hand back what is unsent; what is in flight ends as it would."""
        self.draining = True
        await self.releaser.release_all()
