"""A node: one process, one event loop. It composes heartbeat, election, leader and worker.

It starts them once the database answers, says whether it is ready, and shuts them down in order.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from cluster.clock import Clock
from cluster.core.documents.job_json import DocumentLimits
from cluster.core.errors import ConfigurationError, StoreError, StoreUnavailable
from cluster.core.timings import Timings
from cluster.heartbeat import HEARTBEAT_SECONDS, Heartbeat, NodeContext
from cluster.leader.context import LeaderContext, MaterialiseTracer
from cluster.leader.elector import Elector
from cluster.leader.leader import Leader
from cluster.leader.liveness import Liveness
from cluster.live_events import LiveEvents, ViewerLimits
from cluster.loops import Loop, cancel_and_wait
from cluster.siblings import Siblings
from cluster.stats_rollup import StatsRollup
from cluster.store import meta, nodes
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

HEALTHY_SECONDS = 10.0
"""A loop that has failed at every turn for so long is not doing its work."""
BOOT_PAUSE = 0.25
BOOT_PAUSE_MOST = 5.0
STOPPING = "this node is stopping"
DRAINED = "an operator drained this node: `horae nodes undrain` takes that back"
LEAST_SHUTDOWN_SECONDS = 1.0
"""So long the worker may take to shut down, even if the steps before it have used all the time."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The settings of a node. `shutdown_seconds` bounds a clean stop."""

    mongodb_uri: str
    db_name: str = "horae"
    timings: Timings = field(default_factory=Timings)
    slots: int = 256
    waiting: int = 2048
    retention_days: float = 7.0
    audit_retention_days: float = 365.0
    completed_retention_days: float = 30.0
    paced_retention: bool = True
    """Whether the leader deletes expired history in portions, or leaves that to MongoDB's TTL index."""
    shutdown_seconds: float = 9.0
    document_limits: DocumentLimits = field(default_factory=DocumentLimits)
    """What the operator allows in jobs."""
    secret_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The first one encrypts secrets, all of them decrypt."""
    viewers: ViewerLimits = field(default_factory=ViewerLimits)


MakeTrace = Callable[[str], "SpanCollector | None"]
"""Makes the collector of the spans of the node of this id; None: spans are not collected."""


EndedSiblings = Callable[[], Sequence[str]]
"""Returns the ids of the nodes of the same parent that have ended since it was called last."""


def _no_trace(_node: str) -> None:
    return None


def new_node_id() -> str:
    """Unique for each process start: it is also the holder's name in every lease."""
    return f"{platform.node()[:32]}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


class Node:
    """One of N identical nodes: boot, readiness, shutdown."""

    def __init__(
        self,
        settings: NodeSettings,
        sender: Sender,
        make_trace: MakeTrace = _no_trace,
        ended_siblings: EndedSiblings | None = None,
    ) -> None:
        self.id = new_node_id()
        self.settings = settings
        self.version = version("horae")
        self.clock = Clock()
        self.db = Database.open(settings.mongodb_uri, settings.db_name, self.id, Keyring(settings.secret_keys))
        timings, collector = settings.timings, make_trace(self.id)
        self.liveness = Liveness()
        self.elector = Elector(self.db, self.clock, timings, self.id, self.id)
        self.leader = Leader(
            self._leader_context(collector), self.elector, self.liveness, prunes=settings.paced_retention
        )
        worker_settings = WorkerSettings(
            self.id, settings.slots, settings.waiting, retention_days=settings.retention_days
        )
        self.worker = Worker(
            db=self.db,
            clock=self.clock,
            timings=timings,
            sender=sender,
            settings=worker_settings,
            collector=collector,
        )
        self.heartbeat = Heartbeat(
            NodeContext(
                node_id=self.id,
                version=self.version,
                db=self.db,
                clock=self.clock,
                timings=timings,
                liveness=self.liveness,
                elector=self.elector,
                worker=self.worker,
            )
        )
        self.stats_rollup = StatsRollup(
            self.db, self.clock, self.worker.stats, HEARTBEAT_SECONDS, lambda: self.leader.counters["missed"]
        )
        self.live_events = LiveEvents(self.db, self.clock, settings.viewers, self._events_closed)
        self.sender = sender
        self._loops = [Loop("boot", self._boot_turn), Loop("beat", self._beat_turn), Loop("election", self._elect_turn)]
        if ended_siblings is not None:
            self._siblings = Siblings(self.db, self.clock, timings, self.elector, ended_siblings)
            self._loops.append(Loop("siblings", self._siblings.turn))
        self._boot_problem = "it is creating its collections and indexes"
        self.booted = False
        self.shutting_down = False

    def _leader_context(self, collector: SpanCollector | None) -> LeaderContext:
        settings = self.settings
        return LeaderContext(
            db=self.db,
            clock=self.clock,
            timings=settings.timings,
            trusted_term=self.elector.trusted_term,
            tracer=MaterialiseTracer(collector, self.clock),
            retention_days=settings.retention_days,
            audit_retention_days=settings.audit_retention_days,
            document_limits=settings.document_limits,
            completed_retention_days=settings.completed_retention_days,
        )

    @property
    def ready(self) -> bool:
        """Whether this node can serve: the database answers, every loop runs, and the node is not drained or stopping."""
        return self.unready_reason is None

    @property
    def unready_reason(self) -> str | None:
        """Why this node cannot serve, in a sentence that anyone may read; None: it can."""
        if self.shutting_down:
            return STOPPING
        if not self.booted:
            return f"this node is starting: {self._boot_problem}"
        if self.heartbeat.unheard:
            return f"MongoDB has not answered this node for {self.heartbeat.age:.0f} s; the node keeps trying"
        if self.worker.draining:
            return DRAINED
        if broken := self.broken_loops():
            return f"a part of this node has stopped or fails at every turn: {', '.join(broken)}; see its log"
        return None

    def _events_closed(self) -> str | None:
        """Why this node takes no viewers of live events; they belong on nodes that stay."""
        return STOPPING if self.shutting_down else DRAINED if self.worker.draining else None

    def broken_loops(self) -> list[str]:
        """The loops of a booted node that have ended or fail at every turn."""
        loops = [*self._loops, *self.worker.loops, *self.leader.loops]
        return sorted({loop.name for loop in loops if not loop.healthy(HEALTHY_SECONDS)})

    async def start(self) -> None:
        """Begin. Returns at once: the node boots in the background as soon as the database answers."""
        self._loops[0].start()

    async def _boot_turn(self) -> None:
        """Boot, however long the database takes to answer; each failed attempt is logged."""
        async for attempt in AsyncRetrying(
            wait=wait_random_exponential(multiplier=BOOT_PAUSE, max=BOOT_PAUSE_MOST),
            retry=retry_if_exception_type((StoreError, ConfigurationError)),
            before_sleep=self._log_boot_problem,
        ):
            with attempt:
                await schema.ensure(self.db)
                await meta.record_retention(self.db, self.settings.retention_days)
                await self._beat()
        self.booted = True
        log.info("node_started", node=self.id, pid=os.getpid())
        self.worker.start()
        self.leader.start()
        for loop in self._loops[1:]:
            loop.start()

    def _log_boot_problem(self, attempt: RetryCallState) -> None:
        exc = attempt.outcome.exception() if attempt.outcome else None
        if isinstance(exc, ConfigurationError):
            self._boot_problem = "its configuration does not fit the database: see its log"
            log.error("node_misconfigured", problems=exc.problems)
        else:
            answers = not isinstance(exc, StoreUnavailable)
            self._boot_problem = (
                f"MongoDB {'refuses this node, see its log' if answers else 'does not answer'}; the node keeps trying"
            )
            log.warning("database_unavailable_at_start", error=str(exc))

    async def _beat_turn(self) -> float:
        try:
            await self._beat()
        except StoreUnavailable as exc:
            log.warning("heartbeat_unavailable", error=str(exc))
            return self.heartbeat.seconds_after_failure
        return self.heartbeat.seconds

    async def _beat(self) -> None:
        await self.heartbeat.beat()
        for _ in range(round(self.heartbeat.seconds / HEARTBEAT_SECONDS)):  # each turn stands for so long
            await self.stats_rollup.turn()

    async def _elect_turn(self) -> float:
        await self.elector.step()
        await self.elector.until_next_step()
        return 0.0

    async def shutdown(self) -> None:
        """Shut down in order: resign the lease, release unsent batches, wait for requests in flight, close everything.

        Each step is taken even if one before it fails. It ends about when `shutdown_seconds` are over.
        """
        if self.shutting_down:
            return
        self.shutting_down = True
        self.heartbeat.begin_shutdown()
        deadline = self.clock.monotonic() + self.settings.shutdown_seconds
        log.info("node_stopping", node=self.id)
        await self.live_events.close(STOPPING)  # its viewers go to other nodes before anything else ends
        await _stop_loops(self._loops[:1])  # before asking whether it has booted
        steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        if self.booted:
            steps += [
                ("leader", self.leader.stop),
                ("lease", self.elector.retire),
                ("worker", lambda: self._shut_down_worker(deadline)),
            ]
        steps.append(("loops", lambda: _stop_loops(self._loops)))
        if self.booted:
            steps.append(("heartbeat", lambda: nodes.delete(self.db, self.id)))
        steps += [("sender", self.sender.aclose), ("database", self.db.close)]
        for name, step in steps:
            try:
                await step()
            except Exception as exc:  # whatever it was, the rest must be stopped too
                log.warning("shutdown_step_failed", step=name, error=str(exc))
        log.info("node_stopped", node=self.id)

    async def _shut_down_worker(self, deadline: float) -> None:
        await self.worker.shutdown(max(LEAST_SHUTDOWN_SECONDS, deadline - self.clock.monotonic()))


async def _stop_loops(loops: Iterable[Loop]) -> None:
    await cancel_and_wait(loop.task for loop in loops if loop.task is not None)
