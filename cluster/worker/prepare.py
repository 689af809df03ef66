"""Preparing: shortly before the send time the jobs are read as they are now, and requests are made or executions dropped.

An execution that has waited for long is prepared again. At the send time there is only the sending left to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from cluster.core.alerts import NOT_WATCHED
from cluster.core.execution.outcome import (
    cancellation_reason,
    exhaustion_reason,
    max_age_reason,
    next_attempt_number,
    waits_for_resume,
)
from cluster.core.execution.templates import fill_in
from cluster.core.execution.trace import traceparent
from cluster.core.lifecycle import Event
from cluster.core.windows import SkippingWindow
from cluster.outbound.headers import delivery_headers
from cluster.store import engine_jobs, message_jobs
from cluster.store.engine_jobs import JobsById
from cluster.worker.due_batches import MAX_READ, DueBatches
from cluster.worker.early_requests import EarlyRequests
from cluster.worker.model import (
    WATCH_FAILURES,
    DroppedExecution,
    ReadyExecution,
    job_stamp,
    unreadable_reason,
    unsendable_reason,
)
from cluster.worker.paused import PausedExecutions
from cluster.worker.run_queue import LOOK_AGAIN_SECONDS

if TYPE_CHECKING:
    from cluster.core.alerts import ResultWatch
    from cluster.core.execution.model import Execution, Job
    from cluster.worker.context import WorkerContext
    from cluster.worker.held_batch import HeldBatch
    from cluster.worker.host_queues import HostQueues
    from cluster.worker.run_queue import RunQueue

log = structlog.get_logger()

MAX_REREAD = 256
SORTED_OUT_AT_ONCE = 128  # some 3 ms
READ_RETRY_SECONDS = 0.25
SLOW_READ_SECONDS = 0.3
"""If it took longer to read a large body, it is asked afterwards whether the job is still as it was."""
LEAD_SECONDS = 0.05
LEAD_PER_EXECUTION = 0.0001
"""A lead that is too long costs more than one that is too short: what is not sent within a second of its reading is read again."""
READY_AT_ONCE = 2048
"""Of one send time that are prepared before it: a node sends them in less than a second. Others are prepared as they leave."""
GATHER_SECONDS = 0.1
"""How often the lead is computed anew: while more is claimed for the same instant, it grows."""


class _JobsRead(NamedTuple):
    jobs: JobsById
    at: float
    """Monotonic seconds before the read."""


class Preparer:
    """Makes requests for executions that wait, and puts them into the run queue."""

    def __init__(self, context: WorkerContext, run_queue: RunQueue, host_queues: HostQueues) -> None:
        self._db = context.db
        self._clock = context.clock
        self._sender = context.sender
        self._collector = context.collector
        self._unsent = context.unsent
        self._tasks = context.tasks
        self._rate_limiter = context.rate_limiter
        self._windows = context.windows
        self._run_queue = run_queue
        self._due = DueBatches(
            context.tasks, run_queue, host_queues.count_moving, host_queues.count_waiting, self._prepare_now
        )
        self.paused = PausedExecutions(context.clock)
        self._early = EarlyRequests(context.db, self._request)
        self._unprepared: dict[int, list[HeldBatch]] = {}
        """By send time (ms), the batches that are to be prepared together."""
        self._stale: list[ReadyExecution] = []
        self._rereading = False

    def prepare_batch(self, held: HeldBatch) -> None:
        """Prepare all of a batch when its time has come, together with the other batches of this time."""
        together = self._unprepared.get(held.batch.send_ms)
        if together is not None:
            together.append(held)
            return
        self._unprepared[held.batch.send_ms] = [held]
        self._tasks.spawn(self._prepare(held.batch.send_ms))

    def prepare_again(self, ready: ReadyExecution) -> None:
        """Its job was read too long ago."""
        self._stale.append(ready)
        if not self._rereading:
            self._rereading = True
            self._tasks.spawn(self._reread())

    async def _prepare(self, send_ms: int) -> None:
        """Shortly before the send time, prepare all batches that are held for it by then."""
        early = 0
        # A millisecond is near enough: on a virtual clock the rest that a sum of floats leaves over would never pass.
        while (delay := self._clock.seconds_until(send_ms) - self._lead_seconds()) > 0.001:
            together = self._unprepared[send_ms]
            if early < len(together) and self._unsent.count > READY_AT_ONCE:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):  # nothing waits for what only saves time
                        await self._early.prepare(together[early])
                early += 1
            else:
                gathers = delay < LOOK_AGAIN_SECONDS or self._unsent.count > READY_AT_ONCE
                await asyncio.sleep(min(delay, GATHER_SECONDS if gathers else LOOK_AGAIN_SECONDS))
            if self._run_queue.stopped or not any(held.waiting for held in self._unprepared[send_ms]):
                del self._unprepared[send_ms]
                return
        batches = self._unprepared.pop(send_ms)
        if self._clock.seconds_until(send_ms) <= 0:
            self._due.add(batches)
            return
        together, count = [], 0
        for place, held in enumerate(batches):
            count += len(held.waiting)
            if count > READY_AT_ONCE and together:
                self._tasks.spawn(self._prepare_when_due(send_ms, batches[place:]))
                break
            if together and sum(len(h.waiting) for h in together) + len(held.waiting) > MAX_READ:
                self._tasks.spawn(self._prepare_now(together))
                together = []
            together.append(held)
        await self._prepare_now(together)

    async def _prepare_when_due(self, send_ms: int, batches: list[HeldBatch]) -> None:
        while (delay := self._clock.seconds_until(send_ms)) > 0.001:
            await asyncio.sleep(min(delay, LOOK_AGAIN_SECONDS))
            if self._run_queue.stopped:
                return
        self._due.add(batches)

    def unprepared(self) -> list[HeldBatch]:
        """Batches that are due and wait to be prepared, because enough is ready."""
        return self._due.unprepared()

    def _lead_seconds(self) -> float:
        return LEAD_SECONDS + LEAD_PER_EXECUTION * min(self._unsent.count, READY_AT_ONCE)

    async def _prepare_now(self, together: list[HeldBatch]) -> None:
        """Read the jobs, decide, and make the requests."""
        while not self._run_queue.stopped:
            wanted = {h: list(h.waiting.values()) for h in together if not self._unsent.drop_if_lapsed(h)}
            executions = [e for members in wanted.values() for e in members]
            if not executions:
                return
            read = await self._read_jobs(together[0], executions)
            if read is None:
                continue
            for held, members in wanted.items():
                for n in range(0, len(members), SORTED_OUT_AT_ONCE):
                    self._sort_out(held, members[n : n + SORTED_OUT_AT_ONCE], read, {})
                    await asyncio.sleep(0)  # what is due by now leaves in between
            return

    async def _reread(self) -> None:
        """Read the jobs of stale executions again, many in one read."""
        try:
            while self._stale and not self._run_queue.stopped:
                taken, self._stale = self._stale[:MAX_REREAD], self._stale[MAX_REREAD:]
                taken = [
                    r for r in taken if r.execution.id in r.held.waiting and not self._unsent.drop_if_lapsed(r.held)
                ]
                if not taken:
                    continue
                read = await self._read_jobs(taken[0].held, [r.execution for r in taken])
                if read is None:
                    self._stale = taken + self._stale
                    continue
                for r in taken:
                    self._sort_out(r.held, [r.execution], read, {r.execution.id: r})
        finally:
            self._rereading = False

    async def _read_jobs(
        self, held: HeldBatch, executions: list[Execution], *, large_bodies: bool = False
    ) -> _JobsRead | None:
        """The jobs of these as they are now. None, after a moment: they could not be read, so try again.

        Whatever kept them from being read, the batches are still held by this node, until their leases end.
        """
        at = self._clock.monotonic()
        try:
            await self._windows.refresh()
            read = engine_jobs.by_id_in_full if large_bodies else engine_jobs.by_id
            messages = [e for e in executions if e.message is not None]
            if not messages:
                return _JobsRead(await read(self._db, {e.job_id for e in executions}), at)
            jobs, unreadable = await message_jobs.as_jobs(self._db, messages, large_bodies=large_bodies)
            if len(messages) < len(executions):
                of_jobs = await read(self._db, {e.job_id for e in executions if e.message is None})
                jobs, unreadable = jobs | of_jobs.jobs, unreadable | of_jobs.unreadable
            return _JobsRead(JobsById(jobs, unreadable), at)
        except Exception as exc:
            log.warning("jobs_unavailable", batch=held.batch.id, error=str(exc))
            await asyncio.sleep(READ_RETRY_SECONDS)
            return None

    def _sort_out(
        self, held: HeldBatch, wanted: list[Execution], read: _JobsRead, before: dict[str, ReadyExecution]
    ) -> None:
        """`before`: those that were ready once, by execution id."""
        for execution in wanted:
            if execution.id not in held.waiting:
                continue
            try:
                self._decide(held, execution, read, before.get(execution.id))
            except Exception as exc:  # one bad execution must not keep its batch waiting for ever
                log.exception("execution_unsendable", execution=execution.id)
                self._drop(held, execution, unsendable_reason(exc), job=read.jobs.jobs.get(execution.job_id))
        self._run_queue.start_due()

    def _decide(self, held: HeldBatch, execution: Execution, read: _JobsRead, before: ReadyExecution | None) -> None:
        """Whether an execution goes out for its job as it is now, and its request if it does."""
        if execution.job_id in read.jobs.unreadable:
            self._drop(held, execution, unreadable_reason(execution, read.jobs.unreadable[execution.job_id]))
            return
        job = read.jobs.jobs.get(execution.job_id)
        cancelled = cancellation_reason(execution, job)
        if cancelled is not None or job is None:
            self._drop(held, execution, cancelled or "the job was deleted", event=Event.CANCEL, job=job)
            return
        over = exhaustion_reason(execution, job) or max_age_reason(execution, job, self._clock.now_ms())
        if over is not None:
            self._drop(held, execution, over, watch=job.watch, job=job)
            return
        by_window = self._windows.decide(execution, job)
        if isinstance(by_window, SkippingWindow):
            self._drop(held, execution, by_window.reason, event=Event.SKIP, watch=job.watch, job=job)
            return
        permit = None if before is None else before.permit
        paused = waits_for_resume(execution, job)
        if paused or by_window is not None:
            self.paused.add(held, execution, job, None if paused else by_window)
            if permit is not None:
                self._tasks.spawn(self._rate_limiter.release([permit]))
            return
        if before is not None and before.job is job and before.request is not None and job.signing_secret is None:
            before.confirm(read.at)  # its request is as it would be made now; a signature names the time
            self._run_queue.enqueue(before)
            return
        request = self._early.take(held, execution.id, job)
        if request is None and not job.target.unread_bytes:
            request = self._request(held, execution, job)
        again = before is not None
        self._run_queue.enqueue(ReadyExecution(held, execution, job, request, read.at, permit=permit, read_again=again))

    def _request(self, held: HeldBatch, execution: Execution, job: Job) -> Any:
        number = next_attempt_number(execution.attempts)
        parent = traceparent(execution.id, number, held.batch.token, self._collector)
        if job.target.templated:
            job = replace(job, target=fill_in(job.target, execution, number))
        headers = delivery_headers(execution, job, number, held.batch.token, parent, self._clock.now_ms())
        return self._sender.prepare(job.target, headers)

    async def load(self, ready: ReadyExecution) -> tuple[str, Event] | None:
        """Read the large body of an execution that has its slot, and make its request.

        Returns why it must not be sent, if its job says so by now. Without a request: the lease has ended meanwhile.
        """
        execution, held = ready.execution, ready.held
        while not self._unsent.drop_if_lapsed(held):
            read = await self._read_jobs(held, [execution], large_bodies=True)
            if read is not None and self._clock.monotonic() - read.at > SLOW_READ_SECONDS:
                read = await self._confirmed(held, execution, read)
            if read is None:
                continue
            job = read.jobs.jobs.get(execution.job_id)
            unreadable = read.jobs.unreadable.get(execution.job_id)
            if unreadable is not None:
                return unreadable_reason(execution, unreadable), Event.EXHAUST
            cancelled = cancellation_reason(execution, job)
            if cancelled is not None or job is None:
                return cancelled or "the job was deleted", Event.CANCEL
            if waits_for_resume(execution, job) or self._windows.decide(execution, job) is not None:
                return "its job is paused, or a window holds it", Event.RELEASE
            try:
                request = self._request(held, execution, job)
            except Exception as exc:
                log.exception("execution_unsendable", execution=execution.id)
                return unsendable_reason(exc), Event.EXHAUST
            ready.load(replace(job, target=replace(job.target, body=b"")), request, read.at)
            return None
        return None

    async def confirm(self, ready: ReadyExecution) -> bool:
        """Whether the job of an execution is still as it was read, and no window holds it now: then that reading is as old as
        this look at it.
        """
        read = await self._read_jobs(ready.held, [ready.execution])
        same = read is not None and job_stamp(read.jobs.jobs.get(ready.job.id)) == job_stamp(ready.job)
        same = same and self._windows.decide(ready.execution, ready.job) is None
        if same and read is not None:
            ready.confirm(read.at)
        return same

    async def _confirmed(self, held: HeldBatch, execution: Execution, read: _JobsRead) -> _JobsRead | None:
        """The same job, as old as this look at it. None: it has changed meanwhile, so it must be read again.

        Otherwise a body that takes longer to read than a reading may be old would never be sent.
        """
        now = await self._read_jobs(held, [execution])
        if now is None or job_stamp(now.jobs.jobs.get(execution.job_id)) != job_stamp(
            read.jobs.jobs.get(execution.job_id)
        ):
            return None
        return read._replace(at=now.at)

    def _drop(
        self,
        held: HeldBatch,
        execution: Execution,
        reason: str,
        *,
        event: Event = Event.EXHAUST,
        watch: ResultWatch | None = WATCH_FAILURES,
        job: Job | None = None,
    ) -> None:
        retention_days = None if job is None else job.retention_days
        if execution.message is not None:
            watch, retention_days = NOT_WATCHED, execution.message.get("retention_days")
        dropped = DroppedExecution(
            held=held,
            execution=execution,
            reason=reason,
            event=event,
            retention_days=retention_days,
            watch=watch,
            job=job,
        )
        self._unsent.drop(dropped)
