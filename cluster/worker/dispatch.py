"""Sending: executions of leased batches wait for the cluster clock, pass the last check, and are POSTed.

The dispatcher owns the slots of one node. It never starts an execution whose lease may have ended, and it sends nothing
for a job that was read more than a second ago. What comes of a request is handed on as a value. What may not go yet waits
in `parking` (for its host) or `lines` (for its limit).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from cluster.core.errors import StoreError
from cluster.core.execution.model import Attempt
from cluster.core.execution.outcome import max_age_reason, next_attempt_number, planned_ms
from cluster.core.lifecycle import Event
from cluster.core.limits.circuit_breaker import Admission
from cluster.core.limits.host_slots import HostSlots
from cluster.loops import cancel_and_wait
from cluster.worker.host_queues import HostQueues
from cluster.worker.leases import DroppedExecution, FinishedRequest
from cluster.worker.limit_queues import LimitQueues
from cluster.worker.pending import Unsent
from cluster.worker.prepare import Preparer
from cluster.worker.run_queue import RunQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.core.execution.model import Execution
    from cluster.core.execution.trace import SpanCollector
    from cluster.core.limits.circuit_breaker import Breaker
    from cluster.outbound.sender import Reply
    from cluster.worker.context import WorkerContext
    from cluster.worker.leases import Deferral, HeldBatch, ReadyExecution

log = structlog.get_logger()

STALE_SECONDS = 1.0
"""A job read longer ago than this is read again before its execution is sent."""
DRAW_SECONDS = 0.02
"""Until the rest of a batch waits for its host too, when the first of it finds that the host may be probed."""
STUCK_SECONDS = 1.0
"""No slot free and none freed for so long: what waits here is better sent by another node."""


@dataclass(frozen=True, slots=True)
class DispatchHooks:
    """Where the dispatcher hands on what it did."""

    request_finished: Callable[[FinishedRequest], None]
    execution_dropped: Callable[[DroppedExecution], None]
    lost_batch_closed: Callable[[HeldBatch], None]
    """A lost batch has nothing open any more."""
    may_overlap: Callable[[Execution], Any]
    """Awaitable deciding `overlap: skip`: whether this execution may run now."""


class Dispatcher:
    """The slots of one node."""

    def __init__(self, doors: WorkerContext, node: str, slots: int, hooks: DispatchHooks) -> None:
        self._clock = clock = doors.clock
        self._sender = doors.sender
        self._breakers = doors.breakers
        self._node = node
        self._slots = slots
        self._hooks = hooks
        self._lanes = HostSlots(slots)
        self._unsent = Unsent(clock, hooks.execution_dropped, hooks.lost_batch_closed)
        self._queue = RunQueue(clock, self._free, self._start)
        self._preparer = Preparer(doors, self._unsent, self._queue, self._spawn)
        self._parking = HostQueues(clock, doors.breakers, self._lanes, self._free, self._start)
        self._lines = LimitQueues(clock, doors.rate_limiter, self._queue, self._spawn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._drawing: set[str] = set()
        self._drawn: dict[str, str] = {}
        """By host, the execution that is to be its probe."""
        self._freed_at = 0.0
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """Executions that have not been sent."""
        return self._unsent.count

    @property
    def lapsed_leases(self) -> int:
        """Batches whose lease ended here before their work was done, and before a renewal said so."""
        return self._unsent.lapsed_leases

    def set_tracer(self, trace: SpanCollector | None) -> None:
        """Name the spans of the attempts to their targets as this trace does."""
        self._preparer.trace = trace

    def add(self, held: HeldBatch, executions: Iterable[Execution]) -> None:
        """Take on what a claim brought."""
        self._unsent.add(held, executions)
        self._preparer.prepare_batch(held)

    def hosts_blocked(self) -> tuple[str, ...]:
        """Hosts for which nothing more should be claimed here now."""
        return tuple(
            {*self._lanes.full_hosts(self._clock.monotonic()), *self._breakers.hosts_blocked(), *self._parking.hosts()}
        )

    def slow_hosts(self) -> list[str]:
        """Hosts that use all they may and are slow."""
        return self._lanes.slow_hosts(self._clock.monotonic())

    def saturated_limits(self) -> tuple[str, ...]:
        """Limits that something waits for here already: nothing more should be claimed for them."""
        return self._lines.saturated()

    def withdraw(self, held: HeldBatch, only: Iterable[Execution] | None = None) -> list[Execution]:
        """Take back what has not been sent of a batch; it will not be sent by this node under this lease."""
        return self._unsent.withdraw(held, only)

    def deferrals(self, seconds: float, limited_seconds: float) -> list[Deferral]:
        """What waits because a breaker is open, or for so long already for its slow host, or its limit."""
        now = self._clock.monotonic()
        parked = [p for p in self._parking.deferrals(now - seconds) if p.host not in self._drawing]
        return parked + self._lines.deferrals(now - limited_seconds)

    def stuck(self) -> bool:
        """Whether every slot hangs: nobody knows when one comes free."""
        return self.in_flight >= self._slots and self._clock.monotonic() - self._freed_at > STUCK_SECONDS

    def overdue_batches(self) -> list[HeldBatch]:
        """Batches of which something is due and waits for a slot."""
        return self._queue.overdue_batches()

    def permits_returned(self, gates: Iterable[str]) -> None:
        """Something that ran under these limits has ended: whoever waits may ask at once."""
        self._lines.wake(gates)

    def start_waiting(self, host: str | None = None) -> None:
        """A breaker has changed, or a request to this host has ended: what waits may go."""
        if not self._queue.stopped:
            self._parking.start_waiting(host)
            self._queue.start_due()

    def clock_jumped(self) -> None:
        """What was lined up by another time than it is now is lined up anew."""
        if not self._queue.stopped:
            self._queue.retime()

    def halt(self) -> None:
        """Start nothing more."""
        self._queue.stopped = True

    async def wait_in_flight(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long."""
        self.halt()
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def close(self) -> None:
        """Cancel what is left; its leases will end by themselves."""
        self._queue.close()
        await cancel_and_wait(self._tasks)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("dispatch_failed", exc_info=exc)

    def _free(self) -> bool:
        return self.in_flight < self._slots

    def _start(self, ready: ReadyExecution) -> None:
        held, execution = ready.held, ready.execution
        if execution.id not in held.waiting or self._unsent.drop_if_lapsed(held):
            return
        now = self._clock.monotonic()
        host = ready.job.host
        gate = self._breakers.admission(host)
        if gate is Admission.HOLD or not self._lanes.has_room(host, now):
            self._park(ready)
        elif gate is Admission.PROBE and self._drawn.get(host) != ready.execution.id:
            self._park(ready)
            if host not in self._drawing:
                self._drawing.add(host)
                self._spawn(self._draw(host))
        elif now - ready.read_at > STALE_SECONDS:
            # Only for what has room, and together: a read for each of hundreds would use up every connection.
            self._preparer.prepare_again(ready)
        elif ready.job.limit_key is not None and not self._lines.admit(ready):
            return
        elif gate is Admission.PROBE:
            del self._drawn[host]
            self._spawn(self._probe(ready))
        else:
            self._launch(ready, None)

    def _park(self, ready: ReadyExecution) -> None:
        self._lines.return_permit(ready)
        self._parking.add(ready)

    def _launch(self, ready: ReadyExecution, probe: Breaker | None) -> None:
        self._unsent.start_sending(ready.held, ready.execution.id)
        self.in_flight += 1
        self._lanes.begin(ready.job.host, ready.execution.id, self._clock.monotonic())
        self._spawn(self._send(ready, probe))

    async def _draw(self, host: str) -> None:
        """Let chance decide which of those that wait for a host is its probe.

        Were it the first, it would be the same one each time, and one job whose own endpoint fails would keep the host
        from all the others.
        """
        await asyncio.sleep(DRAW_SECONDS)
        self._drawing.discard(host)
        ready = self._parking.draw(host)
        if ready is not None:
            # It goes the way of all others: its job may have to be read again, and its limit has to let it through. If
            # nothing comes of it, the next one that comes along has another drawn.
            self._drawn[host] = ready.execution.id
            self._queue.enqueue(ready)
            self._queue.start_due()

    async def _probe(self, ready: ReadyExecution) -> None:
        """One request finds out whether the host is back, if this node wins it; whatever else there is waits."""
        won = None
        try:
            won = await self._breakers.acquire_probe(ready.job.host, ready.job.target.timeout_seconds)
        except StoreError as exc:
            log.warning("probe_unavailable", host=ready.job.host, error=str(exc))
        if (
            ready.execution.id not in ready.held.waiting
            or self._queue.stopped
            or self._unsent.drop_if_lapsed(ready.held)
        ):
            if won is not None:
                await self._breakers.abandon_probe(won)
        elif won is None:
            self._park(ready)
        else:
            self._launch(ready, won)

    async def _send(self, ready: ReadyExecution, probe: Breaker | None) -> None:
        held, execution, job = ready.held, ready.execution, ready.job
        reply = None
        try:
            if job.overlap_skip and not await self._hooks.may_overlap(execution):
                why = "the run before it had not ended"
                self._drop_launched(ready, DroppedExecution(held, execution, why, Event.SKIP, job.retention_days))
                return
            # Nothing is awaited between this and the request: to get here may have taken longer than the lease.
            if self._unsent.drop_if_lapsed(held):
                return
            sent_ms = self._clock.now_ms()
            old = max_age_reason(execution, job, sent_ms)
            if old is not None:
                self._drop_launched(
                    ready, DroppedExecution(held, execution, old, Event.EXHAUST, job.retention_days, job.watch)
                )
                return
            reply = await self._sender.send(ready.request)
            self._breakers.record_attempt(job.host, reply.status, reply.error)
            attempt = Attempt(
                next_attempt_number(execution.attempts),
                sent_ms,
                self._node,
                held.batch.token,
                reply.duration_ms,
                reply.status,
                reply.error,
                reply.detail,
                reply.excerpt,
            )
            attempts = (*execution.attempts, attempt)
            planned = planned_ms(execution, job)
            held.sending.discard(execution.id)
            held.unrecorded += 1
            drift_ms = attempts[0].sent_ms - planned
            self._hooks.request_finished(FinishedRequest(held, execution, job, attempts, reply, drift_ms, ready.permit))
        except Exception:
            # Whether it was sent is not known. Let the lease end and whoever claims it next decide.
            held.lost = True
            log.exception("send_failed", execution=execution.id)
        finally:
            held.sending.discard(execution.id)
            if held.lost and held.done:
                self._hooks.lost_batch_closed(held)
            self.in_flight -= 1
            self._freed_at = self._clock.monotonic()
            self._lanes.end(job.host, execution.id, self._clock.monotonic())
            self.start_waiting(job.host)
            if probe is not None:
                await self._after_probe(probe, reply)

    def _drop_launched(self, ready: ReadyExecution, dropped: DroppedExecution) -> None:
        """It has its slot, and maybe its permit, but must not be sent."""
        ready.held.sending.discard(ready.execution.id)
        ready.held.unrecorded += 1
        self._lines.return_permit(ready)
        self._hooks.execution_dropped(dropped)

    async def _after_probe(self, probe: Breaker, reply: Reply | None) -> None:
        try:
            if reply is None or reply.error == "stalled":
                await self._breakers.abandon_probe(probe)
            elif await self._breakers.finish_probe(probe, reply.status, reply.error):
                self.start_waiting()
        except StoreError as exc:  # it stays half-open until its time is over; then another probe is sent
            log.warning("probe_unavailable", host=probe.host, error=str(exc))
