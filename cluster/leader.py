"""The leader: one sequential loop of bounded steps, run only while the lease is trusted.

Being sequential is part of the protocol: settling and the main pass of one leader never interleave, so the only rival
is a leader that lost its lease and does not know it, which terms and history see to.

The main pass leaves out jobs with an unsettled change: settling writes what they owe up to where their row has come to,
and clears the mark. A stale leader could clear a mark late, after having read an older row. That is harmless because a
new leader settles every change it finds *before it moves its first row*: whatever the stale one holds in its hands has
been settled by then against rows that nobody has moved since, or anew.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from cluster.catchup import CatchUp
from cluster.core.errors import HoraeError, StoreUnavailable, TermLost
from cluster.core.trace import written_down
from cluster.materialise import Materialiser
from cluster.prune import Pruned, Pruner
from cluster.settle import Settler
from cluster.sweep import Sweeper
from cluster.tasks import stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.census import Census
    from cluster.clock import Clock
    from cluster.core.model import Execution
    from cluster.core.timings import Timings
    from cluster.core.trace import Trace
    from cluster.elect import Elector
    from cluster.store.client import Database

log = structlog.get_logger()

BEAT = 0.25
SWEEP_EVERY = 3.0


def new_batch_id() -> str:
    """A name no other writer will ever choose."""
    return uuid.uuid4().hex


class Leader:
    """The leader's work on one node; idle while another node leads."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        timings: Timings,
        elector: Elector,
        census: Census,
        retention_days: float = 7.0,
    ) -> None:
        self._clock = clock
        self._timings = timings
        self._elector = elector
        self._census = census
        self.settler = Settler(db, timings, elector.trusted, new_batch_id, retention_days)
        self.materialiser = Materialiser(db, timings, elector.trusted, new_batch_id)
        self.catch_up = CatchUp(db, timings, elector.trusted, new_batch_id, retention_days)
        self.sweeper = Sweeper(db, clock, timings, elector.trusted, census)
        self.counters: Counter[str] = Counter()
        """What this node did while it led."""
        self._step_ms = 0
        self._swept_at = 0.0
        self._settled_in = -1
        self.pruner: Pruner | None = Pruner(db, clock)
        self._tasks: list[asyncio.Task[None]] = []

    def tell(self, trace: Trace | None) -> None:
        """Let `trace` see what is written down."""
        if trace is None:
            return

        def written(executions: Sequence[Execution]) -> None:
            trace.take(written_down(executions, trace, self._step_ms, self._clock.now_ms()))

        self.settler.written = self.materialiser.written = self.catch_up.written = written

    def start(self) -> None:
        """Begin; work is done only while the elector holds a trusted term."""
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._loop()))
        if self.pruner is not None:
            self._tasks.append(loop.create_task(self._prune_loop(self.pruner)))

    async def stop(self) -> None:
        """Stop the work. The lease may be given up after this, not before."""
        await stop(self._tasks)

    async def _prune_loop(self, pruner: Pruner) -> None:
        """Beside the sequential loop, because nothing waits for it and it must not hold that up."""
        done = Pruned()
        while True:
            await asyncio.sleep(pruner.wait(done))
            done = Pruned()
            if self._elector.term is None:
                continue
            try:
                done = await pruner.step()
                self.counters["pruned"] += done.documents
            except HoraeError as exc:
                log.warning("prune_disturbed", error=str(exc))

    async def _loop(self) -> None:
        while True:
            if self._elector.term is None:
                await asyncio.sleep(BEAT)
                continue
            more = False
            try:
                more = await self.step()
            except TermLost as exc:
                log.warning("term_lost", error=str(exc))
                await asyncio.sleep(BEAT)
            except StoreUnavailable as exc:
                log.warning("leader_disturbed", error=str(exc))
                await asyncio.sleep(BEAT)
            except HoraeError:
                log.exception("leader_failed")
                await asyncio.sleep(BEAT)
            await asyncio.sleep(0 if more else self._until_beat())

    def _until_beat(self) -> float:
        """Beats fall between the quarters of a second: most sends are due on a full one and want the loop then."""
        return BEAT - (self._clock.now_ms() / 1000 - BEAT / 2) % BEAT

    async def step(self) -> bool:
        """Settle, materialise, catch up, sweep: one bounded piece of each. True if there is more to do at once."""
        now = self._clock.monotonic()
        nodes = self._census.alive(now, self._timings.batch_lease)
        self._step_ms = self._clock.now_ms()
        term = self._elector.trusted().number
        counters = self.counters
        settled = await self.settler.step(self._clock.now_ms(), nodes)
        counters.update(settled=settled.jobs, materialised=settled.executions, missed=settled.missed)
        if settled.more and self._settled_in != term:
            return True
        self._settled_in = term
        done = await self.materialiser.step(self._clock.now_ms(), nodes)
        counters["materialised"] += done.executions
        caught = await self.catch_up.step(self._clock.now_ms()) if not done.more else None
        if caught is not None:
            counters.update(caught_up=caught.executions, missed=caught.missed)
        if now - self._swept_at > SWEEP_EVERY:
            self._swept_at = now
            swept = await self.sweeper.step()
            counters.update(released=swept.released, demoted=swept.demoted, orphans=swept.orphans)
        return settled.more or done.more or (caught is not None and caught.more)
