"""Probes: when a host may be tried again, one execution that waits for it goes first, by chance.

A job whose probe failed, or hangs, stands behind all other jobs. Otherwise one job whose own endpoint fails would keep the
host closed for them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.core.limits.circuit_breaker import Breaker
    from cluster.outbound.sender import Reply
    from cluster.worker.context import WorkerContext
    from cluster.worker.host_queues import HostQueues
    from cluster.worker.model import ReadyExecution
    from cluster.worker.run_queue import RunQueue

log = structlog.get_logger()

DRAW_SECONDS = 0.02
"""Until the rest of a batch waits for its host too, when the first of it finds that the host may be probed."""


class ProbeLottery:
    """The draws of one node. `send` is given an execution with the probe it has won, `defer` one that lost."""

    def __init__(
        self,
        context: WorkerContext,
        host_queues: HostQueues,
        run_queue: RunQueue,
        send: Callable[[ReadyExecution, Breaker], None],
        defer: Callable[[ReadyExecution], None],
    ) -> None:
        self._breakers = context.breakers
        self._unsent = context.unsent
        self._tasks = context.tasks
        self._host_queues = host_queues
        self._run_queue = run_queue
        self._send = send
        self._defer = defer
        self._drawing: set[str] = set()
        self._drawn: dict[str, str] = {}
        """By host, the execution that is to be its probe."""
        self._unsuited: set[str] = set()
        """Hosts for which nothing waits here but executions of jobs that should not be the probe yet."""

    def is_drawing(self, host: str) -> bool:
        """Whether a draw for this host is under way: executions that wait for it must stay."""
        return host in self._drawing

    def wants_others(self, host: str) -> bool:
        """Whether this node should claim more for this host although something waits for it: it needs another job."""
        return host in self._unsuited and self._breakers.waits_for_others(host)

    def is_drawn(self, ready: ReadyExecution) -> bool:
        """Whether this execution is to be the probe of its host."""
        return self._drawn.get(ready.job.host) == ready.execution.id

    def draw(self, host: str) -> None:
        """The host may be probed: have one of the executions that wait for it drawn."""
        if host not in self._drawing:
            self._drawing.add(host)
            self._tasks.spawn(self._draw(host))

    def probe(self, ready: ReadyExecution) -> None:
        """The drawn execution may go. It is sent if this node, of all nodes, wins the probe."""
        del self._drawn[ready.job.host]
        self._tasks.spawn(self._probe(ready))

    async def close(self, probe: Breaker, reply: Reply | None) -> bool:
        """The request of a probe has ended; None: it was not sent. Returns whether the host may be used again."""
        try:
            if reply is None or reply.error == "stalled":
                await self._breakers.abandon_probe(probe)
                return False
            return await self._breakers.finish_probe(probe, reply.status, reply.error)
        except StoreError as exc:  # the breaker stays half-open until its time is over; then another probe is sent
            log.warning("probe_unavailable", host=probe.host, error=str(exc))
            return False

    async def _draw(self, host: str) -> None:
        await asyncio.sleep(DRAW_SECONDS)
        self._drawing.discard(host)
        ready = self._host_queues.draw(
            host, self._breakers.failed_jobs(host), others_only=self._breakers.waits_for_others(host)
        )
        if ready is None:
            self._unsuited.add(host)
        else:
            self._unsuited.discard(host)
            # It goes the way of all others: its job may have to be read again, and its limit has to let it through. If
            # it does not get to be sent, the next execution for this host has another one drawn.
            self._drawn[host] = ready.execution.id
            self._run_queue.enqueue(ready)
            self._run_queue.start_due()

    async def _probe(self, ready: ReadyExecution) -> None:
        won = None
        try:
            won = await self._breakers.acquire_probe(ready.job.host, ready.source, ready.job.target.timeout_seconds)
        except StoreError as exc:
            log.warning("probe_unavailable", host=ready.job.host, error=str(exc))
        held = ready.held
        if ready.execution.id not in held.waiting or self._run_queue.stopped or self._unsent.drop_if_lapsed(held):
            if won is not None:
                await self._breakers.abandon_probe(won)
        elif won is None:
            self._defer(ready)
        else:
            self._send(ready, won)
