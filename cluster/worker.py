"""The worker: claims batches, keeps their leases, has them sent, records what came of it. Every node runs one.

It composes the steps; each loop is a wait and a step. Nothing here decides who owns what: the steps' filters do.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.breakers import Breakers
from cluster.claim import Claimed, Claimer
from cluster.core.alerts import NOT_WATCHED, marked
from cluster.core.digest import Digest
from cluster.core.errors import HoraeError, StoreError, StoreUnavailable
from cluster.core.histogram import Histogram
from cluster.core.lifecycle import State, after
from cluster.core.model import Ending, Moved
from cluster.core.outcome import Heard, outcome
from cluster.core.trace import ended as spans_of_ending
from cluster.core.trace import trace_id
from cluster.core.verdict import Verdict, judge, rounded_up
from cluster.dispatch import Answered, Dispatcher, Doors, Dropped, Held, Hooks
from cluster.gates import Gates
from cluster.jobs import pause_gone
from cluster.record import Recorder, Way
from cluster.store import batches, definitions, executions
from cluster.store.batches import ClaimFilter
from cluster.store.door import insist
from cluster.tasks import Loop, stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.clock import Clock
    from cluster.core.model import Execution, Job
    from cluster.core.timings import Timings
    from cluster.dispatch import Parked
    from cluster.outbound.sender import Sender
    from cluster.store.client import Database

log = structlog.get_logger()

IDLE_LEAST = 0.025
IDLE_MOST = 0.25
RENEW_AGAIN = 0.5
"""After a renewal that failed: a lease is too short to wait for the next third of it."""
LINGER = 0.004
FLUSH_MOST = 512
RECORD_AGAIN = 1.0
RECORD_TRIES = 10
HAND_BACK_AT_ONCE = 16
LATE_APART_MS = 500
LIMITED_MOST_MS = 30_000
"""What waits for its limit is put back for so long at most, however slow the limit is."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What one worker may use. Counts are executions."""

    node: str
    slots: int = 256
    waiting: int = 2048
    unrecorded: int = 4096
    claimers: int = 2
    retention_days: float = 7.0


class Worker:
    """Claims, sends and records for one node."""

    def __init__(self, db: Database, clock: Clock, timings: Timings, sender: Sender, settings: WorkerSettings) -> None:
        self._db = db
        self._clock = clock
        self._timings = timings
        self._settings = settings
        self._claimer = Claimer(db, clock, timings, settings.node)
        self._recorder = Recorder(db, settings.retention_days, int(timings.prefetch * 1000))
        hooks = Hooks(self._answered, self._dropped, self._forget, self._may_overlap)
        self.breakers = Breakers(db, clock, settings.node)
        self.gates = Gates(db, clock)
        doors = Doors(db, clock, sender, self.breakers, self.gates)
        self.dispatcher = Dispatcher(doors, settings.node, settings.slots, hooks)
        self.held: dict[str, Held] = {}
        self.counters: Counter[str] = Counter()
        self.drift = Histogram()
        self.duration = Histogram()
        self.queue = Histogram()
        """How long executions that were due stood on this node before their requests left."""
        self.kinds: Counter[str] = Counter()
        """Attempts by what came of them: `http_2xx` ... or the error kind."""
        self.failing = Digest()
        self._results: list[Answered | Dropped] = []
        self._finished: list[Held] = []
        self._wake = asyncio.Event()
        self.loops: list[Loop] = []
        self._claimers: list[Loop] = []
        self._unowned_until = 0.0
        self._strays = False
        self._primary: tuple[str, int] | None = None
        self._claiming = 0
        self._handing_back = False
        self._turn = 0
        self.watch_all = NOT_WATCHED
        """What is marked of jobs without alert rules of their own."""
        self.draining = False
        self.resting = False
        """Nothing is claimed for the time being."""

    def start(self) -> None:
        """Begin to work."""
        self._claimers = [Loop("claim", self._claim_turns()) for _ in range(self._settings.claimers)]
        self.loops = [
            *self._claimers,
            Loop("renew", self._renew_turn),
            *(Loop("record", self._record_turn) for _ in range(2)),
            Loop("hand_back", self._hand_back_turn),
        ]
        for loop in self.loops:
            loop.start()

    # -- claiming ------------------------------------------------------------------------------------------------

    def only_unowned_for_a_lease(self) -> None:
        """After trouble with the database or its clock: let owners renew before anybody reclaims."""
        self._unowned_until = self._clock.monotonic() + self._timings.batch_lease

    def _claim_turns(self) -> Callable[[], Awaitable[float | None]]:
        """The turns of one claimer, which polls ever less often while there is nothing to claim."""
        idle = IDLE_LEAST

        async def turn() -> float | None:
            nonlocal idle
            if self.draining:
                return None
            found = False
            try:
                found = await self.claim_once()
            except StoreUnavailable as exc:
                log.warning("claim_disturbed", error=str(exc))
                self.only_unowned_for_a_lease()
                self._strays = True
                idle = IDLE_MOST
            except Exception:
                self._strays = True  # whatever it was, a batch may carry our name
                raise
            idle = IDLE_LEAST if found else min(IDLE_MOST, idle * 1.5)
            return 0.0 if found else idle * random.uniform(0.8, 1.2)  # noqa: S311 - spreads polls, guards nothing

        return turn

    def _has_room(self) -> bool:
        return (
            self.dispatcher.waiting < self._settings.waiting
            and len(self._results) < self._settings.unrecorded
            and not self.draining
            and not self.resting
            and not self.dispatcher.stuck()
        )

    async def claim_once(self) -> bool:
        """Claim one batch and take it on. False: nothing to claim, or no room."""
        if not self._has_room() or self._handing_back:
            return False
        if self._strays:
            if self._claiming:
                return False  # what the other claimer has just claimed carries our name and is no stray
            self._handing_back = True
            try:
                await self._hand_back_strays()
            finally:
                self._handing_back = False
        self._claiming += 1
        try:
            return await self._claim()
        finally:
            self._claiming -= 1

    async def _claim(self) -> bool:
        self._look_for_failover()
        self._turn += 1
        late_first = self._turn % 10 == 0
        for late in (late_first, not late_first):
            if late and self.dispatcher.waiting >= self._settings.waiting // 4:
                continue  # late work takes what is idle, and never the room that current work needs
            unowned = self._clock.monotonic() < self._unowned_until
            which = ClaimFilter(late, self.dispatcher.hosts_held(), self.dispatcher.gates_shut(), unowned_only=unowned)
            claimed = await self._claimer.step(which)
            if claimed is not None:
                await self._take_on(claimed)
                return True
        return False

    def _look_for_failover(self) -> None:
        """Another primary, maybe with another clock: leases that look ended to it may be alive."""
        primary = self._db.primary()
        if primary is not None and primary != self._primary:
            if self._primary is not None:
                log.warning("primary_changed", primary=f"{primary[0]}:{primary[1]}")
                self.only_unowned_for_a_lease()
            self._primary = primary

    async def _take_on(self, claimed: Claimed) -> None:
        self.counters["claimed"] += 1
        self.counters["reclaimed"] += claimed.batch.claims > 1
        held = Held(claimed.batch, claimed.valid_until, taken_ms=self._clock.now_ms())
        if claimed.unreadable:
            await self._recorder.bury(claimed.batch, claimed.unreadable, self._clock.now_ms())
        if claimed.must_split:
            moved = [Moved(e, e.attempts, e.send_ms) for e in claimed.executions]
            log.warning("batch_split", batch=claimed.batch.id, executions=len(moved), claims=claimed.batch.claims)
            await self._recorder.moves(moved, Way(claimed.batch.late, claimed.batch.claims, alone=True))
            await self._recorder.finish([claimed.batch])
            return
        if claimed.must_give_up:
            e = claimed.executions[0]
            reason = f"node_lost: {claimed.batch.claims - 1} nodes were lost while they sent it"
            log.error("execution_given_up", execution=e.id, claims=claimed.batch.claims)
            await self._recorder.endings([Ending(e, State.DEAD, self._clock.now_ms(), e.attempts, reason, mark=True)])
            self.counters["dead"] += 1
            await self._recorder.finish([claimed.batch])
            return
        if not claimed.executions:
            await self._recorder.finish([claimed.batch])
            return
        self.held[claimed.batch.id] = held
        self.dispatcher.add(held, claimed.executions)

    async def _hand_back_strays(self) -> None:
        """After an unknown outcome: batches that carry our name and that we do not hold."""
        self._strays = False
        for batch in await batches.strays(self._db, self._settings.node):
            held = self.held.get(batch.id)
            if held is None or held.batch.token != batch.token:
                await batches.release(self._db, batch, None)
                log.info("stray_released", batch=batch.id, token=batch.token)

    # -- keeping -------------------------------------------------------------------------------------------------

    async def _renew_turn(self) -> float:
        try:
            await self.renew_once()
        except StoreUnavailable as exc:
            log.warning("renew_disturbed", error=str(exc))
            self.only_unowned_for_a_lease()
            return RENEW_AGAIN
        return self._timings.batch_lease / 3

    async def renew_once(self) -> set[str]:
        """Extend every lease we hold. Returns the batches that were lost."""
        mine = {i: h for i, h in self.held.items() if not h.lost}
        if not mine:
            return set()
        started = self._clock.monotonic()
        pairs = [(i, h.batch.token) for i, h in mine.items()]
        lost = await batches.renew(self._db, self._settings.node, pairs, self._timings.batch_lease)
        until = started + self._timings.batch_lease - self._timings.margin
        self.counters["renewed"] += len(mine) - len(lost)
        for batch_id, held in mine.items():
            if batch_id not in lost:
                held.valid_until = until
            elif not held.done:  # what was finished while we asked is not lost
                self._lose(held)
        return lost

    def _lose(self, held: Held) -> None:
        held.lost = True
        unsent = self.dispatcher.withdraw(held)
        log.warning("lease_lost", batch=held.batch.id, token=held.batch.token, unsent=len(unsent))
        self.counters["leases_lost"] += 1
        if held.done:
            self._forget(held)

    def _forget(self, held: Held) -> None:
        if self.held.get(held.batch.id) is held:
            del self.held[held.batch.id]

    async def _hand_back_turn(self) -> float | None:
        if self.draining:
            return None
        try:
            await self.look_after_waiting()
        except StoreUnavailable as exc:
            log.warning("hand_back_disturbed", error=str(exc))
        return 1.0

    async def look_after_waiting(self) -> None:
        """Share breakers; put back what waits for its host, for a better moment or a node with room.

        So executions wait in the database and not in memory, and take no room from others.
        """
        await self.breakers.step()
        self.dispatcher.reconsider()
        now = self._clock.now_ms()
        crowded = self.dispatcher.waiting > self._settings.waiting // 4
        for parked in self.dispatcher.parked(1.0, 1.0 if crowded else 10.0):
            at = now + 2000 if parked.until_ms is None else max(parked.until_ms, now + 1000)
            if parked.host is None:  # a limit may be raised, which wakes nobody
                at = min(at, now + LIMITED_MOST_MS)
            await self._put_back(parked.held, rounded_up(at), parked)
        for held in self.dispatcher.overdue() if self.dispatcher.stuck() else ():
            await self._put_back(held, None)
        slow = self.dispatcher.hosts_slow()
        if slow:
            await batches.spread_late(self._db, "host", slow, LATE_APART_MS)
        shut = self.dispatcher.gates_shut()
        if shut:
            await batches.spread_late(self._db, "gate", shut, LATE_APART_MS // 5)

    async def _put_back(self, held: Held, claimable_ms: int | None, only: Parked | None = None) -> int:
        """Give up what is unsent of a batch (`only`: these of it): the whole batch on its token, or by a move."""
        open_ = len(held.waiting) if only is None else len(only.executions)
        untouched = not held.sending and not held.unrecorded and open_ == len(held.batch.ids)
        # A batch of several hosts is taken apart, so that what is held back for one of them does not come along again.
        alike = only is None or (
            held.batch.host == only.host if only.host is not None else held.batch.gate == only.executions[0].gate
        )
        whole = untouched and alike
        unsent = self.dispatcher.withdraw(held, None if only is None else only.executions)
        if not unsent:
            return 0
        if whole:
            self._forget(held)
            await batches.release(self._db, held.batch, claimable_ms, untouched=True)
            return len(unsent)
        overdue = held.batch.send_ms < self._clock.now_ms() - batches.OVERDUE_MS
        way = Way(held.batch.late or overdue, claimable_ms=claimable_ms, apart=only is not None and only.host is None)
        held.unrecorded += 1  # the old batch must outlive the move
        try:
            # The host is where the job sends now, whatever it was when this was written down.
            now = unsent if only is None or only.host is None else [replace(e, host=only.host) for e in unsent]
            await self._recorder.moves([Moved(e, e.attempts, e.send_ms) for e in now], way)
        except BaseException:
            held.lost = True  # it still lists them: let its lease end, and whoever claims it next will see to them
            raise
        finally:
            held.unrecorded -= 1
            self._close_if_done(held)
        return len(unsent)

    # -- recording -----------------------------------------------------------------------------------------------

    def _answered(self, answered: Answered) -> None:
        self._results.append(answered)
        self._wake.set()

    def _dropped(self, dropped: Dropped) -> None:
        self._results.append(dropped)
        self._wake.set()

    async def _record_turn(self) -> float:
        await self._wake.wait()
        if len(self._results) < FLUSH_MOST:
            await asyncio.sleep(LINGER)  # what finishes within a few ms is written together
        taken, self._results = self._results[:FLUSH_MOST], self._results[FLUSH_MOST:]
        if not self._results:
            self._wake.clear()
        if taken or self._finished:
            await self._record_surely(taken)
        return 0.0

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
                self.only_unowned_for_a_lease()
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
            self.counters["results_lost"] += 1
            held.lost = True
            self.dispatcher.withdraw(held)
        held.unrecorded -= 1
        self._close_if_done(held)

    async def record(self, results: list[Answered | Dropped]) -> None:
        """Record results: endings, retries, and the batches that are done with them."""
        ended: list[Ending] = []
        moved: list[Moved] = []
        exclusive: list[Execution] = []
        again: list[bool] = []
        gone: dict[str, Job] = {}
        for result in results:
            becomes, verdict = self._outcome(result)
            again.append(isinstance(becomes, Moved))
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
        # What is tried again gives its permit back first: another node may get it again as soon as it has moved.
        await self._give_back([r for r, m in zip(results, again, strict=True) if m])
        lost = await self._recorder.moves(moved) if moved else 0
        for job in gone.values():
            await self._pause_gone(job)
        await self._give_back([r for r, m in zip(results, again, strict=True) if not m])
        for result in results:
            result.held.unrecorded -= 1
        self._count(ended, moved, results)
        self._trace(ended)
        self.counters["duplicates"] += flushed.duplicates if flushed else 0
        self.counters["results_lost"] += lost + (flushed.lost if flushed else 0)
        for held in {id(r.held): r.held for r in results}.values():
            self._close_if_done(held)
        finished, self._finished = self._finished, []
        try:
            if finished:
                await self._recorder.finish([h.batch for h in finished])
        except StoreUnavailable as exc:
            # Its lease ends, and whoever claims it finds nothing owed and removes it.
            log.warning("finish_disturbed", batches=len(finished), error=str(exc))

    def _marked(self, result: Answered | Dropped, ending: Ending) -> bool:
        """Whether alerts are to be decided on it."""
        watched = result.job.watch if isinstance(result, Answered) else result.watch
        return marked(self.watch_all if watched is None else watched, ending.state, ending.drift_ms)

    def _close_if_done(self, held: Held) -> None:
        if held.done and self.held.get(held.batch.id) is held:
            self._forget(held)
            if not held.lost:
                self._finished.append(held)
                self._wake.set()

    async def _give_back(self, results: list[Answered | Dropped]) -> None:
        """Let others run that share a limit with what has ended. What is not given back counts until its lease ends."""
        held: dict[str, list[str]] = {}
        now = self._clock.monotonic()
        for r in results:
            # Past its lease another node may send it under the same permit; if none does, the permit is swept.
            ours = not r.held.lost and now < r.held.valid_until
            if ours and isinstance(r, Answered) and r.job.gate is not None:
                held.setdefault(r.job.gate, []).append(r.execution.id)
        if not held:
            return
        try:
            await self.gates.give_back(held)
        except StoreUnavailable as exc:
            log.warning("permits_disturbed", error=str(exc))
        self.dispatcher.permits_back(held)

    async def _pause_gone(self, job: Job) -> None:
        """410: nothing will ever be there again. If we die before this, the next occurrence is answered 410 too."""
        reason = f"{job.target.url} answered 410 Gone; resume the job when its target is back"
        if await insist(
            lambda: pause_gone(self._db, job, self._clock.now_ms(), reason), seconds=3600.0, event="pause_gone"
        ):
            log.warning("job_paused_gone", job=job.id)

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

    def _count(self, ended: list[Ending], moved: list[Moved], results: list[Answered | Dropped]) -> None:
        for e in ended:
            self.counters[e.state.value] += 1
        self.counters["retried"] += len(moved)
        for r in results:
            if isinstance(r, Answered):
                self.counters["attempts"] += 1
                kind = r.reply.error or f"http_{(r.reply.status or 0) // 100}xx"
                self.kinds[kind] += 1
                if kind != "http_2xx":
                    self.failing.add(r.job.target.url, kind, r.execution.id)
                self.duration.add(r.reply.duration_ms)
                self.queue.add(r.attempts[-1].sent_ms - max(r.execution.send_ms, r.held.taken_ms))
                if len(r.attempts) == 1:
                    self.drift.add(r.drift_ms)

    def _trace(self, ended: list[Ending]) -> None:
        trace = self.dispatcher.trace
        if trace is None:
            return
        now = self._clock.now_ms()
        for e in ended:
            if trace.wants(trace_id(e.execution.id)):
                held = self.held.get(e.execution.batch)
                trace.take(spans_of_ending(e, held.taken_ms if held else 0, now))

    # -- overlap -------------------------------------------------------------------------------------------------

    async def _may_overlap(self, execution: Execution) -> bool:
        """`overlap: skip` by compare-and-set on the job: one owed execution of a job runs at a time.

        Whoever is named as running and is not owed any more (its node died after recording it) gives way.
        """
        instead_of: str | None = None
        for _ in range(10):
            running = await definitions.begin_exclusive(self._db, execution.job_id, execution.id, instead_of)
            if running == execution.id:
                return True
            if running is None:
                instead_of = None
            elif await executions.owed(self._db, [running]):
                return False
            else:
                instead_of = running
        return False

    # -- stopping ------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """Stop claiming, hand back what is unsent, finish what is in flight, record it. The rest is the leases'.

        Ends after `seconds` and a moment, whatever the database or the targets do.
        """
        self.draining = True
        deadline = self._clock.monotonic() + seconds
        self.dispatcher.stopped = True
        work = asyncio.get_running_loop().create_task(self._wind_down(deadline))
        try:
            await asyncio.wait({work}, timeout=seconds)
        finally:
            in_time = work.done()
            await stop([work])
            await self.dispatcher.close()
            await stop(loop.task for loop in self.loops if loop.task is not None)
        if not in_time or (not work.cancelled() and work.exception() is not None):
            log.warning("drain_cut_short", left=len(self.held), exc_info=work.exception() if in_time else None)
        log.info("worker_drained", left=len(self.held))

    async def _wind_down(self, deadline: float) -> None:
        claimers = [loop.task for loop in self._claimers if loop.task is not None]
        if claimers:  # a claim under way is finished and handed back with the others
            await asyncio.wait(claimers, timeout=self._timings.operation)
            await stop(claimers)
        await self._put_back_everything()
        await self.dispatcher.finish(max(0.0, deadline - self._clock.monotonic() - 1.0))
        while (self._results or self.held) and self._clock.monotonic() < deadline - 0.2:
            if not self._wake.is_set() and self._finished:
                self._wake.set()
            await asyncio.sleep(0.02)
        await stop(loop.task for loop in self.loops if loop.task is not None)
        if self._results or self._finished:
            await self.record(self._results)
        await self._hand_back_strays()

    async def rest(self) -> None:
        """Claim nothing more and hand back what is unsent; what is in flight ends as it would."""
        self.resting = True
        await self._put_back_everything()

    async def _put_back_everything(self) -> None:
        everything = list(self.held.values())
        for i in range(0, len(everything), HAND_BACK_AT_ONCE):
            await asyncio.gather(*(self._put_back_quietly(h) for h in everything[i : i + HAND_BACK_AT_ONCE]))

    async def _put_back_quietly(self, held: Held) -> None:
        try:
            await self._put_back(held, None)
        except HoraeError as exc:
            log.warning("hand_back_disturbed", batch=held.batch.id, error=str(exc))
