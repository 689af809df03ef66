"""The leader: one sequential loop of bounded steps, run only while the lease is trusted.

Being sequential is part of the protocol: settling and the main pass of one leader never interleave, so the only rival
is a leader that lost its lease and does not know it, which terms and history see to.

The main pass leaves out jobs with an unsettled change: settling writes what they owe up to where their row has come to,
and clears the mark. A stale leader could clear a mark late, after having read an older row. That is harmless because a
new leader settles every change it finds *before it moves its first row*: whatever the stale one holds in its hands has
been settled by then against rows that nobody has moved since, or anew.
"""

from __future__ import annotations

import functools
import uuid
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

import structlog

from cluster.core.errors import HoraeError, OwnershipLost, StoreUnavailable, TermLost
from cluster.core.execution.trace import materialise_spans
from cluster.leader.alerting import Alerter
from cluster.leader.catch_up import CatchUp
from cluster.leader.materialise import Materialiser
from cluster.leader.prune import Pruned, Pruner
from cluster.leader.replay import Replayer
from cluster.leader.settle import Settler
from cluster.leader.sweep import Sweeper
from cluster.loops import Loop, cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cluster.clock import Clock
    from cluster.core.execution.model import Execution
    from cluster.core.execution.trace import SpanCollector
    from cluster.core.timings import Timings
    from cluster.leader.elector import Elector
    from cluster.leader.liveness import Liveness
    from cluster.store.mongo.client import Database

T = TypeVar("T")
log = structlog.get_logger()

STEP_SECONDS = 0.25
SWEEP_EVERY = 3.0
REPLAY_EVERY = 1.0
ALERT_EVERY = 1.0
FAILED_STEP_PAUSE = 5.0
"""Before a step that failed unexpectedly is tried again (s)."""
STEP_ASIDE_LEASES = 3
"""For so many leases a leader whose work failed does not stand for election again."""


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
        census: Liveness,
        retention_days: float = 7.0,
    ) -> None:
        self._clock = clock
        self._timings = timings
        self._elector = elector
        self._census = census
        self.settler = Settler(db, timings, elector.trusted_term, new_batch_id, retention_days)
        self.materialiser = Materialiser(db, timings, elector.trusted_term, new_batch_id, retention_days)
        self.catch_up = CatchUp(db, timings, elector.trusted_term, new_batch_id, retention_days)
        self.materialiser.unsettleable = self.catch_up.unsettleable = self.settler.quarantine.ids
        self.replayer = Replayer(db, elector.trusted_term, new_batch_id, retention_days)
        self.sweeper = Sweeper(db, clock, timings, elector.trusted_term, census, retention_days)
        self.counters: Counter[str] = Counter()
        """What this node did while it led."""
        self._step_ms = 0
        self._swept_at = 0.0
        self._replayed_at = 0.0
        self._settled_in = -1
        self._fails_since: float | None = None
        self._not_before: dict[str, float] = {}
        self.pruner: Pruner | None = Pruner(db, clock)
        self.alerter = Alerter(db, clock, retention_days)
        self.loops = [Loop("lead", self._turn), Loop("alert", self._alert_turn)]

    def set_tracer(self, trace: SpanCollector | None) -> None:
        """Let `trace` see what is written down."""
        if trace is None:
            return

        def written(executions: Sequence[Execution]) -> None:
            trace.take(materialise_spans(executions, trace, self._step_ms, self._clock.now_ms()))

        self.settler.written = self.materialiser.written = self.catch_up.written = written

    def start(self) -> None:
        """Begin; work is done only while the elector holds a trusted term."""
        if self.pruner is not None:
            self.loops.append(Loop("prune", functools.partial(self._prune_turn, self.pruner)))
        for loop in self.loops:
            loop.start()

    async def stop(self) -> None:
        """Stop the work. The lease may be given up after this, not before."""
        await cancel_and_wait(loop.task for loop in self.loops if loop.task is not None)

    async def _prune_turn(self, pruner: Pruner) -> float:
        """Beside the sequential loop, because nothing waits for it and it must not hold that up."""
        done = Pruned()
        if self._elector.term is not None:
            try:
                done = await pruner.step()
                self.counters["pruned"] += done.documents
            except HoraeError as exc:
                log.warning("prune_unavailable", error=str(exc))
        return pruner.seconds_until_next(done)

    async def _alert_turn(self) -> float:
        """Beside the sequential loop, because an alert must never delay a job. Its writes need no trust in the term."""
        if self._elector.term is None:
            return ALERT_EVERY
        try:
            done = await self.alerter.step()
        except HoraeError as exc:
            log.warning("alerts_unavailable", error=str(exc))
            return ALERT_EVERY
        self.counters.update(incidents_opened=done.opened, incidents_closed=done.closed, alerts=done.alerts)
        return 0.05 if done.more else ALERT_EVERY

    async def _turn(self) -> float:
        if self._elector.term is None:
            self._fails_since = None
            return STEP_SECONDS
        try:
            more = await self.step()
        except TermLost as exc:
            log.warning("term_lost", error=str(exc))
            return STEP_SECONDS
        except StoreUnavailable as exc:
            log.warning("leader_unavailable", error=str(exc))
            return STEP_SECONDS
        except Exception:  # a leader that cannot lead must not keep others from it
            log.exception("leader_failed")
            await self._step_aside()
            return STEP_SECONDS
        self._fails_since = None
        return 0 if more else self._until_beat()

    async def _step_aside(self) -> None:
        """Give the lease up when every step has failed for a lease: another node may fare better."""
        now = self._clock.monotonic()
        if self._fails_since is None:
            self._fails_since = now
        elif now - self._fails_since > self._timings.leader_lease:
            self._fails_since = None
            log.error("leader_stepped_aside", seconds=STEP_ASIDE_LEASES * self._timings.leader_lease)
            await self._elector.step_aside(STEP_ASIDE_LEASES * self._timings.leader_lease)

    def _until_beat(self) -> float:
        """Beats fall between the quarters of a second: most sends are due on a full one and want the loop then."""
        return STEP_SECONDS - (self._clock.now_ms() / 1000 - STEP_SECONDS / 2) % STEP_SECONDS

    async def step(self) -> bool:
        """Settle, materialise, catch up, sweep: one bounded piece of each. True if there is more to do at once."""
        now = self._clock.monotonic()
        nodes = self._census.live_count(now, self._timings.batch_lease)
        self._step_ms = self._clock.now_ms()
        term = self._elector.trusted_term().number
        counters = self.counters
        settled = await self.settler.step(self._clock.now_ms(), nodes)
        counters.update(settled=settled.jobs, materialised=settled.executions, missed=settled.missed)
        if settled.more and self._settled_in != term:
            return True
        self._settled_in = term
        done = await self.materialiser.step(self._clock.now_ms(), nodes)
        counters["materialised"] += done.executions
        if now - self._replayed_at >= REPLAY_EVERY:
            self._replayed_at = now
            await self._apart("replay", now, lambda: self.replayer.step(self._clock.now_ms()))
        # What is due now comes first and must not depend on these.
        caught = await self._apart("catch_up", now, lambda: self.catch_up.step(self._clock.now_ms()), done.more)
        if caught is not None:
            counters.update(caught_up=caught.executions, missed=caught.missed)
        if now - self._swept_at > SWEEP_EVERY:
            self._swept_at = now
            swept = await self._apart("sweep", now, self.sweeper.step)
            if swept is not None:
                counters.update(released=swept.released, demoted=swept.demoted, orphans=swept.orphans)
        return settled.more or done.more or (caught is not None and caught.more)

    async def _apart(
        self,
        name: str,
        now: float,
        step: Callable[[], Awaitable[T]],
        skip: bool = False,  # noqa: FBT001, FBT002
    ) -> T | None:
        """A step whose failure is said and does not stop the others; it is tried again after a pause."""
        if skip or now < self._not_before.get(name, 0.0):
            return None
        try:
            return await step()
        except (OwnershipLost, StoreUnavailable):
            raise
        except Exception:  # see the docstring
            self._not_before[name] = now + FAILED_STEP_PAUSE
            log.exception("leader_step_failed", step=name)
            return None
