"""The leader: one sequential loop of bounded steps, run only while the lease is trusted.

Being sequential is part of the protocol: settling and the main pass of one leader never interleave. So the only rival is
a leader that lost its lease and does not know it; terms and history see to that.

The main pass leaves out jobs with an unsettled change. Settling writes what such a job owes up to where its row has come
to, and then marks the change as settled. A stale leader could mark it late, after having read an older position of the
row. That is harmless: a new leader settles every unsettled change *before it moves its first row*, so every change that
the stale leader still has in its hands was settled against rows that did not move in between, or is settled again.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import HoraeError, OwnershipLost, StoreUnavailable, TermLost
from cluster.leader.act import JobActions
from cluster.leader.alerting import Alerter
from cluster.leader.backfill import Backfiller
from cluster.leader.catch_up import CatchUp
from cluster.leader.compare_results import ResultComparer
from cluster.leader.complete import Completer
from cluster.leader.completed import CompletedRemover
from cluster.leader.copy_audit import BUSY_SECONDS as AUDIT_BUSY
from cluster.leader.copy_audit import STEP_SECONDS as AUDIT_EVERY
from cluster.leader.copy_audit import AuditCopier
from cluster.leader.due_messages import MessageMover
from cluster.leader.end_pauses import PauseEnder
from cluster.leader.follow_calendars import IDLE_SECONDS as FOLLOW_IDLE
from cluster.leader.follow_calendars import STEP_SECONDS as FOLLOW_EVERY
from cluster.leader.follow_calendars import CalendarFollower
from cluster.leader.materialise import Materialiser
from cluster.leader.periodic import Periodic, StepResult
from cluster.leader.prune import Pruned, Pruner
from cluster.leader.replay import Replayer
from cluster.leader.settle import Settler
from cluster.leader.sweep import Sweeper
from cluster.loops import Loop, cancel_and_wait
from cluster.store import pauses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.leader.context import LeaderContext
    from cluster.leader.elector import Elector
    from cluster.leader.liveness import Liveness
    from cluster.loops import Wait

log = structlog.get_logger()

STEP_SECONDS = 0.25
SWEEP_EVERY = 3.0
REPLAY_EVERY = 1.0
ALERT_EVERY = 1.0
ACT_IDLE, ACT_PAUSE = 1.0, 0.05
"""Pauses (s) between two looks for actions: while there is none, and while one runs."""
MESSAGES_EVERY = 0.4
COMPLETE_EVERY = 0.5
COMPLETED_EVERY = 5.0
FAILED_STEP_PAUSE = 5.0
"""Before a step that failed unexpectedly is tried again (s)."""
STEP_ASIDE_LEASES = 3
"""For so many leases a leader whose work failed does not stand for election again."""


class Leader:
    """The leader's work on one node; idle while another node leads.

    `prunes`: expired history is deleted by this leader in portions, and not by MongoDB's TTL index only.
    """

    def __init__(self, context: LeaderContext, elector: Elector, liveness: Liveness, *, prunes: bool = True) -> None:
        self._context = context
        self._clock = context.clock
        self._elector = elector
        self._liveness = liveness
        self.pause_ender = PauseEnder(context)
        self.settler = Settler(context)
        self.materialiser = Materialiser(context)
        self.message_mover = MessageMover(context)
        self.completer = Completer(context)
        self.completed_remover = CompletedRemover(context)
        self.replayer = Replayer(context)
        self.backfiller = Backfiller(context)
        self.catch_up = CatchUp(context)
        self.sweeper = Sweeper(context, liveness)
        self.job_actions = JobActions(context)
        self.alerter = Alerter(context.db, context.clock, context.retention_days)
        self.counters: Counter[str] = Counter()
        """Counts of this node's work while it led."""
        rest = context.timings.rest_seconds
        # In this order: executions that are due now come first, and must not depend on the steps after them.
        self._steps = (
            Periodic("end_pauses", self._end_pauses, of_jobs=True, contained=True),
            Periodic("settle", self._settle, of_jobs=True, wakes=("materialise", "catch_up")),
            Periodic("materialise", self._materialise, rests=rest, wakes=("catch_up",)),
            Periodic("messages", self._move_messages, every=MESSAGES_EVERY, rests=rest, contained=True),
            Periodic("replay", self._replay, every=REPLAY_EVERY, rests=rest, contained=True),
            Periodic("backfill", self._backfill, every=REPLAY_EVERY, rests=rest, contained=True),
            Periodic("catch_up", self._catch_up, rests=rest, contained=True, yields_to="materialise"),
            Periodic("sweep", self._sweep, every=SWEEP_EVERY, contained=True),
            Periodic("complete", self._complete, every=COMPLETE_EVERY, rests=SWEEP_EVERY, contained=True),
            Periodic("completed", self._remove_completed, every=COMPLETED_EVERY, contained=True),
        )
        self._next_run: dict[str, float] = {}
        self._rests_since: dict[str, tuple[float, int, int]] = {}
        """Since when steps rest that have found nothing to do: monotonic (s), cluster time and what it is held by (ms)."""
        self._settled_term = -1
        self._failing_since: float | None = None
        # These run beside the sequential loop: an alert must never delay a job, an action makes the changes that any node
        # makes for its callers, and nothing waits for the others.
        comparer = ResultComparer(context.db, context.clock)
        self.audit_copier = AuditCopier(context.db, context.clock, context.audit_retention_days)
        self.calendar_follower = CalendarFollower(context.db, context.clock)
        self.loops = [
            Loop("lead", self._turn),
            Loop("alert", self._alert_turn),
            Loop("act", self._act_turn),
            Loop("compare_results", functools.partial(self._compare_turn, comparer)),
            Loop("copy_audit", self._audit_turn),
            Loop("follow_calendars", self._follow_turn),
        ]
        if prunes:
            pruner = Pruner(context.db, context.clock)
            self.loops.append(Loop("prune", functools.partial(self._prune_turn, pruner)))

    def start(self) -> None:
        """Begin; work is done only while the elector holds a trusted term."""
        for loop in self.loops:
            loop.start()

    async def stop(self) -> None:
        """Stop the work. The lease may be given up after this, not before."""
        await cancel_and_wait(loop.task for loop in self.loops if loop.task is not None)

    async def _prune_turn(self, pruner: Pruner) -> Wait:
        done = Pruned()
        if self._elector.term is None:
            return self._elector.until_held(pruner.seconds_until_next(done))
        if not self._clock.in_doubt:
            try:
                done = await pruner.step()
                self.counters["pruned"] += done.documents
            except HoraeError as exc:
                log.warning("prune_unavailable", error=str(exc))
        return pruner.seconds_until_next(done)

    async def _compare_turn(self, comparer: ResultComparer) -> Wait:
        if self._elector.term is None:
            return self._elector.until_held(comparer.seconds_until_next())
        try:
            await comparer.step()
        except HoraeError as exc:
            log.warning("compare_results_unavailable", error=str(exc))
        return comparer.seconds_until_next()

    async def _audit_turn(self) -> Wait:
        if self._elector.term is None:
            return self._elector.until_held(AUDIT_EVERY)
        try:
            copied = await self.audit_copier.step()
        except HoraeError as exc:
            log.warning("audit_unavailable", error=str(exc))
            return AUDIT_EVERY
        return AUDIT_BUSY if copied else AUDIT_EVERY

    async def _follow_turn(self) -> Wait:
        if self._elector.term is None:
            return self._elector.until_held(FOLLOW_EVERY)
        try:
            done = await self.calendar_follower.step()
        except HoraeError as exc:
            log.warning("follow_calendars_unavailable", error=str(exc))
            return FOLLOW_EVERY
        return 0.02 if done.more else FOLLOW_IDLE if done.idle else FOLLOW_EVERY

    async def _alert_turn(self) -> Wait:
        """The writes of alerting need no trust in the term: a stale leader's writes are the same or fail."""
        if self._elector.term is None:
            return self._elector.until_held(ALERT_EVERY)
        try:
            done = await self.alerter.step()
        except HoraeError as exc:
            log.warning("alerts_unavailable", error=str(exc))
            return ALERT_EVERY
        self.counters.update(incidents_opened=done.opened, incidents_closed=done.closed, alerts=done.alerts)
        return 0.05 if done.more else ALERT_EVERY

    async def _act_turn(self) -> Wait:
        if self._elector.term is None:
            return self._elector.until_held(ACT_IDLE)
        try:
            done = await self.job_actions.step()
        except HoraeError as exc:  # the page is done again
            log.warning("actions_unavailable", error=str(exc))
            return ACT_IDLE
        self.counters["acted"] += done.jobs
        return ACT_PAUSE if done.more else ACT_IDLE

    async def _turn(self) -> Wait:
        if self._elector.term is None:
            self._failing_since = None
            return self._elector.until_held(STEP_SECONDS)
        try:
            more = await self.step()
        except TermLost as exc:
            log.warning("term_lost", error=str(exc))
            return STEP_SECONDS
        except StoreUnavailable as exc:
            log.warning("leader_unavailable", error=str(exc))
            return STEP_SECONDS
        except Exception:  # a leader that cannot lead must not keep others from it
            log.exception("leader_failed")
            await self._step_aside_if_failing()
            return STEP_SECONDS
        self._failing_since = None
        return 0 if more else self._until_next_turn()

    async def _step_aside_if_failing(self) -> None:
        """Give the lease up when every turn has failed for a lease: another node may fare better."""
        now = self._clock.monotonic()
        lease = self._context.timings.leader_lease
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > lease:
            self._failing_since = None
            log.error("leader_stepped_aside", seconds=STEP_ASIDE_LEASES * lease)
            await self._elector.step_aside(STEP_ASIDE_LEASES * lease)

    def _until_next_turn(self) -> float:
        """Turns begin between the quarters of a second: most sends are due on a full one and want the event loop then."""
        return STEP_SECONDS - (self._clock.now_ms() / 1000 - STEP_SECONDS / 2) % STEP_SECONDS

    async def step(self) -> bool:
        """One turn: each step whose time has come does one bounded piece of work. True if there is more to do at once.

        Raises `TermLost` and `StoreUnavailable`.
        """
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        nodes = self._liveness.live_count(now, self._context.timings.batch_lease)
        self._context.tracer.begin_step()
        unfinished: set[str] = set()
        any_waiting: bool | None = None
        for periodic in self._steps:
            if periodic.of_jobs:
                any_waiting = await self._any_job_waits(now_ms) if any_waiting is None else any_waiting
                if not any_waiting:
                    continue
            if periodic.yields_to in unfinished or now < self._next_run.get(periodic.name, 0.0):
                continue
            if self._rests(periodic, now, now_ms):
                continue
            self._next_run[periodic.name] = now + periodic.every
            result = await self._run(periodic, now, nodes)
            self.counters.update(result.counts)
            if result.idle:
                self._rests_since[periodic.name] = (now, now_ms, self._clock.held_ms)
            else:
                self._wake(periodic.wakes)
            if result.more:
                unfinished.add(periodic.name)
            if result.ends_turn:
                break
        return bool(unfinished)

    async def _any_job_waits(self, now_ms: int) -> bool:
        """Each term begins by settling, whatever there is: no row may move before."""
        return self._settled_term != self._elector.trusted_term().number or await pauses.any_waiting(
            self._context.db, now_ms
        )

    def _rests(self, periodic: Periodic, now: float, now_ms: int) -> bool:
        """Whether the step found nothing a moment ago, by either clock: what comes due comes due by cluster time.

        What it found while the clock was in doubt says nothing of what it would find now.
        """
        since, since_ms, held_ms = self._rests_since.get(periodic.name, (float("-inf"), 0, 0))
        is_recent = now - since < periodic.rests and 0 <= now_ms - since_ms < periodic.rests * 1000
        return is_recent and held_ms == self._clock.held_ms

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            self._rests_since.pop(name, None)

    async def _run(self, periodic: Periodic, now: float, nodes: int) -> StepResult:
        try:
            return await periodic.step(nodes)
        except (OwnershipLost, StoreUnavailable):
            raise
        except Exception:
            if not periodic.contained:
                raise
            self._next_run[periodic.name] = now + FAILED_STEP_PAUSE
            log.exception("leader_step_failed", step=periodic.name)
            return StepResult()

    async def _end_pauses(self, _nodes: int) -> StepResult:
        """Before settling, which then works the resumes in, in the same turn."""
        done = await self.pause_ender.step(self._clock.now_ms())
        return StepResult(more=done.more)

    async def _settle(self, nodes: int) -> StepResult:
        term = self._elector.trusted_term().number
        done = await self.settler.step(self._clock.now_ms(), nodes)
        counts = {"settled": done.jobs, "materialised": done.executions, "missed": done.missed}
        if done.more and self._settled_term != term:  # no row may move before this term has settled every change
            return StepResult(counts, more=True, ends_turn=True)
        if self._settled_term != term:
            self._rests_since.clear()
        self._settled_term = term
        return StepResult(counts, done.more, idle=not done.jobs)

    async def _materialise(self, nodes: int) -> StepResult:
        done = await self.materialiser.step(self._clock.now_ms(), nodes)
        return StepResult({"materialised": done.executions}, done.more, idle=not done.rows and not done.more)

    async def _move_messages(self, nodes: int) -> StepResult:
        done = await self.message_mover.step(self._clock.now_ms(), nodes)
        return StepResult({"messages_moved": done.messages}, done.more, idle=not done.messages and not done.more)

    async def _replay(self, _nodes: int) -> StepResult:
        return StepResult(idle=(await self.replayer.step(self._clock.now_ms())).idle)

    async def _backfill(self, _nodes: int) -> StepResult:
        if self._clock.in_doubt:
            return StepResult()
        return StepResult(idle=(await self.backfiller.step(self._clock.now_ms())).idle)

    async def _catch_up(self, _nodes: int) -> StepResult:
        if self._clock.held_ms:  # what came due in a gap is told from what only seems to by the clock
            return StepResult()
        done = await self.catch_up.step(self._clock.now_ms())
        return StepResult({"caught_up": done.executions, "missed": done.missed}, done.more, idle=done.idle)

    async def _complete(self, _nodes: int) -> StepResult:
        return StepResult(idle=not await self.completer.step(self._clock.now_ms()))

    async def _remove_completed(self, _nodes: int) -> StepResult:
        if self._clock.in_doubt:  # by a clock that is ahead too much would be over
            return StepResult()
        return StepResult({"completed_removed": await self.completed_remover.step(self._clock.now_ms())})

    async def _sweep(self, _nodes: int) -> StepResult:
        done = await self.sweeper.step()
        return StepResult({"released": done.released, "demoted": done.demoted, "orphans": done.orphans})
