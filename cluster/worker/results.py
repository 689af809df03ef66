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

from cluster.core.alerts import NOT_WATCHED, marked
from cluster.core.errors import StoreError, StoreUnavailable
from cluster.core.execution.model import Ending, Moved
from cluster.core.execution.outcome import Heard, outcome
from cluster.core.execution.trace import ended as spans_of_ending
from cluster.core.execution.trace import trace_id
from cluster.core.execution.verdict import Verdict, judge
from cluster.core.lifecycle import State, after
from cluster.store.mongo.operation import insist
from cluster.usecases.jobs import pause_gone
from cluster.worker.leases import Answered, Dropped

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.core.execution.model import Execution, Job
    from cluster.core.execution.trace import Trace
    from cluster.worker.context import Doors
    from cluster.worker.dispatch import Dispatcher
    from cluster.worker.leases import Held, Holdings
    from cluster.worker.metrics import Tally
    from cluster.worker.record import Recorder

log = structlog.get_logger()

LINGER = 0.004
FLUSH_MOST = 512
RECORD_AGAIN = 1.0
RECORD_TRIES = 10


class Results:
    """The results of one node. `disturbed` is called when the database was away."""

    def __init__(
        self,
        doors: Doors,
        recorder: Recorder,
        dispatcher: Dispatcher,
        held: Holdings,
        tally: Tally,
        disturbed: Callable[[], None],
    ) -> None:
        self._db = doors.db
        self._clock = doors.clock
        self._gates = doors.gates
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._held = held
        self._tally = tally
        self._disturbed = disturbed
        self._finished: list[Held] = []
        self._wake = asyncio.Event()
        self.unrecorded: list[Answered | Dropped] = []
        self.watch_all = NOT_WATCHED
        """What is marked of jobs without alert rules of their own."""
        self.trace: Trace | None = None

    def add(self, result: Answered | Dropped) -> None:
        """Something ended."""
        self.unrecorded.append(result)
        self._wake.set()

    def close_if_done(self, held: Held) -> None:
        """A batch of which nothing is open is held no longer; unless it was lost, it is deleted with the next flush."""
        if held.done and self._held.get(held.batch.id) is held:
            self._held.forget(held)
            if not held.lost:
                self._finished.append(held)
                self._wake.set()

    async def turn(self) -> float:
        """Wait for results and record what there is, a flush at most."""
        await self._wake.wait()
        if len(self.unrecorded) < FLUSH_MOST:
            await asyncio.sleep(LINGER)  # what finishes within a few ms is written together
        taken, self.unrecorded = self.unrecorded[:FLUSH_MOST], self.unrecorded[FLUSH_MOST:]
        if not self.unrecorded:
            self._wake.clear()
        if taken or self._finished:
            await self._record_surely(taken)
        return 0.0

    def nudge(self) -> None:
        """Have batches deleted of which nothing is open, if no result comes along with them."""
        if not self._wake.is_set() and self._finished:
            self._wake.set()

    async def record_rest(self) -> None:
        """Record all that is left, in one go. For when no turn is under way any more."""
        if self.unrecorded or self._finished:
            await self.record(self.unrecorded)

    async def record(self, results: list[Answered | Dropped]) -> None:
        """Record results: endings, retries, and the batches that are done with them."""
        ended: list[Ending] = []
        moved: list[Moved] = []
        exclusive: list[Execution] = []
        gone: dict[str, Job] = {}
        for result in results:
            becomes, verdict = self._outcome(result)
            kept = result.job.retention_days if isinstance(result, Answered) else result.retention_days
            if kept is not None and isinstance(becomes, Ending):
                becomes = replace(becomes, retention_days=kept)
            if isinstance(becomes, Ending) and self._marked(result, becomes):
                becomes = replace(becomes, mark=True)
            (moved if isinstance(becomes, Moved) else ended).append(becomes)  # type: ignore[arg-type]
            if isinstance(result, Answered):
                if result.job.overlap_skip and isinstance(becomes, Ending):
                    exclusive.append(becomes.execution)
                if verdict is Verdict.GONE:
                    gone[result.job.id] = result.job
        flushed = await self._recorder.endings(ended, exclusive) if ended else None
        # Before what is tried again moves: nodes of the release before would use the permit that they find.
        await self._give_back(results)
        lost = await self._recorder.moves(moved) if moved else 0
        for job in gone.values():
            await self._pause_gone(job)
        for result in results:
            result.held.unrecorded -= 1
        self._tally.note(ended, moved, results)
        self._trace(ended)
        self._tally.counters["duplicates"] += flushed.duplicates if flushed else 0
        self._tally.counters["results_lost"] += lost + (flushed.lost if flushed else 0)
        for held in {id(r.held): r.held for r in results}.values():
            self.close_if_done(held)
        finished, self._finished = self._finished, []
        try:
            if finished:
                await self._recorder.finish([h.batch for h in finished])
        except StoreUnavailable as exc:
            # Its lease ends, and whoever claims it finds nothing owed and removes it.
            log.warning("finish_disturbed", batches=len(finished), error=str(exc))

    async def _record_surely(self, results: list[Answered | Dropped]) -> None:
        """Record results, all together or, if that fails for another reason than the database, each by itself.

        Results are never dropped: the writes are safe to repeat, whoever holds the lease by then.
        """
        refused = 0
        while True:
            try:
                await self.record(results)
                return
            except StoreUnavailable as exc:
                log.warning("record_disturbed", results=len(results), error=str(exc))
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

    async def _record_bare(self, result: Answered | Dropped, failure: Exception) -> None:
        """A result that cannot be recorded as it is ends all the same: with a reason, without what the target said.

        If not even that can be written, its lease ends, and whoever claims it next tries again, ten times at most.
        """
        held, execution = result.held, result.execution
        attempts, state = execution.attempts, State.DEAD
        if isinstance(result, Answered):
            attempts = tuple(replace(a, detail=None, excerpt=None) for a in result.attempts)
            if judge(result.reply.status, result.reply.error, result.job.success_codes) is Verdict.SUCCESS:
                state = State.SUCCEEDED
        reason = f"what came of it could not be recorded: {type(failure).__name__}: {str(failure)[:200]}"
        try:
            await self._recorder.endings([Ending(execution, state, self._clock.now_ms(), attempts, reason, mark=True)])
        except Exception:
            log.exception("result_given_up", execution=execution.id, batch=held.batch.id)
            self._tally.counters["results_lost"] += 1
            held.lost = True
            self._dispatcher.withdraw(held)
        held.unrecorded -= 1
        self.close_if_done(held)

    def _outcome(self, result: Answered | Dropped) -> tuple[Ending | Moved, Verdict | None]:
        """What a result means: final, or once more."""
        now = self._clock.now_ms()
        execution = result.execution
        if isinstance(result, Dropped):
            state = after(execution.state, result.event)
            return Ending(execution, state, now, execution.attempts, result.reason), None
        luck = random.random()  # noqa: S311 - jitter, guards nothing
        heard = Heard(result.attempts, now, result.drift_ms, luck, result.reply.retry_after_s)
        return outcome(execution, result.job, heard)

    def _marked(self, result: Answered | Dropped, ending: Ending) -> bool:
        """Whether alerts are to be decided on it."""
        watched = result.job.watch if isinstance(result, Answered) else result.watch
        return marked(self.watch_all if watched is None else watched, ending.state, ending.drift_ms)

    async def _give_back(self, results: list[Answered | Dropped]) -> None:
        """Let others run that share a limit with what has ended. What is not given back counts until its lease ends."""
        back = [r.permit for r in results if isinstance(r, Answered) and r.permit is not None]
        if not back:
            return
        try:
            await self._gates.give_back(back)
        except StoreUnavailable as exc:
            log.warning("permits_disturbed", error=str(exc))
        self._dispatcher.permits_back({p.gate for p in back})

    async def _pause_gone(self, job: Job) -> None:
        """410: nothing will ever be there again. If we die before this, the next occurrence is answered 410 too."""
        reason = f"{job.target.url} answered 410 Gone; resume the job when its target is back"
        if await insist(
            lambda: pause_gone(self._db, job, self._clock.now_ms(), reason), seconds=3600.0, event="pause_gone"
        ):
            log.warning("job_paused_gone", job=job.id)

    def _trace(self, ended: list[Ending]) -> None:
        if self.trace is None:
            return
        now = self._clock.now_ms()
        for e in ended:
            if self.trace.wants(trace_id(e.execution.id)):
                held = self._held.get(e.execution.batch)
                self.trace.take(spans_of_ending(e, held.taken_ms if held else 0, now))
