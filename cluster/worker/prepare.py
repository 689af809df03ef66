"""Preparing: shortly before the send time the jobs are read as they are now, and requests are made ready or dropped.

What has waited for long is prepared again. At the send time there is only the sending left to do.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from cluster.core.execution.outcome import cancellation_reason, exhaustion_reason, max_age_reason, next_attempt_number
from cluster.core.execution.templates import fill_in
from cluster.core.execution.trace import traceparent
from cluster.core.lifecycle import Event
from cluster.outbound.headers import delivery_headers
from cluster.store import engine_jobs
from cluster.worker.leases import DroppedExecution, ReadyExecution
from cluster.worker.run_queue import LOOK_AGAIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.core.execution.model import Execution
    from cluster.core.execution.trace import SpanCollector
    from cluster.core.limits.permits import Permit
    from cluster.store.engine_jobs import JobsById
    from cluster.worker.context import WorkerContext
    from cluster.worker.leases import HeldBatch
    from cluster.worker.pending import Unsent
    from cluster.worker.run_queue import RunQueue

log = structlog.get_logger()

MAX_REREAD = 256
LEAD_SECONDS = 0.05
LEAD_PER_EXECUTION = 0.0004
MAX_LEAD_SECONDS = 0.9


class Preparer:
    """Makes requests for what waits, and lines them up in the run queue."""

    def __init__(self, doors: WorkerContext, unsent: Unsent, queue: RunQueue, spawn: Callable[[Any], object]) -> None:
        self._db = doors.db
        self._clock = doors.clock
        self._sender = doors.sender
        self._unsent = unsent
        self._queue = queue
        self._spawn = spawn
        self._stale: list[ReadyExecution] = []
        self._rereading = False
        self.trace: SpanCollector | None = None

    def prepare_batch(self, held: HeldBatch) -> None:
        """Prepare all of a batch when its time has come."""
        self._spawn(self._prepare(held))

    def prepare_again(self, ready: ReadyExecution) -> None:
        """Its job was read too long ago."""
        self._stale.append(ready)
        if not self._rereading:
            self._rereading = True
            self._spawn(self._reread())

    async def _prepare(self, held: HeldBatch) -> None:
        """Shortly before the send time, read the jobs, decide, and make the requests ready."""
        lead = min(MAX_LEAD_SECONDS, LEAD_SECONDS + LEAD_PER_EXECUTION * self._unsent.count)
        # A millisecond is near enough; what a sum of floats leaves over would never pass on a clock that is not real.
        while (delay := self._clock.seconds_until(held.batch.send_ms) - lead) > 0.001:
            await asyncio.sleep(min(delay, LOOK_AGAIN_SECONDS))
            if self._queue.stopped or not held.waiting:
                return
        while not self._queue.stopped:
            wanted = list(held.waiting.values())
            if not wanted or self._unsent.drop_if_lapsed(held):
                return
            read_at = self._clock.monotonic()
            try:
                read = await engine_jobs.by_id(self._db, {e.job_id for e in wanted})
            except Exception as exc:  # whatever it was, the batch is still ours: try again until its lease ends
                log.warning("jobs_unavailable", batch=held.batch.id, error=str(exc))
                await asyncio.sleep(0.25)
                continue
            self._sort_out(held, wanted, (read, read_at), {})
            return

    async def _reread(self) -> None:
        """Read the jobs of what is to be sent and has waited for more than a moment; many in one read."""
        try:
            while self._stale and not self._queue.stopped:
                taken, self._stale = self._stale[:MAX_REREAD], self._stale[MAX_REREAD:]
                taken = [
                    r for r in taken if r.execution.id in r.held.waiting and not self._unsent.drop_if_lapsed(r.held)
                ]
                if not taken:
                    continue
                read_at = self._clock.monotonic()
                try:
                    read = await engine_jobs.by_id(self._db, {r.execution.job_id for r in taken})
                except (
                    Exception
                ) as exc:  # whatever it was, the batches are still ours: try again until their leases end
                    log.warning("jobs_unavailable", batch=taken[0].held.batch.id, error=str(exc))
                    self._stale = taken + self._stale
                    await asyncio.sleep(0.25)
                    continue
                for r in taken:
                    self._sort_out(r.held, [r.execution], (read, read_at), {r.execution.id: r.permit})
        finally:
            self._rereading = False

    def _sort_out(
        self, held: HeldBatch, wanted: list[Execution], known: tuple[JobsById, float], permits: dict[str, Permit | None]
    ) -> None:
        for execution in wanted:
            if execution.id not in held.waiting:
                continue
            try:
                self._decide(held, execution, known, permits.get(execution.id))
            except Exception as exc:  # one that cannot be made ready must not keep its batch waiting for ever
                log.exception("execution_unsendable", execution=execution.id)
                why = f"its request could not be made: {type(exc).__name__}: {str(exc)[:200]}"
                self._unsent.drop(DroppedExecution(held, execution, why, Event.EXHAUST))
        self._queue.start_due()

    def _decide(
        self, held: HeldBatch, execution: Execution, known: tuple[JobsById, float], permit: Permit | None
    ) -> None:
        """Whether an execution goes out for its job as it is now, and its request if it does."""
        read, read_at = known
        if execution.job_id in read.unreadable:
            why = f"the job's document could not be read: {read.unreadable[execution.job_id]}"
            self._unsent.drop(DroppedExecution(held, execution, why, Event.EXHAUST))
            return
        job = read.jobs.get(execution.job_id)
        reason = cancellation_reason(execution, job)
        if reason is not None or job is None:
            kept = None if job is None else job.retention_days
            self._unsent.drop(DroppedExecution(held, execution, reason or "the job was deleted", retention_days=kept))
            return
        over = exhaustion_reason(execution, job) or max_age_reason(execution, job, self._clock.now_ms())
        if over is not None:
            self._unsent.drop(DroppedExecution(held, execution, over, Event.EXHAUST, job.retention_days, job.watch))
            return
        number = next_attempt_number(execution.attempts)
        parent = traceparent(execution.id, number, held.batch.token, self.trace)
        if job.target.templated:
            job = replace(job, target=fill_in(job.target, execution, number))
        headers = delivery_headers(execution, job, number, held.batch.token, parent, self._clock.now_ms())
        request = self._sender.prepare(job.target, headers)
        self._queue.enqueue(ReadyExecution(held, execution, job, request, read_at, permit=permit))
