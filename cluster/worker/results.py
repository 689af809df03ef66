"""From a result to its record: what came of requests is gathered for some ms, decided on, written down and counted.

Results are never dropped: the writes are safe to repeat, whoever holds the lease by then. The order of the writes is
that of `record`; here is what becomes of a result, and what follows once it is recorded.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.alerts import NOT_WATCHED, is_watched
from cluster.core.errors import StoreError, StoreUnavailable
from cluster.core.execution.model import Ending, Rescheduled
from cluster.core.execution.outcome import AttemptResult, outcome
from cluster.core.execution.trace import final_spans as spans_of_ending
from cluster.core.execution.trace import trace_id
from cluster.core.execution.verdict import Verdict, verdict_of
from cluster.core.lifecycle import State, next_state
from cluster.store.mongo.operation import retry_while_unavailable
from cluster.usecases.jobs import pause_for_gone_target
from cluster.worker.leases import DroppedExecution, FinishedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.core.execution.model import Execution, Job
    from cluster.core.execution.trace import SpanCollector
    from cluster.worker.context import WorkerContext
    from cluster.worker.dispatch import Dispatcher
    from cluster.worker.leases import HeldBatch, HeldBatches
    from cluster.worker.metrics import WorkerStats
    from cluster.worker.record import Recorder

log = structlog.get_logger()

LINGER = 0.004
MAX_FLUSH = 512
RECORD_AGAIN = 1.0
RECORD_TRIES = 10


class Results:
    """The results of one node. `disturbed` is called when the database was away."""

    def __init__(
        self,
        doors: WorkerContext,
        recorder: Recorder,
        dispatcher: Dispatcher,
        held: HeldBatches,
        tally: WorkerStats,
        disturbed: Callable[[], None],
    ) -> None:
        self._db = doors.db
        self._clock = doors.clock
        self._gates = doors.rate_limiter
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._held = held
        self._tally = tally
        self._disturbed = disturbed
        self._finished: list[HeldBatch] = []
        self._wake = asyncio.Event()
        self.unrecorded: list[FinishedRequest | DroppedExecution] = []
        self.default_watch = NOT_WATCHED
        """What is marked of jobs without alert rules of their own."""
        self.trace: SpanCollector | None = None

    def add(self, result: FinishedRequest | DroppedExecution) -> None:
        """Something ended."""
        self.unrecorded.append(result)
        self._wake.set()

    def close_if_done(self, held: HeldBatch) -> None:
        """A batch of which nothing is open is held no longer; unless it was lost, it is deleted with the next flush."""
        if held.done and self._held.get(held.batch.id) is held:
            self._held.forget(held)
            if not held.lost:
                self._finished.append(held)
                self._wake.set()

    async def turn(self) -> float:
        """Wait for results and record what there is, a flush at most."""
        await self._wake.wait()
        if len(self.unrecorded) < MAX_FLUSH:
            await asyncio.sleep(LINGER)  # what finishes within a few ms is written together
        taken, self.unrecorded = self.unrecorded[:MAX_FLUSH], self.unrecorded[MAX_FLUSH:]
        if not self.unrecorded:
            self._wake.clear()
        if taken or self._finished:
            await self._record_surely(taken)
        return 0.0

    def wake_if_finished(self) -> None:
        """Have batches deleted of which nothing is open, if no result comes along with them."""
        if not self._wake.is_set() and self._finished:
            self._wake.set()

    async def record_remaining(self) -> None:
        """Record all that is left, in one go. For when no turn is under way any more."""
        if self.unrecorded or self._finished:
            await self.record(self.unrecorded)

    async def record(self, results: list[FinishedRequest | DroppedExecution]) -> None:
        """Record results: endings, retries, and the batches that are done with them."""
        ended: list[Ending] = []
        moved: list[Rescheduled] = []
        exclusive: list[Execution] = []
        gone: dict[str, Job] = {}
        for result in results:
            becomes, verdict = self._outcome(result)
            kept = result.job.retention_days if isinstance(result, FinishedRequest) else result.retention_days
            if kept is not None and isinstance(becomes, Ending):
                becomes = replace(becomes, retention_days=kept)
            if isinstance(becomes, Ending) and self._marked(result, becomes):
                becomes = replace(becomes, alert_pending=True)
            (moved if isinstance(becomes, Rescheduled) else ended).append(becomes)  # type: ignore[arg-type]
            if isinstance(result, FinishedRequest):
                if result.job.overlap_skip and isinstance(becomes, Ending):
                    exclusive.append(becomes.execution)
                if verdict is Verdict.GONE:
                    gone[result.job.id] = result.job
        flushed = await self._recorder.record_final(ended, exclusive) if ended else None
        # Before what is tried again moves: nodes of the release before would use the permit that they find.
        await self._give_back(results)
        lost = await self._recorder.reschedule(moved) if moved else 0
        for job in gone.values():
            await self._pause_gone(job)
        for result in results:
            result.held.unrecorded -= 1
        self._tally.record(ended, moved, results)
        self._trace(ended)
        self._tally.counters["duplicates"] += flushed.duplicates if flushed else 0
        self._tally.counters["results_lost"] += lost + (flushed.lost if flushed else 0)
        for held in {id(r.held): r.held for r in results}.values():
            self.close_if_done(held)
        finished, self._finished = self._finished, []
        try:
            if finished:
                await self._recorder.delete_finished([h.batch for h in finished])
        except StoreUnavailable as exc:
            # Its lease ends, and whoever claims it finds nothing owed and removes it.
            log.warning("finish_unavailable", batches=len(finished), error=str(exc))

    async def _record_surely(self, results: list[FinishedRequest | DroppedExecution]) -> None:
        """Record results, all together or, if that fails for another reason than the database, each by itself.

        Results are never dropped: the writes are safe to repeat, whoever holds the lease by then.
        """
        refused = 0
        while True:
            try:
                await self.record(results)
                return
            except StoreUnavailable as exc:
                log.warning("record_unavailable", results=len(results), error=str(exc))
                self._disturbed()
            except Exception as exc:
                log.exception("record_failed", results=len(results))
                failure = exc
                refused += 1
                # A database that refuses everything (a full disk) may soon not; what is our own fault stays so.
                if not isinstance(exc, StoreError) or refused > RECORD_TRIES:
                    break
            await asyncio.sleep(RECORD_AGAIN)
        if len(results) == 1:
            await self._record_bare(results[0], failure)
        for result in results if len(results) > 1 else ():
            await self._record_surely([result])

    async def _record_bare(self, result: FinishedRequest | DroppedExecution, failure: Exception) -> None:
        """A result that cannot be recorded as it is ends all the same: with a reason, without what the target said.

        If not even that can be written, its lease ends, and whoever claims it next tries again, ten times at most.
        """
        held, execution = result.held, result.execution
        attempts, state = execution.attempts, State.DEAD
        if isinstance(result, FinishedRequest):
            attempts = tuple(replace(a, detail=None, excerpt=None) for a in result.attempts)
            if verdict_of(result.reply.status, result.reply.error, result.job.success_codes) is Verdict.SUCCESS:
                state = State.SUCCEEDED
        reason = f"what came of it could not be recorded: {type(failure).__name__}: {str(failure)[:200]}"
        try:
            await self._recorder.record_final(
                [Ending(execution, state, self._clock.now_ms(), attempts, reason, alert_pending=True)]
            )
        except Exception:
            log.exception("result_abandoned", execution=execution.id, batch=held.batch.id)
            self._tally.counters["results_lost"] += 1
            held.lost = True
            self._dispatcher.withdraw(held)
        held.unrecorded -= 1
        self.close_if_done(held)

    def _outcome(self, result: FinishedRequest | DroppedExecution) -> tuple[Ending | Rescheduled, Verdict | None]:
        """What a result means: final, or once more."""
        now = self._clock.now_ms()
        execution = result.execution
        if isinstance(result, DroppedExecution):
            state = next_state(execution.state, result.event)
            return Ending(execution, state, now, execution.attempts, result.reason), None
        luck = random.random()  # noqa: S311 - jitter, guards nothing
        heard = AttemptResult(result.attempts, now, result.drift_ms, luck, result.reply.retry_after_s)
        return outcome(execution, result.job, heard)

    def _marked(self, result: FinishedRequest | DroppedExecution, ending: Ending) -> bool:
        """Whether alerts are to be decided on it."""
        watched = result.job.watch if isinstance(result, FinishedRequest) else result.watch
        return is_watched(self.default_watch if watched is None else watched, ending.state, ending.drift_ms)

    async def _give_back(self, results: list[FinishedRequest | DroppedExecution]) -> None:
        """Let others run that share a limit with what has ended. What is not given back counts until its lease ends."""
        back = [r.permit for r in results if isinstance(r, FinishedRequest) and r.permit is not None]
        if not back:
            return
        try:
            await self._gates.release(back)
        except StoreUnavailable as exc:
            log.warning("permits_unavailable", error=str(exc))
        self._dispatcher.permits_returned({p.limit_key for p in back})

    async def _pause_gone(self, job: Job) -> None:
        """410: nothing will ever be there again. If we die before this, the next occurrence is answered 410 too."""
        reason = f"{job.target.url} answered 410 Gone; resume the job when its target is back"
        if await retry_while_unavailable(
            lambda: pause_for_gone_target(self._db, job, self._clock.now_ms(), reason),
            seconds=3600.0,
            during="pause_gone",
        ):
            log.warning("job_paused_gone", job=job.id)

    def _trace(self, ended: list[Ending]) -> None:
        if self.trace is None:
            return
        now = self._clock.now_ms()
        for e in ended:
            if self.trace.wants(trace_id(e.execution.id)):
                held = self._held.get(e.execution.batch)
                self.trace.take(spans_of_ending(e, held.claimed_ms if held else 0, now))
