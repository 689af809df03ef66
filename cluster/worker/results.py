"""From a result to its record: results are gathered for some ms, decided on, and written, however long that takes.

Results are never dropped: the writes are safe to repeat, whichever node holds the lease by then. `record` has the order of
the writes, `effects` what else follows from a result.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from cluster.core.alerts import NOT_WATCHED, is_watched
from cluster.core.errors import StoreError, StoreUnavailable
from cluster.core.execution.follow_up import kind_of
from cluster.core.execution.model import Ending, Rescheduled
from cluster.core.execution.outcome import AttemptResult, outcome
from cluster.core.execution.verdict import Verdict, verdict_of
from cluster.core.lifecycle import Event, State, next_state
from cluster.core.value import changed
from cluster.worker.model import DroppedExecution, FinishedRequest
from cluster.worker.record import MoveOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.alerts import ResultWatch
    from cluster.core.execution.model import Execution, Job
    from cluster.worker.context import WorkerContext
    from cluster.worker.effects import Effects
    from cluster.worker.record import Recorder

log = structlog.get_logger()

LINGER = 0.004
"""What finishes within so many seconds is written together."""
WORTH_WAITING = 4
"""With so many more results in `LINGER`, a flush waits for further ones: its requests cost the same however many it writes."""
FULL_FLUSH = 256
MAX_GATHER_SECONDS = 0.04
"""A flush waits for no more than `FULL_FLUSH` results, and no longer than this: what is not written yet is sent again if the
node dies.
"""
GIVE_WAY_SECONDS = 0.4
GIVE_WAY_RESULTS = 3072
GIVE_WAY_LINGER = 0.02
"""While many executions are due and leave one after another, a flush gives way to them for so long, and until there are so many
results. That is the time between a burst's first requests and its last ones, which would otherwise be later by as much.
"""
MAX_FLUSH = 512
RECORD_RETRY_SECONDS = 1.0
RECORD_TRIES = 10


@dataclass(slots=True)
class _Decided:
    """The endings and retries that follow from results.

    `released`: executions that were not sent and may be claimed again at once.
    `exclusive`: executions that ended and ran under `overlap: skip`. `gone`: jobs whose target answered 410, by id.
    """

    final: list[Ending] = field(default_factory=list)
    retried: list[Rescheduled] = field(default_factory=list)
    released: list[tuple[Rescheduled, MoveOptions]] = field(default_factory=list)
    exclusive: list[Execution] = field(default_factory=list)
    gone: dict[str, Job] = field(default_factory=dict)


class Results:
    """The results of one node."""

    def __init__(
        self,
        context: WorkerContext,
        recorder: Recorder,
        effects: Effects,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        """`gives_way`: whether executions that are due have nothing to wait for but this node."""
        self._gives_way = gives_way
        self._overdue = 0
        """So many results have waited for as long as they may: they are written before a flush gives way again."""
        self._clock = context.clock
        self._records = context.records
        self._unsent = context.unsent
        self._stats = context.stats
        self._reclaim_pause = context.reclaim_pause
        self._recorder = recorder
        self._effects = effects
        self._default_watch = NOT_WATCHED
        self._gathering = asyncio.Lock()
        """One flush is gathered at a time: two would share the results that come meanwhile."""

    def watch_by_default(self, watch: ResultWatch) -> None:
        """From now on mark these results for alerts, of jobs without alert rules of their own."""
        self._default_watch = watch

    async def turn(self) -> float:
        """Wait for results and record what there is, a flush at most."""
        async with self._gathering:
            await self._records.wait()
            await self._gather()
            taken = self._records.take(MAX_FLUSH)
            self._overdue = max(0, self._overdue - len(taken))
        if taken or not self._records.empty:
            await self._record_surely(taken)
        return 0.0

    async def _gather(self) -> None:
        """Wait a moment for more results, and for longer while many come, unless somebody waits for one of them."""
        began = self._clock.monotonic()
        while not self._overdue and self._gives_way():
            many = len(self._records) >= GIVE_WAY_RESULTS
            if many or self._records.awaited or self._clock.monotonic() - began >= GIVE_WAY_SECONDS:
                self._overdue = len(self._records)
            else:
                await asyncio.sleep(GIVE_WAY_LINGER)
        while len(self._records) < FULL_FLUSH:
            before = len(self._records)
            await asyncio.sleep(LINGER)
            few = len(self._records) - before < WORTH_WAITING
            if few or self._records.awaited or self._clock.monotonic() - began >= MAX_GATHER_SECONDS:
                return

    async def record_remaining(self) -> None:
        """Record all that is left, in one go. For when no turn is under way any more."""
        if not self._records.empty:
            await self.record(self._records.take())

    async def record(self, results: Sequence[FinishedRequest | DroppedExecution]) -> None:
        """Record results: endings, retries, and the batches that are done with them. Safe to repeat."""
        decided = self._decide(results)
        duplicates = lost = 0
        if decided.final:
            flushed = await self._recorder.record_final(decided.final, decided.exclusive)
            duplicates, lost = flushed.duplicates, flushed.lost
        # Before what is retried moves: nodes of the release before would use the permit that they find.
        await self._effects.return_permits(results)
        if decided.retried:
            lost += await self._recorder.reschedule(decided.retried)
        for moved, options in decided.released:
            lost += await self._recorder.reschedule([moved], options)
        for job in decided.gone.values():
            await self._effects.pause_gone(job)
        for result in results:
            result.held.recorded(result.execution.id)
        self._stats.record(decided.final, decided.retried, results)
        self._stats.counters["duplicates"] += duplicates
        self._stats.counters["results_lost"] += lost
        self._effects.trace(decided.final)
        for held in {id(r.held): r.held for r in results}.values():
            self._records.close_if_done(held)
        finished = self._records.take_finished()
        try:
            if finished:
                await self._recorder.delete_finished([h.batch for h in finished])
        except StoreUnavailable as exc:
            # Its lease ends, and the node that claims it finds nothing owed and removes it.
            log.warning("finish_unavailable", batches=len(finished), error=str(exc))

    async def _record_surely(self, results: Sequence[FinishedRequest | DroppedExecution]) -> None:
        """Record results, all together or, if that fails for another reason than the database, each by itself."""
        refused = 0
        while True:
            try:
                await self.record(results)
                return
            except StoreUnavailable as exc:
                log.warning("record_unavailable", results=len(results), error=str(exc))
                self._reclaim_pause.begin()
            except Exception as exc:
                log.exception("record_failed", results=len(results))
                failure = exc
                refused += 1
                # A database that refuses everything (a full disk) may accept it soon; a bug of this process stays one.
                if not isinstance(exc, StoreError) or refused > RECORD_TRIES:
                    break
            await asyncio.sleep(RECORD_RETRY_SECONDS)
        if len(results) == 1:
            await self._record_bare(results[0], failure)
        for result in results if len(results) > 1 else ():
            await self._record_surely([result])

    async def _record_bare(self, result: FinishedRequest | DroppedExecution, failure: Exception) -> None:
        """A result that cannot be recorded as it is ends all the same: with a reason, without what the target said.

        If not even that can be written, its lease ends, and the next owner tries again, ten times at most.
        """
        held, execution = result.held, result.execution
        if isinstance(result, DroppedExecution) and result.event is Event.RELEASE:
            self._unsent.abandon(held, execution.id)
            return
        attempts, state = execution.attempts, State.DEAD
        if isinstance(result, FinishedRequest):
            attempts = tuple(changed(a, detail=None, excerpt=None) for a in result.attempts)
            if verdict_of(result.reply.status, result.reply.error, result.job.success_codes) is Verdict.SUCCESS:
                state = State.SUCCEEDED
        reason = f"what came of it could not be recorded: {type(failure).__name__}: {str(failure)[:200]}"
        ending = Ending(
            execution=execution,
            state=state,
            ended_ms=self._clock.now_ms(),
            attempts=attempts,
            reason=reason,
            alert_pending=True,
            followed=True,
        )
        try:
            await self._recorder.record_final([ending])
        except Exception:
            log.exception("result_abandoned", execution=execution.id, batch=held.batch.id)
            self._stats.counters["results_lost"] += 1
            self._unsent.abandon(held, execution.id)
        else:
            held.recorded(execution.id)
            self._records.close_if_done(held)

    # -- what becomes of a result --------------------------------------------------------------------------------

    def _decide(self, results: Sequence[FinishedRequest | DroppedExecution]) -> _Decided:
        decided = _Decided()
        for result in results:
            if isinstance(result, DroppedExecution) and result.event is Event.RELEASE:
                decided.released.append(_released(result, self._clock.now_ms()))
                continue
            becomes, verdict = self._outcome(result)
            if isinstance(becomes, Rescheduled):
                decided.retried.append(becomes)
            else:
                decided.final.append(self._completed(becomes, result))
            if isinstance(result, FinishedRequest):
                if result.job.overlap_skip and isinstance(becomes, Ending):
                    decided.exclusive.append(becomes.execution)
                if verdict is Verdict.GONE and result.execution.message is None:
                    decided.gone[result.job.id] = result.job
        return decided

    def _outcome(self, result: FinishedRequest | DroppedExecution) -> tuple[Ending | Rescheduled, Verdict | None]:
        """The ending or the retry that follows from a result."""
        now = self._clock.now_ms()
        execution = result.execution
        if isinstance(result, DroppedExecution):
            if result.again_ms is not None:
                return Rescheduled(execution, execution.attempts, result.again_ms), None
            state = next_state(execution.state, result.event)
            ending = Ending(
                execution=execution, state=state, ended_ms=now, attempts=execution.attempts, reason=result.reason
            )
            return ending, None
        jitter = random.random()  # noqa: S311 - jitter, guards nothing
        attempt = AttemptResult(result.attempts, now, result.drift_ms, jitter, result.reply.retry_after_s)
        return outcome(execution, result.job, attempt)

    def _completed(self, ending: Ending, result: FinishedRequest | DroppedExecution) -> Ending:
        """The ending with how long it is kept, and whether alerts are to be decided on it."""
        if isinstance(result, FinishedRequest):
            retention_days, watched = result.job.retention_days, result.job.watch
        else:
            retention_days, watched = result.retention_days, result.watch
        alert_pending = is_watched(self._default_watch if watched is None else watched, ending.state, ending.drift_ms)
        if result.job is None or result.job.followed:  # of one that could not be read it is not known
            ending = _followed(ending, result, result.job)
        if retention_days is None and not alert_pending:
            return ending
        return changed(ending, retention_days=retention_days, alert_pending=alert_pending)


def _followed(ending: Ending, result: FinishedRequest | DroppedExecution, job: Job | None) -> Ending:
    """The ending of an execution that may be followed, with what its callback is to tell."""
    kind = kind_of(ending.state)
    if kind is None:
        return ending
    tells = job is not None and kind in job.tells
    answer = result.reply.answer if tells and isinstance(result, FinishedRequest) else None
    return changed(ending, followed=True, tells=tells, answer=answer)


def _released(dropped: DroppedExecution, now_ms: int) -> tuple[Rescheduled, MoveOptions]:
    """An execution that is claimed again, as if this claim had not been."""
    batch, execution = dropped.held.batch, dropped.execution
    options = MoveOptions(late=batch.late, claims=max(0, batch.claims - 1), claimable_ms=now_ms)
    return Rescheduled(execution, execution.attempts, execution.send_ms), options
