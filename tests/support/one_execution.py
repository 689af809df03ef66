"""A dispatcher with one execution, and surroundings that do what the test says: clock, breaker, limit, target, database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.core.execution.model import Batch, Execution, Job, RetryPolicy, Target
from cluster.core.lifecycle import JobState
from cluster.core.limits.circuit_breaker import Admission, Breaker
from cluster.core.limits.permits import Grant, Limits, Permits
from cluster.core.timings import Timings
from cluster.store.engine_jobs import JobsById
from cluster.worker.context import WorkerContext
from cluster.worker.dispatch import Dispatcher
from cluster.worker.held_batch import HeldBatch, HeldBatches
from cluster.worker.metrics import WorkerStats
from cluster.worker.pending import Unsent
from cluster.worker.reclaim_pause import ReclaimPause
from cluster.worker.record_queue import RecordQueue
from cluster.worker.slots import Slots
from cluster.worker.tasks import Tasks
from tests.support.engine import Crank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.outbound.sender import Reply
    from cluster.worker.model import ReadyExecution

NOW = 1_900_000_000_000
HOST = "a.example:80"
JOB = Job("a", JobState.ACTIVE, "v1", 0, 0, Target("http://a.example/"), RetryPolicy(), host=HOST)


class _NoWindows:
    """There are no maintenance windows."""

    async def refresh(self) -> None:
        """Nothing to read."""

    def decide(self, *_: Any) -> None:
        """Nothing is held."""


class Breakers:
    """`admits` is asked for each request; a probe is won when `won` is set to whether it is."""

    def __init__(self) -> None:
        self.admits = Admission.ALLOW
        self.won: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def admission(self, _: str) -> Admission:
        return self.admits

    def open_until_ms(self, _: str) -> None:
        return None

    def record_attempt(self, *_: Any) -> None:
        return None

    def failed_jobs(self, _: str) -> tuple[str, ...]:
        return ()

    def waits_for_others(self, _: str) -> bool:
        return False

    async def acquire_probe(self, host: str, *_: Any) -> Breaker | None:
        probe = Breaker(host, half_open=True, until_ms=0, opens=1, rev=1, opened_ms=0, why="", node="n")
        return probe if await self.won else None

    async def finish_probe(self, *_: Any) -> bool:
        return True

    async def abandon_probe(self, *_: Any) -> None:
        return None


class OneExecution:
    """`send_ms`: when it is to be sent. `limited`: whether its job has a limit."""

    def __init__(self, send_ms: int, *, limited: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Crank(NOW)
        self.breakers = Breakers()
        self.grant: asyncio.Future[int] = loop.create_future()
        """The instant of the permit that its limit gives it."""
        self.reply: asyncio.Future[Reply] = loop.create_future()
        self.readable = asyncio.Event()
        self.readable.set()
        self.job = replace(JOB, limit_key="j:a", limits=Limits(None, 1)) if limited else JOB
        self.execution = Execution(f"a:{send_ms}", "a", send_ms, send_ms, "v1", "b", 0, host=HOST)
        batch = Batch("b", (self.execution.id,), 0, 0, send_ms, send_ms, token=1)
        self.held = HeldBatch(batch, self.clock.monotonic() + 60, [self.execution])
        self.context = self._context()
        self.context.held.add(self.held)
        self.dispatcher = Dispatcher(self.context)

    def _context(self) -> WorkerContext:
        database: Any = None
        sender: Any = self
        breakers: Any = self.breakers
        rate_limiter: Any = self
        windows: Any = _NoWindows()
        held = HeldBatches()
        records = RecordQueue(held)
        return WorkerContext(
            node="n",
            db=database,
            clock=self.clock,
            timings=Timings(),
            sender=sender,
            collector=None,
            breakers=breakers,
            rate_limiter=rate_limiter,
            windows=windows,
            held=held,
            unsent=Unsent(self.clock, records),
            slots=Slots(self.clock, 4),
            records=records,
            stats=WorkerStats(),
            reclaim_pause=ReclaimPause(self.clock, 1.0),
            tasks=Tasks(),
        )

    # -- what the dispatcher asks for ----------------------------------------------------------------------------

    def prepare(self, *_: Any) -> None:
        """The sender makes a request."""

    async def send(self, _: Any, _confirm: Any = None) -> Reply:
        return await asyncio.shield(self.reply)

    async def limits_of(self, job: Job) -> Limits:
        return job.limits

    async def acquire(self, _: str, __: Limits, wanted: dict[str, str]) -> Grant:
        at_ms = await asyncio.shield(self.grant)
        return Grant(dict.fromkeys(wanted, at_ms), Permits(granted=wanted))

    async def release(self, _: Any) -> None:
        """The rate limiter takes permits back."""

    async def jobs_by_id(self, *_: Any) -> JobsById:
        """In the place of `engine_jobs.by_id`."""
        await self.readable.wait()
        return JobsById({"a": self.job})

    # -- what the test does --------------------------------------------------------------------------------------

    def make_stale(self) -> None:
        """Its job was read long ago, and cannot be read again for now."""
        self.readable.clear()
        for ready in self._ready():
            ready.read_at = float("-inf")

    def _ready(self) -> Iterator[ReadyExecution]:
        for _, _, ready in self.dispatcher.run_queue._heap:
            yield ready
        for queue in self.dispatcher.host_queues._queues.values():
            yield from queue

    async def at(self, now_ms: int) -> None:
        """Cluster time is this now."""
        self.clock.now = now_ms
        self.dispatcher.run_queue.start_due()
        await self.settle()

    async def settle(self) -> None:
        """Let every task go on that can."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def close(self) -> None:
        await self.dispatcher.close()
