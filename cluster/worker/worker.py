"""The worker: claims batches, keeps their leases, has them sent, recorded or released. Every node runs one.

It composes the parts and their loops; each loop is a wait and a step. Nothing here decides who owns what: the filters of
the writes do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreError, StoreUnavailable
from cluster.loops import Loop, cancel_and_wait
from cluster.store import deferred_batches, last_results
from cluster.worker.circuit_breakers import CircuitBreakers
from cluster.worker.claiming import Claiming, Room
from cluster.worker.context import WorkerContext
from cluster.worker.dispatch import Dispatcher
from cluster.worker.effects import Effects
from cluster.worker.held_batch import HeldBatches
from cluster.worker.in_flight import InFlightStamps
from cluster.worker.last_results import LAST_SAVE
from cluster.worker.lease_keeper import LeaseKeeper
from cluster.worker.metrics import WorkerStats
from cluster.worker.pending import Unsent
from cluster.worker.rate_limiter import RateLimiter
from cluster.worker.reclaim_pause import ReclaimPause
from cluster.worker.record import Recorder
from cluster.worker.record_queue import RecordQueue
from cluster.worker.release import RELEASE_SECONDS, Releaser
from cluster.worker.results import Results
from cluster.worker.slots import Slots
from cluster.worker.tasks import Tasks
from cluster.worker.windows import WindowWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from cluster.clock import Clock
    from cluster.core.execution.trace import SpanCollector
    from cluster.core.timings import Timings
    from cluster.loops import Wait
    from cluster.outbound.sender import Sender
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

RECORDERS = 2
LAST_RESULTS_SECONDS = 1.0
BREAKERS_SECONDS = 1.5
"""Nothing is claimed by breakers that were read longer ago."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The resources of one worker. Counts are executions."""

    node: str
    slots: int = 256
    waiting: int = 2048
    """With so many that are due and wait, nothing more is claimed."""
    ahead: int = 10_240
    """With so many that wait, due or not, only what is due soon."""
    unrecorded: int = 4096
    claimers: int = 2
    spare_claimers: int = 4
    """These claim too while there is a backlog."""
    retention_days: float = 7.0


class Worker:
    """Claims, sends and records for one node."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        timings: Timings,
        sender: Sender,
        settings: WorkerSettings,
        collector: SpanCollector | None = None,
    ) -> None:
        self._settings = settings
        self.held = held = HeldBatches()
        records = RecordQueue(held)
        self.context = context = WorkerContext(
            node=settings.node,
            db=db,
            clock=clock,
            timings=timings,
            sender=sender,
            collector=collector,
            breakers=CircuitBreakers(db, clock, settings.node),
            rate_limiter=RateLimiter(db, clock),
            windows=WindowWatch(db, clock),
            held=held,
            unsent=Unsent(clock, records),
            slots=Slots(clock, settings.slots),
            records=records,
            stats=WorkerStats(),
            reclaim_pause=ReclaimPause(clock, timings.batch_lease),
            tasks=Tasks(),
        )
        self.stats = context.stats
        self.recorder = recorder = Recorder(db, settings.retention_days)
        self.dispatcher = Dispatcher(context)
        self.claiming = Claiming(
            context,
            self.dispatcher,
            recorder,
            Room(due=settings.waiting, ahead=settings.ahead, unrecorded=settings.unrecorded),
        )
        self.lease_keeper = LeaseKeeper(context)
        self.results = Results(
            context, recorder, Effects(context, self.dispatcher.limit_queues), self.dispatcher.many_leave
        )
        self.releaser = Releaser(context, recorder, self.dispatcher, settings.waiting // 4)
        self._sharing = asyncio.Lock()
        """Of two readings of the breakers at once, the one that began first might end last, and undo the other."""
        self.loops: list[Loop] = []
        self._claimers: list[Loop] = []

    @property
    def draining(self) -> bool:
        """Whether an operator drained this node: nothing is claimed for the time being."""
        return self.claiming.paused

    def start(self) -> None:
        """Begin to work."""
        self._claimers = [
            *(Loop("claim", self.claiming.turns(self._refresh_breakers)) for _ in range(self._settings.claimers)),
            *(Loop("claim", self.claiming.turns(spare=True)) for _ in range(self._settings.spare_claimers)),
        ]
        self.loops = [
            *self._claimers,
            Loop("renew", self.lease_keeper.turn),
            *(Loop("record", self.results.turn) for _ in range(RECORDERS)),
            Loop("release", self._until_shutdown(self._release_turn)),
            Loop("last_results", self._save_last_results),
            Loop("in_flight", InFlightStamps(self.context).turn),
        ]
        for loop in self.loops:
            loop.start()

    def _until_shutdown(self, turn: Callable[[], Awaitable[Wait]]) -> Callable[[], Awaitable[Wait]]:
        async def checked() -> Wait:
            return None if self.claiming.stopped else await turn()

        return checked

    def clock_jumped(self) -> None:
        """Cluster time has jumped: executions that wait for an instant look again, and owners renew before others reclaim."""
        self.context.reclaim_pause.begin()
        self.dispatcher.run_queue.retime()

    async def share_breakers(self) -> None:
        """Learn which breakers other nodes opened and closed, share those of this node, and start what may go now.

        The node that closes a breaker releases the deferred batches of its host once. This node may have deferred more of
        them after that, by a breaker that it still took for open, so it releases them again when it learns the news.
        """
        async with self._sharing:
            await self._share_breakers()

    async def _share_breakers(self) -> None:
        for host in await self.context.breakers.synchronise():
            await deferred_batches.release_host(self.context.db, host)
        if self.context.breakers.any_open:
            self.held.end_rest()  # it is watched from now on, whether this node holds anything or not
        self.dispatcher.start_waiting()

    async def _refresh_breakers(self) -> None:
        """Before a claim: a node that rested does not know which breakers others opened meanwhile.

        If they cannot be read though the database answers, the node claims by what it knows of them.
        """
        if self.context.breakers.age <= BREAKERS_SECONDS:
            return
        try:
            async with self._sharing:
                if self.context.breakers.age > BREAKERS_SECONDS:  # else another loop has read them meanwhile
                    await self._share_breakers()
        except StoreUnavailable:
            raise
        except Exception as exc:  # a breaker that cannot be read must not keep the node from claiming
            log.warning("breakers_unavailable", error=repr(exc))

    async def _release_turn(self) -> Wait:
        """Once a second: share the breakers, and only then defer what they hold back, by what is known now.

        A node at rest, which holds nothing and knows of no breaker, reads them before its next claim instead.
        """
        try:
            if self.held or self.context.breakers.any_open:
                await self.share_breakers()
        except StoreUnavailable as exc:
            log.warning("breakers_unavailable", error=str(exc))
            return RELEASE_SECONDS
        pause = await self.releaser.turn()
        await self.claiming.bring_late_work_forward()
        at_rest = not self.held and not self.context.breakers.any_open and not self.claiming.watches_late_work
        return self.held.until_held() if at_rest else pause

    def share_with(self, nodes: Collection[str]) -> None:
        """These nodes claim, this one among them: they share the polls, the work, and the writes that none has to make alone."""
        self.claiming.pauses.share_with(len(nodes))
        self.claiming.order.share_with(nodes)

    async def _save_last_results(self, *, last: bool = False) -> Wait:
        """Once a second: save the latest results of some jobs; more of them when the node shuts down."""
        waiting = self.stats.last_results
        waiting.share_with(self.claiming.order.sharing(self.context.clock.now_ms()))
        taken = waiting.take(LAST_SAVE if last else None)
        try:
            await last_results.save(self.context.db, taken)
        except StoreError as exc:
            waiting.return_unsaved(taken)
            log.warning("last_results_unsaved", jobs=len(taken), error=str(exc))
        return LAST_RESULTS_SECONDS if waiting or self.held else self.held.until_held()

    # -- stopping ------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """For an operator: claim nothing until `undrain`, and release unsent executions. Requests in flight end as usual."""
        self.claiming.pause()
        await self.releaser.release_all()

    def undrain(self) -> None:
        """Claim again."""
        self.claiming.resume()

    async def shutdown(self, seconds: float) -> None:
        """Stop claiming, release unsent executions, wait for those in flight and record them. Leases end for the rest.

        Ends after `seconds` and a moment, whatever the database or the targets do.
        """
        self.claiming.stop()
        deadline = self.context.clock.monotonic() + seconds
        self.dispatcher.run_queue.stop()
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
        clock, records = self.context.clock, self.context.records
        claimers = [loop.task for loop in self._claimers if loop.task is not None]
        if claimers:  # a claim under way is finished, and its batch released with the others
            await asyncio.wait(claimers, timeout=self.context.timings.operation)
            await cancel_and_wait(claimers)
        await self.releaser.release_all()
        await self.dispatcher.finish(max(0.0, deadline - clock.monotonic() - 1.0))
        while (records or self.held) and clock.monotonic() < deadline - 0.2:
            records.wake_if_finished()
            await asyncio.sleep(0.02)
        await cancel_and_wait(loop.task for loop in self.loops if loop.task is not None)
        await self.results.record_remaining()
        await self._save_last_results(last=True)
        await self.claiming.release_strays()
