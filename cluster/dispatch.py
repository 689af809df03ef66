"""Sending: executions of leased batches wait for the cluster clock, pass the last check, and are POSTed.

The dispatcher owns the slots of one node. It never starts an execution whose lease may have ended, and it reads jobs
at most a second before it sends for them. What comes of a request is handed on as a value.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog

from cluster.core.lanes import Lane
from cluster.core.lifecycle import Event, JobState
from cluster.core.model import Attempt
from cluster.core.outcome import planned_ms, too_old
from cluster.core.trace import traceparent
from cluster.outbound.headers import delivery_headers
from cluster.store import definitions
from cluster.tasks import stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.clock import Clock
    from cluster.core.model import Batch, Execution, Job
    from cluster.core.trace import Trace
    from cluster.outbound.sender import Reply, Sender
    from cluster.store.client import Database
    from cluster.store.definitions import Read

log = structlog.get_logger()

STALE_SECONDS = 1.0
"""A job read longer ago than this is read again before its execution is sent."""
LEAD_SECONDS = 0.05
LEAD_PER_EXECUTION = 0.0004
LEAD_MOST = 0.9


@dataclass(eq=False, slots=True)
class Held:
    """A batch this node holds: what is still open of it. `valid_until` is monotonic seconds, moved by renewals."""

    batch: Batch
    valid_until: float
    waiting: dict[str, Execution] = field(default_factory=dict)
    sending: set[str] = field(default_factory=set)
    unrecorded: int = 0
    lost: bool = False
    taken_ms: int = 0
    """When it was claimed, in cluster time."""

    @property
    def done(self) -> bool:
        """Whether nothing of it is open."""
        return not self.waiting and not self.sending and not self.unrecorded


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that ended: the execution with the attempt appended, the job as it was sent, and the reply."""

    held: Held
    execution: Execution
    job: Job
    attempts: tuple[Attempt, ...]
    reply: Reply
    drift_ms: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """An execution that must not be sent: the reason, and the event that this is in its life."""

    held: Held
    execution: Execution
    reason: str
    event: Event = Event.CANCEL
    retention_days: float | None = None


@dataclass(slots=True)
class _Ready:
    held: Held
    execution: Execution
    job: Job
    request: Any
    read_at: float


def refusal(execution: Execution, job: Job | None) -> str | None:
    """Why this execution must not be sent for the job as it is now; None if it may (DESIGN 5, "Send")."""
    if job is None or job.state is JobState.DELETED:
        return "the job was deleted"
    if execution.trigger:
        return None
    if job.state is JobState.PAUSED:
        return "the job was paused"
    if job.schedule_version != execution.schedule_version:
        return "the schedule was changed"
    if execution.due_ms < job.active_from_ms:
        return "the job was changed or resumed after this was due"
    return None


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where the dispatcher hands on what it did."""

    answered: Callable[[Answered], None]
    dropped: Callable[[Dropped], None]
    forgotten: Callable[[Held], None]
    """A lost batch has nothing open any more."""
    may_overlap: Callable[[Execution], Any]
    """Awaitable deciding `overlap: skip`: whether this execution may run now."""


class Dispatcher:
    """The slots of one node."""

    def __init__(self, db: Database, clock: Clock, sender: Sender, node: str, slots: int, hooks: Hooks) -> None:
        self._db = db
        self._clock = clock
        self._sender = sender
        self._node = node
        self._slots = slots
        self._hooks = hooks
        self._heap: list[tuple[int, int, _Ready]] = []
        self._parked: dict[int, deque[_Ready]] = {}
        self._order = count()
        self._lanes: dict[int, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.in_flight = 0
        self.waiting = 0
        self.lapsed = 0
        """Batches whose lease ended here before their work was done, and before a renewal said so."""
        self.stopped = False
        self.trace: Trace | None = None

    def add(self, held: Held, executions: Iterable[Execution]) -> None:
        """Take on what a claim brought."""
        held.waiting.update((e.id, e) for e in executions)
        self.waiting += len(held.waiting)
        self._spawn(self._prepare(held, None))

    def saturated_lanes(self) -> tuple[int, ...]:
        """Lanes of which nothing more should be claimed here now."""
        now = self._clock.monotonic()
        return tuple(n for n, lane in self._lanes.items() if lane.saturated(self._slots, now))

    def withdraw(self, held: Held) -> list[Execution]:
        """Take back what has not been sent of a batch; it will not be sent by this node under this lease."""
        taken = list(held.waiting.values())
        self.waiting -= len(taken)
        held.waiting.clear()
        return taken

    def parked(self) -> list[Held]:
        """Batches of which something waits behind a saturated lane."""
        return list({r.held for q in self._parked.values() for r in q if r.execution.id in r.held.waiting})

    async def finish(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long."""
        self.stopped = True
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def close(self) -> None:
        """Cancel what is left; its leases will end by themselves."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
        await stop(self._tasks)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("dispatch_failed", exc_info=exc)

    async def _prepare(self, held: Held, only: set[str] | None) -> None:
        """Shortly before the send time, read the jobs, decide, and make the requests ready."""
        lead = min(LEAD_MOST, LEAD_SECONDS + LEAD_PER_EXECUTION * self.waiting)
        delay = self._clock.until(held.batch.send_ms) - lead
        if delay > 0:
            await asyncio.sleep(delay)
        while not self.stopped:
            wanted = [e for i, e in held.waiting.items() if only is None or i in only]
            if not wanted or self._gone(held):
                return
            read_at = self._clock.monotonic()
            try:
                read = await definitions.by_id(self._db, {e.job_id for e in wanted})
            except Exception as exc:  # whatever it was, the batch is still ours: try again until its lease ends
                log.warning("jobs_unread", batch=held.batch.id, error=str(exc))
                await asyncio.sleep(0.25)
                continue
            self._sort_out(held, wanted, read, read_at)
            return

    def _sort_out(self, held: Held, wanted: list[Execution], read: Read, read_at: float) -> None:
        for execution in wanted:
            if execution.id not in held.waiting:
                continue
            try:
                self._decide(held, execution, read, read_at)
            except Exception as exc:  # one that cannot be made ready must not keep its batch waiting for ever
                log.exception("execution_unsendable", execution=execution.id)
                why = f"its request could not be made: {type(exc).__name__}: {str(exc)[:200]}"
                self._drop(Dropped(held, execution, why, Event.EXHAUST))
        self._pump()

    def _decide(self, held: Held, execution: Execution, read: Read, read_at: float) -> None:
        """Whether an execution goes out for its job as it is now, and its request if it does."""
        if execution.job_id in read.unreadable:
            why = f"the job's document could not be read: {read.unreadable[execution.job_id]}"
            self._drop(Dropped(held, execution, why, Event.EXHAUST))
            return
        job = read.jobs.get(execution.job_id)
        reason = refusal(execution, job)
        if reason is not None or job is None:
            kept = None if job is None else job.retention_days
            self._drop(Dropped(held, execution, reason or "the job was deleted", retention_days=kept))
            return
        old = too_old(execution, job, self._clock.now_ms())
        if old is not None:
            self._drop(Dropped(held, execution, old, Event.EXHAUST, job.retention_days))
            return
        number = len(execution.attempts) + 1
        parent = traceparent(execution.id, number, held.batch.token, self.trace)
        headers = delivery_headers(execution, job, number, held.batch.token, parent, self._clock.now_ms())
        request = self._sender.prepare(job.target, headers)
        self._line_up(_Ready(held, execution, job, request, read_at))

    def _line_up(self, ready: _Ready) -> None:
        # What is late already stands behind what became due before it got here, not in front of everything.
        at = max(ready.execution.send_ms, self._clock.now_ms())
        heapq.heappush(self._heap, (at, next(self._order), ready))

    def _drop(self, dropped: Dropped) -> None:
        if dropped.held.waiting.pop(dropped.execution.id, None) is not None:
            self.waiting -= 1
        dropped.held.unrecorded += 1
        self._hooks.dropped(dropped)

    def _gone(self, held: Held) -> bool:
        """Whether the lease may have ended; what is unsent is dropped then, for whoever claims it next."""
        if held.lost or self._clock.monotonic() >= held.valid_until:
            if not held.lost:
                log.warning("lease_lapsed", batch=held.batch.id, token=held.batch.token, unsent=len(held.waiting))
                self.lapsed += 1
            held.lost = True
            self.withdraw(held)
            if held.done:
                self._hooks.forgotten(held)
            return True
        return False

    def _pump(self) -> None:
        """Start everything that is due, while there are slots."""
        if self.stopped:
            return
        now_ms = self._clock.now_ms()
        heap = self._heap
        while heap and heap[0][0] <= now_ms and self.in_flight < self._slots:
            self._start(heapq.heappop(heap)[2])
        if heap and heap[0][0] > now_ms:
            self._wake_at(heap[0][0])

    def _wake_at(self, instant_ms: int) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, self._clock.until(instant_ms))
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._alarm)

    def _alarm(self) -> None:
        self._timer = None
        self._pump()

    def _start(self, ready: _Ready) -> None:
        held, execution = ready.held, ready.execution
        if execution.id not in held.waiting or self._gone(held):
            return
        now = self._clock.monotonic()
        if now - ready.read_at > STALE_SECONDS:
            self._spawn(self._prepare(held, {execution.id}))
            return
        lane = self._lanes.get(execution.lane)
        if lane is None:
            lane = self._lanes[execution.lane] = Lane()
        if lane.saturated(self._slots, now):
            self._parked.setdefault(execution.lane, deque()).append(ready)
            return
        del held.waiting[execution.id]
        held.sending.add(execution.id)
        self.waiting -= 1
        self.in_flight += 1
        lane.begin(execution.id, now)
        self._spawn(self._send(ready, lane))

    async def _send(self, ready: _Ready, lane: Lane) -> None:
        held, execution, job = ready.held, ready.execution, ready.job
        try:
            if job.overlap_skip and not await self._hooks.may_overlap(execution):
                held.sending.discard(execution.id)
                held.unrecorded += 1
                why = "the run before it had not ended"
                self._hooks.dropped(Dropped(held, execution, why, Event.SKIP, job.retention_days))
                return
            sent_ms = self._clock.now_ms()
            reply = await self._sender.send(ready.request)
            attempt = Attempt(
                len(execution.attempts) + 1,
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
            self._hooks.answered(Answered(held, execution, job, attempts, reply, attempts[0].sent_ms - planned))
        except Exception:
            # Whether it was sent is not known. Let the lease end and whoever claims it next decide.
            held.lost = True
            log.exception("send_failed", execution=execution.id)
        finally:
            held.sending.discard(execution.id)
            if held.lost and held.done:
                self._hooks.forgotten(held)
            self.in_flight -= 1
            lane.end(execution.id, self._clock.monotonic())
            self._unpark(execution.lane)
            self._pump()

    def _unpark(self, number: int) -> None:
        """Slots of a lane came free: what waited longest goes back in line."""
        queue = self._parked.get(number)
        if queue is None:
            return
        lane = self._lanes[number]
        room = lane.limit(self._slots, self._clock.monotonic()) - lane.running
        while queue and room > 0:
            ready = queue.popleft()
            if ready.execution.id in ready.held.waiting:
                self._line_up(ready)
                room -= 1
        if not queue:
            del self._parked[number]
