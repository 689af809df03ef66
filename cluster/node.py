"""A node: one process, one event loop. It composes heartbeat, election, leader and worker, and drains them in order."""

from __future__ import annotations

import os
import platform
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from cluster.clock import Clock
from cluster.core.alerts import NOT_WATCHED, watch_of
from cluster.core.errors import ConfigurationError, StoreError, StoreUnavailable
from cluster.core.histogram import Histogram
from cluster.core.timings import Timings
from cluster.leader.elector import Elector
from cluster.leader.leader import Leader
from cluster.leader.liveness import Liveness
from cluster.loops import Loop, cancel_and_wait
from cluster.store import incidents, nodes, stats
from cluster.store.mongo import schema
from cluster.store.mongo.client import Database
from cluster.store.mongo.encryption import Keyring
from cluster.worker.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from tenacity import RetryCallState

    from cluster.core.execution.trace import SpanCollector
    from cluster.outbound.sender import Sender

log = structlog.get_logger()

HEARTBEAT_SECONDS = 1.0
CENSUS_EVERY = 2
STATS_EVERY = 5
DIGEST_EVERY = 30
DIGEST_HOSTS = 10
RECENT_BEATS = 10
HEALTHY_SECONDS = 10.0
"""A loop that has failed at every turn for so long is not doing its work."""
BOOT_PAUSE = 0.25
BOOT_PAUSE_MOST = 5.0
LEAST_SHUTDOWN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node needs to know. `drain_seconds` bounds a clean stop."""

    mongodb_uri: str
    db_name: str = "horae"
    timings: Timings = field(default_factory=Timings)
    slots: int = 256
    waiting: int = 2048
    retention_days: float = 7.0
    paced_retention: bool = True
    """Whether the leader prunes history bit by bit, or leaves that to MongoDB's TTL alone."""
    shutdown_seconds: float = 9.0
    secret_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The first one encrypts what is secret, all of them decrypt."""


MakeTrace = Callable[[str], "SpanCollector | None"]
"""Who collects the spans of the node of this id, if anybody does."""


def _no_trace(_node: str) -> None:
    return None


def new_node_id() -> str:
    """Unique for each process start: it is also the holder's name in every lease."""
    return f"{platform.node()[:32]}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


class Node:
    """One of N identical nodes."""

    def __init__(self, settings: NodeSettings, sender: Sender, make_trace: MakeTrace = _no_trace) -> None:
        self.id = new_node_id()
        self.settings = settings
        self.clock = Clock()
        self.db = Database.open(settings.mongodb_uri, settings.db_name, self.id, Keyring(settings.secret_keys))
        self.liveness = Liveness()
        timings = settings.timings
        self.elector = Elector(self.db, self.clock, timings, self.id, self.id)
        self.leader = Leader(self.db, self.clock, timings, self.elector, self.liveness, settings.retention_days)
        if not settings.paced_retention:
            self.leader.pruner = None
        collector = make_trace(self.id)
        self.worker = Worker(
            self.db,
            self.clock,
            timings,
            sender,
            WorkerSettings(self.id, settings.slots, settings.waiting, retention_days=settings.retention_days),
            collector,
        )
        self.leader.set_tracer(collector)
        self._sender = sender
        self._loops = [Loop("boot", self._boot_turn), Loop("beat", self._beat_turn), Loop("election", self._elect_turn)]
        self._beat_at = float("-inf")
        self._beats = 0
        self._drift: deque[list[int]] = deque(maxlen=RECENT_BEATS)
        self._drift_seen = Histogram()
        self._drift_rolled = Histogram()
        self._duration_rolled = Histogram()
        self._counted: dict[str, int] = {}
        self.booted = False
        self._held_up = "it is making its collections sure"
        self.shutting_down = False
        self.version = version("horae")

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the database confirmed a heartbeat; infinite before the first."""
        return self.clock.monotonic() - self._beat_at

    @property
    def ready(self) -> bool:
        """Whether this node can serve: the database answers, every loop runs, and it is not draining."""
        return self.unready_reason is None

    @property
    def unready_reason(self) -> str | None:
        """Why this node cannot serve, in a sentence that anybody may read; None: it can."""
        if self.shutting_down:
            return "this node is stopping"
        if not self.booted:
            return f"this node is starting: {self._held_up}"
        if self.heartbeat_age >= 4 * HEARTBEAT_SECONDS:
            return f"MongoDB has not answered this node for {self.heartbeat_age:.0f} s; it keeps trying"
        if self.worker.draining:
            return "an operator drained this node: `horae nodes undrain` takes that back"
        if broken := self.broken_loops():
            return f"a part of this node has stopped or fails again and again: {', '.join(broken)}; see its log"
        return None

    def broken_loops(self) -> list[str]:
        """The loops of a node that has booted that have ended or fail at every turn."""
        loops = [*self._loops, *self.worker.loops, *self.leader.loops]
        return sorted({loop.name for loop in loops if not loop.healthy(HEALTHY_SECONDS)})

    async def start(self) -> None:
        """Begin. Returns at once: a database that is away is waited for in the background."""
        self._loops[0].start()

    async def _boot_turn(self) -> None:
        """Begin, however long the database is away; whatever keeps this node from it is said."""
        async for attempt in AsyncRetrying(
            wait=wait_random_exponential(multiplier=BOOT_PAUSE, max=BOOT_PAUSE_MOST),
            retry=retry_if_exception_type((StoreError, ConfigurationError)),
            before_sleep=self._log_boot_problem,
        ):
            with attempt:
                await schema.ensure(self.db)
                await schema.record_retention(self.db, self.settings.retention_days)
                await self.beat()
        self.booted = True
        log.info("node_started", node=self.id, pid=os.getpid())
        self.worker.start()
        self.leader.start()
        for loop in self._loops[1:]:
            loop.start()

    def _log_boot_problem(self, attempt: RetryCallState) -> None:
        exc = attempt.outcome.exception() if attempt.outcome else None
        if isinstance(exc, ConfigurationError):
            self._held_up = "its configuration does not fit the database: see its log"
            log.error("node_misconfigured", problems=exc.problems)
        else:
            away = isinstance(exc, StoreUnavailable)
            self._held_up = (
                f"MongoDB {'does not answer' if away else 'refuses this node, see its log'}; it keeps trying"
            )
            log.warning("database_unavailable_at_start", error=str(exc))

    async def _beat_turn(self) -> float:
        try:
            await self.beat()
        except StoreUnavailable as exc:
            log.warning("heartbeat_unavailable", error=str(exc))
        return HEARTBEAT_SECONDS

    async def beat(self) -> None:
        """One heartbeat: say that we live, learn the database's clock, and now and then look at the others."""
        started = self.clock.monotonic()
        now_ms = await nodes.write_heartbeat(self.db, self.id, self._report())
        ended = self.clock.monotonic()
        self._beat_at = ended
        self._learn(started, ended, now_ms)
        # The write read the clock when it began and then waited for a majority; this bounds the clock much closer.
        started = self.clock.monotonic()
        now = await nodes.primary_clock_ms(self.db)
        if now is not None:
            self._learn(started, self.clock.monotonic(), now)
        if abs(self.clock.wall_offset_ms) > 500 and self._beats % 60 == 0:
            log.warning("clock_offset", offset_ms=self.clock.wall_offset_ms)
        if self._beats % CENSUS_EVERY == 0:
            everyone = await nodes.heartbeats(self.db)
            self.liveness.observe(everyone, self.clock.monotonic())
            await self._apply_operator_requests(next((n for n in everyone if n.id == self.id), None))
            self.elector.eligible = self.liveness.clock_agrees(self.id, ended, self.settings.timings.batch_lease)
            default = await incidents.default_rules(self.db)
            self.worker.results.watch_by_default(NOT_WATCHED if default is None else watch_of(default))
        if self._beats % STATS_EVERY == 0:
            await self._roll_up()
        if self._beats % DIGEST_EVERY == 0:
            self._log_failing_hosts()
        self._beats += 1

    def _learn(self, started: float, ended: float, server_ms: int) -> None:
        jumped = self.clock.observe(started, ended, server_ms)
        if jumped:
            log.warning("database_clock_jumped", by_ms=round(jumped))
            self.worker.clock_jumped()

    async def _apply_operator_requests(self, me: nodes.NodeHeartbeat | None) -> None:
        """What operators asked of this node: to stand aside (and come back), to give up leading.

        A write of the leader's that is under way when it resigns is a stale leader's, which harms nothing.
        """
        if me is None or self.shutting_down:
            return
        term = self.elector.term
        lease = self.settings.timings.leader_lease
        if me.drain_requested:
            await self.elector.step_aside(lease)  # renewed at each census
            if not self.worker.draining:
                log.info("node_drained", held=len(self.worker.held))
            await self.worker.drain()  # each time: also what a claim brought that was under way
        elif term is not None and me.resign_term == term.number:
            await self.elector.step_aside(lease)
        if not me.drain_requested and self.worker.draining:
            self.worker.undrain()
            log.info("node_undrained")

    def _report(self) -> dict[str, Any]:
        self._drift.append(_since(self.worker.stats.drift, self._drift_seen))
        return {
            "host": platform.node(),
            "pid": os.getpid(),
            "version": self.version,
            "schema": schema.SCHEMA_VERSION,
            "clock_offset_ms": self.clock.wall_offset_ms,
            "in_flight": self.worker.context.slots.in_flight,
            "waiting": self.worker.context.unsent.count,
            "leading": self.elector.term is not None,
            "draining": self.shutting_down or self.worker.draining,
            "counters": {
                **self.worker.stats.counters,
                "drift_recent": [sum(column) for column in zip(*self._drift, strict=True)],
            },
        }

    async def _roll_up(self) -> None:
        """Add what was counted since the last roll-up to the minute's document."""
        now = dict(self.worker.stats.counters)
        counts = {name: n - self._counted.get(name, 0) for name, n in now.items()}
        self._counted = now
        histograms = {
            "drift": _since(self.worker.stats.drift, self._drift_rolled),
            "duration": _since(self.worker.stats.duration, self._duration_rolled),
        }
        await stats.add(self.db, self.clock.now_ms(), counts, histograms)

    def _log_failing_hosts(self) -> None:
        """Failed attempts of the last interval, a line per host for the worst and one for the rest."""
        failing = self.worker.stats.failures.take()
        for f in failing[:DIGEST_HOSTS]:
            log.warning(
                "target_failing",
                host=f.host,
                attempts=f.attempts,
                results=dict(f.results),
                seconds=DIGEST_EVERY * HEARTBEAT_SECONDS,
                execution=f.execution,
            )
        rest = failing[DIGEST_HOSTS:]
        if rest:
            log.warning("more_targets_failing", hosts=len(rest), attempts=sum(f.attempts for f in rest))

    async def _elect_turn(self) -> float:
        await self.elector.step()
        return self.settings.timings.renew_retry

    async def shutdown(self) -> None:
        """A clean stop: no more claims, unsent work handed back, requests in flight finished, the lease resigned.

        Whatever goes wrong on the way, the next step is taken, and it ends about when `drain_seconds` are over.
        """
        if self.shutting_down:
            return
        self.shutting_down = True
        deadline = self.clock.monotonic() + self.settings.shutdown_seconds
        log.info("node_stopping", node=self.id)
        await _stopped(self._loops[:1])  # before asking whether it has booted
        steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        if self.booted:
            steps += [
                ("leader", self.leader.stop),
                ("lease", self.elector.retire),
                (
                    "worker",
                    lambda: self.worker.shutdown(max(LEAST_SHUTDOWN_SECONDS, deadline - self.clock.monotonic())),
                ),
            ]
        steps.append(("loops", lambda: _stopped(self._loops)))
        if self.booted:
            steps.append(("heartbeat", lambda: nodes.delete(self.db, self.id)))
        steps += [("sender", self._sender.aclose), ("database", self.db.close)]
        for name, step in steps:
            try:
                await step()
            except Exception as exc:  # whatever it was, the rest must be stopped too
                log.warning("shutdown_step_failed", step=name, error=str(exc))
        log.info("node_stopped", node=self.id)


async def _stopped(loops: Iterable[Loop]) -> None:
    await cancel_and_wait(loop.task for loop in loops if loop.task is not None)


def _since(now: Histogram, before: Histogram) -> list[int]:
    """What was counted since `before`, which becomes `now`."""
    new = [n - b for n, b in zip(now.counts, before.counts, strict=True)]
    before.counts[:] = now.counts
    return new
