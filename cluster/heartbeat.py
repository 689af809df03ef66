"""The heartbeat of one node: it shows that the node is alive, reads the database's clock, and watches the other nodes.

The other nodes judge this node by its heartbeat, and operators leave their requests in its document, so both are read
and written in one place.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from cluster.clock import JUMP_MS
from cluster.clock_watch import ClockWatch
from cluster.core.alerts import NOT_WATCHED, watch_of
from cluster.core.clock_vote import ClockVote
from cluster.core.election import first_candidates
from cluster.core.histogram import HistogramDelta
from cluster.leader.liveness import BLIND_SECONDS, RARELY_READING_BLIND_SECONDS
from cluster.store import meta, nodes
from cluster.store.mongo import schema

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.core.timings import Timings
    from cluster.leader.elector import Elector
    from cluster.leader.liveness import Liveness
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker

log = structlog.get_logger()

HEARTBEAT_SECONDS = 1.0
MANY_NODES = 8
"""In a cluster of more nodes, those that do not lead take twice as long for each beat: what idle nodes cost MongoDB is mostly
their heartbeats. One beat may still go unanswered without its node being shown as silent (`nodes.SILENT_MS`). While the primary's
clock is in doubt, all beat and vote as often as in a small cluster."""
SHORT_LEASE_SECONDS = 6.0
"""With a shorter lease they do so too: the sweep looks at the batches of a node that was silent for a third of it."""
MISSED_HEARTBEATS = 4
"""A node whose heartbeat the database has not confirmed for so many beats is not ready."""
WATCH_EVERY_BEATS = 2
RULES_EVERY_BEATS = 4
RECENT_BEATS = 10
"""The drift of so many beats, or of as many seconds, is in the heartbeat document."""
OFFSET_WARNING_MS = 500
OFFSET_WARNING_EVERY_BEATS = 60


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The parts of one node that its heartbeat reads and steers."""

    node_id: str
    version: str
    db: Database
    clock: Clock
    timings: Timings
    liveness: Liveness
    elector: Elector
    worker: Worker


class Heartbeat:
    """The heartbeats of one node; `beat()` is called again `seconds` after it has ended."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._clock = context.clock
        self._written_at = float("-inf")
        self._next_after = HEARTBEAT_SECONDS
        """The time between two beats when the last one was confirmed."""
        self._beats = 0
        self._drift = HistogramDelta(context.worker.stats.drift)
        self._recent_drift: deque[list[int]] = deque(maxlen=RECENT_BEATS)
        self._shutting_down = False
        self._claiming = 1
        """How many nodes claim, with this one."""
        self._blind_after = BLIND_SECONDS
        """By the pace since the last reading (see `Liveness.observe`)."""
        self.clock_watch = ClockWatch(context.clock, platform.node(), context.timings.unclaimed_ms / 1000)

    @property
    def age(self) -> float:
        """Seconds since the database confirmed a heartbeat; infinite before the first."""
        return self._clock.monotonic() - self._written_at

    @property
    def seconds(self) -> float:
        """The time between two beats of this node."""
        timings = self._context.timings
        slow = (
            self._claiming > MANY_NODES
            and self._context.elector.term is None
            and not self._clock.held_ms
            and min(timings.leader_lease, timings.batch_lease) >= SHORT_LEASE_SECONDS
        )
        return HEARTBEAT_SECONDS * (2 if slow else 1)

    @property
    def seconds_after_failure(self) -> float:
        """The time until the next beat after one that the database did not answer, which took up to two seconds."""
        return HEARTBEAT_SECONDS / 2 if self.seconds > HEARTBEAT_SECONDS else HEARTBEAT_SECONDS

    @property
    def unheard(self) -> bool:
        """Whether the database has not confirmed a heartbeat for so long that this node is not ready. By the pace of the last
        one: a leader without a database stops leading, and is no more ready for that.
        """
        return self.age >= MISSED_HEARTBEATS * self._next_after

    def begin_shutdown(self) -> None:
        """From now on the node is shown as draining, and requests of operators change nothing."""
        self._shutting_down = True

    async def beat(self) -> None:
        """Write one heartbeat, take operators' requests, and with each second beat watch the other nodes.

        Raises `StoreUnavailable`.
        """
        held = self._clock.held_ms
        requests = await self._write()
        # The first beat reads it too: until then the node knows the clock only as closely as its write took.
        if self._beats == 0 or self._clock.held_ms != held or held:
            await self._read_clock()
        if abs(self._clock.held_ms - held) > JUMP_MS:  # the others wait for this vote
            await self._write()
        if abs(self._clock.wall_offset_ms) > OFFSET_WARNING_MS and self._beats % OFFSET_WARNING_EVERY_BEATS == 0:
            log.warning("clock_offset", offset_ms=self._clock.wall_offset_ms)
        if self._beats % WATCH_EVERY_BEATS == 0 or self._clock.held_ms:
            await self._watch_nodes()
        await self._apply(requests)
        if self._beats % RULES_EVERY_BEATS == 0:
            await self._read_default_alert_rules()
        self._beats += 1

    async def _write(self) -> nodes.OperatorRequests:
        started = self._clock.monotonic()
        written = await nodes.write_heartbeat(self._context.db, self._context.node_id, self._report())
        self._written_at = self._clock.monotonic()
        self._next_after = self.seconds
        self._observe_clock(started, self._written_at, written.now_ms)
        return written.requests

    async def _read_clock(self) -> None:
        """The heartbeat's write read the clock when it began and then waited for a majority; this bounds it closer."""
        started = self._clock.monotonic()
        now_ms = await nodes.primary_clock_ms(self._context.db)
        if now_ms is not None:
            self._observe_clock(started, self._clock.monotonic(), now_ms)

    def _observe_clock(self, started: float, ended: float, server_ms: int) -> None:
        jumped_ms = self._clock.observe(started, ended, server_ms)
        if jumped_ms:
            log.warning("database_clock_jumped", by_ms=round(jumped_ms))
            self.clock_watch.jumped(jumped_ms)
            self._context.worker.clock_jumped()

    async def _watch_nodes(self) -> None:
        context = self._context
        started = self._clock.monotonic()
        heartbeats, now_ms = await nodes.heartbeats_and_clock(context.db)
        if now_ms is not None:  # it waited for no majority, so it bounds the clock as closely as `_read_clock`
            self._observe_clock(started, self._clock.monotonic(), now_ms)
        context.liveness.observe(heartbeats, self._clock.monotonic(), self._blind_after)
        alive = context.liveness.live_nodes(self._clock.monotonic(), context.timings.batch_lease)
        claiming = {h.id for h in heartbeats if h.id in alive and not h.drain_requested} | {context.node_id}
        self._claiming = len(claiming)
        self._blind_after = RARELY_READING_BLIND_SECONDS if self.seconds > HEARTBEAT_SECONDS else BLIND_SECONDS
        context.worker.share_with(claiming)
        context.elector.set_reserve(in_reserve=context.node_id not in first_candidates(claiming))
        await self._count_clock_votes(heartbeats)
        lease = context.timings.batch_lease
        context.elector.set_eligible(
            eligible=context.liveness.clock_agrees(context.node_id, self._written_at, lease),
        )

    async def _count_clock_votes(self, heartbeats: list[nodes.NodeHeartbeat]) -> None:
        """Hold cluster time against the primary's clock, or follow it, as the hosts vote; the leader keeps a note of it."""
        context = self._context
        alive = context.liveness.live_nodes(self._clock.monotonic(), context.timings.leader_lease)
        others = [ClockVote(h.host, h.clock_vote) for h in heartbeats if h.id in alive and h.id != context.node_id]
        if self.clock_watch.count(others):
            context.worker.clock_jumped()
        since_ms = self.clock_watch.holds_since_ms
        if since_ms is not None and context.elector.term is not None:
            await meta.record_clock_doubt(context.db, since_ms, self._clock.now_ms(), self._clock.held_ms)

    async def _apply(self, requests: nodes.OperatorRequests) -> None:
        """Drain or undrain this node, or give up leading, as the document of its heartbeat asks.

        When the leader resigns, one of its writes may be under way. That is a stale leader's write, which does no harm.
        """
        if self._shutting_down:
            return
        elector, worker = self._context.elector, self._context.worker
        term = elector.term
        lease = self._context.timings.leader_lease
        if requests.drain:
            await elector.step_aside(lease)  # renewed with each beat
            if not worker.draining:
                log.info("node_drained", held=len(worker.held))
            await worker.drain()  # each time, for a claim that was under way may have brought another batch
        elif term is not None and requests.resign_term == term.number:
            await elector.step_aside(lease)
        if not requests.drain and worker.draining:
            worker.undrain()
            log.info("node_undrained")

    async def _read_default_alert_rules(self) -> None:
        default = await meta.default_rules(self._context.db)
        self._context.worker.results.watch_by_default(NOT_WATCHED if default is None else watch_of(default))

    def _report(self) -> dict[str, Any]:
        """The fields of the heartbeat document."""
        worker = self._context.worker
        self._recent_drift.append(self._drift.take())
        recent = list(self._recent_drift)[-int(RECENT_BEATS * HEARTBEAT_SECONDS / self.seconds) :]
        return {
            "host": platform.node(),
            "pid": os.getpid(),
            "version": self._context.version,
            "schema": schema.SCHEMA_VERSION,
            "clock_offset_ms": self._clock.wall_offset_ms,
            "clock_vote": self.clock_watch.vote,
            "in_flight": worker.context.slots.in_flight,
            "waiting": worker.context.unsent.count,
            "leading": self._context.elector.term is not None,
            "draining": self._shutting_down or worker.draining,
            "counters": {
                **worker.stats.counters,
                "drift_recent": [sum(bucket) for bucket in zip(*recent, strict=True)],
            },
        }
