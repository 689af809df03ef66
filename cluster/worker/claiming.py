"""The policy of claiming: when this node claims, how often, which batches, and what becomes of a batch it has claimed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import Ending, Rescheduled
from cluster.core.execution.planning import MAX_BATCH, MAX_CROWD_BATCH
from cluster.core.lifecycle import State
from cluster.core.timings import PREFETCH_MS
from cluster.store import batches
from cluster.store.batches import ClaimFilter
from cluster.worker.claim import SUSPECT_AFTER, ClaimedBatch, Claimer
from cluster.worker.claim_order import ClaimOrder
from cluster.worker.claim_pauses import ClaimPauses
from cluster.worker.held_batch import HeldBatch
from cluster.worker.late_work import LateWork
from cluster.worker.record import MoveOptions
from cluster.worker.suspect_slot import SuspectSlot
from cluster.worker.unclaimed import UnclaimedJudge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.loops import Wait
    from cluster.worker.context import WorkerContext
    from cluster.worker.dispatch import Dispatcher
    from cluster.worker.record import Recorder

log = structlog.get_logger()

MIN_IDLE = 0.025
MAX_IDLE = 0.25
BEHIND_MS = 300
BEHIND_SECONDS = 1.0
"""There is a backlog while a batch was claimed so recently that should have been sent `BEHIND_MS` before."""
MAX_ATTEMPT_BYTES = 64 * 1024 * 1024
"""With so much in memory of answers to earlier attempts, nothing more is claimed."""
MAX_BODY_BYTES = 32 * 1024 * 1024
"""With so much in memory of messages that wait, a node holds no more than usual."""
NONE_SOON_SECONDS = 0.05
"""After a claim that found nothing due soon, claims of what is due later go on for so long before the next one asks for it."""
LATE_EVERY = 10
"""One claim in so many asks for late work first, so that current work never keeps it out for ever."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many executions one node takes on."""

    due: int
    """With so many that are due and wait it claims nothing more."""
    ahead: int
    """With so many that wait, due or not, it claims only what is due soon; and no more than `due` on top of them."""
    unrecorded: int
    """With so many that are to be recorded it claims nothing more."""


class Claiming:
    """Claims for one node, and has the dispatcher take on what it claims."""

    def __init__(self, context: WorkerContext, dispatcher: Dispatcher, recorder: Recorder, room: Room) -> None:
        self._context = context
        self._clock = context.clock
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._room = room
        self.claimer = Claimer(context.db, context.clock, context.timings, context.node)
        self.pauses = ClaimPauses(context.db, context.clock, context.timings.lookahead - PREFETCH_MS / 1000)
        self.order = ClaimOrder(context.node)
        self._judge = UnclaimedJudge(context, recorder)
        self._suspect = SuspectSlot()
        self._late_work = LateWork(context, room.due // 4)
        self._strays = False
        """Whether a batch may carry this node's name that the node does not know of."""
        self._releasing_strays = False
        self._under_way = 0
        self._turn = 0
        self._behind_until = 0.0
        self._none_soon_until = 0.0
        self._late_size = MAX_CROWD_BATCH
        self._behind = asyncio.Event()
        """Set by a backlog; the spare claimers wait for it."""
        self._primary: tuple[str, int] | None = None
        self.stopped = False
        """For good: the process ends."""
        self.paused = False
        """For the time being: an operator drained this node."""

    def stop(self) -> None:
        """Claim nothing more; the claimers end."""
        self.stopped = True
        self.pauses.end()
        self._behind.set()

    def pause(self) -> None:
        """Claim nothing until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Claim again."""
        self.paused = False

    def turns(
        self, before: Callable[[], Awaitable[None]] | None = None, *, spare: bool = False
    ) -> Callable[[], Awaitable[Wait]]:
        """The turns of one claimer, which sleeps while there is nothing to claim (see `claim_pauses`).

        `before` is called before each claim: it learns what may have changed while this node had nothing to do.
        A `spare` one claims only while there is a backlog. A claim waits for the database most of its time, and after an
        outage the backlog is mostly small retry batches, so claim latency, not CPU, limits how fast it drains.
        """
        idle = MIN_IDLE
        resting = has_claimed = False

        async def turn() -> Wait:
            nonlocal idle, resting, has_claimed
            if self.stopped:
                return None
            if spare and self._clock.monotonic() > self._behind_until:
                self._behind.clear()
                return self._behind
            try:
                if looked := resting and not self._strays and self._has_room():
                    self._look_for_failover()
                else:
                    if before is not None:
                        await before()
                    if await self.claim_once():
                        idle = MIN_IDLE
                        if has_claimed:  # there is more than one; else the other claimers would ask in vain for each
                            self.pauses.claimed()
                        has_claimed = True
                        return 0.0
                    has_claimed = False
                    idle = min(MAX_IDLE, idle * 1.5)
                pause = idle * random.uniform(0.8, 1.2)  # noqa: S311 - spreads polls, guards nothing
                if spare or self._strays or not self._has_room():
                    return pause
                # The back-off is for what a claim did not get. What a poll finds, this node has not tried yet.
                resting = not await self.pauses.pause(0.0 if looked else pause, self._patience_ms())
            except Exception as exc:
                if has_claimed:  # there may be more, and this claimer does not ask for it
                    self.pauses.claimed()
                has_claimed = False
                self._strays = True  # whatever it was, a batch may carry this node's name
                if not isinstance(exc, StoreUnavailable):
                    raise
                log.warning("claim_unavailable", error=str(exc))
                self._context.reclaim_pause.begin()
                idle = MAX_IDLE
                return idle
            return 0.0

        return turn

    async def claim_once(self) -> bool:
        """Claim one batch and take it on. False: nothing to claim, or no room."""
        if not self._has_room() or self._releasing_strays:
            return False
        if self._strays:
            if self._under_way:
                return False  # a batch that another claimer has just claimed carries this node's name, and is no stray
            self._releasing_strays = True
            try:
                await self.release_strays()
            finally:
                self._releasing_strays = False
        self._under_way += 1
        try:
            return await self._claim()
        finally:
            self._under_way -= 1

    async def release_strays(self) -> None:
        """After a claim of unknown outcome: release the batches that carry this node's name and that it does not hold."""
        self._strays = False
        for batch in await batches.owned_by(self._context.db, self._context.node):
            held = self._context.held.get(batch.id)
            if held is None or held.batch.token != batch.token:
                await batches.release(self._context.db, batch, None, nothing_sent=True)
                log.info("stray_released", batch=batch.id, token=batch.token)

    def blocked_hosts(self) -> tuple[str, ...]:
        """Hosts for which this node should claim nothing more now: no slot, an open breaker, or executions that wait."""
        return self._dispatcher.blocked_hosts()

    @property
    def watches_late_work(self) -> bool:
        """Whether there may be late work to bring forward."""
        return self._late_work.watches

    async def bring_late_work_forward(self) -> None:
        """Once a second: late work that was spread and that this node has room for."""
        if self.stopped or self.paused or not self._has_room():
            return
        try:
            await self._late_work.bring_forward(self.blocked_hosts(), self._dispatcher.limit_queues.saturated())
        except StoreUnavailable as exc:
            log.warning("claim_unavailable", error=str(exc))

    def _has_room(self) -> bool:
        context, room = self._context, self._room
        return (
            (context.unsent.count < room.due or self._has_room_for_more())
            and sum(h.attempt_bytes for h in context.held.values()) < MAX_ATTEMPT_BYTES
            and len(context.records) < room.unrecorded
            and not self.stopped
            and not self.paused
            and not context.slots.stuck()
        )

    def _has_room_for_more(self) -> bool:
        """Than is usual, because little of what this node holds is due."""
        room, held = self._room, self._context.held
        return (
            self._context.unsent.count + self._under_way * MAX_CROWD_BATCH < room.ahead + room.due
            and held.count_due(self._clock.now_ms()) < room.due
            and sum(h.body_bytes for h in held.values() if h.waiting) < MAX_BODY_BYTES
        )

    async def _claim(self) -> bool:
        self._look_for_failover()
        self._turn += 1
        late_first = self._turn % LATE_EVERY == 0
        for late in (late_first, not late_first):
            # Late work takes idle room only, never the room that current work needs; other claims may bring as much. One claim
            # in `LATE_EVERY` has more: a node that is behind with a quick host claims ahead, up to a quarter of the room.
            coming = (self._under_way - 1) * self._late_size
            idle_room = self._room.due // (2 if late_first else 4)
            if late and self._context.due_soon() + coming >= idle_room:
                continue
            for soon_only in self._in_order(late=late):
                with self._suspect.claiming() as may_be_suspect:
                    which = self._filter(None if may_be_suspect else SUSPECT_AFTER - 1, late=late, soon_only=soon_only)
                    asked = self._clock.monotonic()
                    claimed = await self.claimer.step(which)
                    if soon_only:
                        self._none_soon_until = asked + NONE_SOON_SECONDS if claimed is None else 0.0
                    if late:  # batches of a crowd stay as large when they become late
                        self._late_size = MAX_CROWD_BATCH if claimed is None else max(MAX_BATCH, len(claimed.batch.ids))
                    if claimed is not None:
                        await self.take_on(await self._judge.judge(claimed))
                        return True
        return False

    def _in_order(self, *, late: bool) -> tuple[bool, ...]:
        """Whether to claim only what is due soon, one claim after the other.

        Of a crowded second this node takes what it can hold, and what is due before that second first: it would stand behind
        thousands that have been claimable for longer.
        """
        unsent = self._context.unsent.count
        if late or unsent < self._room.due:
            return (False,)
        if unsent >= self._room.ahead:
            return (True,)
        return (False,) if self._clock.monotonic() < self._none_soon_until else (True, False)

    def _filter(self, max_claims: int | None, *, late: bool, soon_only: bool = False) -> ClaimFilter:
        behind_ms = max(0, -self._clock.held_ms)
        return ClaimFilter(
            late=late,
            soon_only=soon_only,
            hosts_blocked=self.blocked_hosts(),
            limits_saturated=self._dispatcher.limit_queues.saturated(),
            unowned_only=self._context.reclaim_pause.active or behind_ms > 0,
            max_claims=max_claims,
            behind_ms=behind_ms,
            unclaimed_ms=None if self._clock.in_doubt else self._context.timings.unclaimed_ms,
            patience_ms=0 if late else self._patience_ms(),
        )

    def _patience_ms(self) -> int:
        return self.order.patience_ms(self._clock.now_ms(), self._context.unsent.count, self._context.held)

    def _look_for_failover(self) -> None:
        """Another primary, maybe with another clock: leases that look ended to it may be alive."""
        primary = self._context.db.primary()
        if primary is not None and primary != self._primary:
            if self._primary is not None:
                log.warning("primary_changed", primary=f"{primary[0]}:{primary[1]}")
                self._context.reclaim_pause.begin()
            self._primary = primary

    async def take_on(self, claimed: ClaimedBatch) -> None:
        """Have a claimed batch sent; or split it, give it up or delete it, as its claims and its executions say."""
        batch, counters = claimed.batch, self._context.stats.counters
        newer = self._context.held.get(batch.id)
        if newer is not None and newer.batch.token > batch.token:
            return  # this claim took longer than its lease, and another claimer has made the next one
        counters["claimed"] += 1
        counters["reclaimed"] += batch.claims > 1
        claimed_ms = self._clock.now_ms()
        if batch.late:
            self._late_work.note(batch)
        if batch.send_ms < claimed_ms - BEHIND_MS:
            self._behind_until = self._clock.monotonic() + BEHIND_SECONDS
            self._behind.set()
        if claimed.unreadable:
            await self._recorder.record_unreadable(batch, claimed.unreadable, self._clock.now_ms())
        if claimed.must_split:
            await self._split(claimed)
        elif claimed.must_give_up:
            await self._give_up(claimed)
        elif not claimed.executions:
            await self._recorder.delete_finished([batch])
        else:
            held = HeldBatch(batch, claimed.valid_until, claimed.executions, claimed_ms)
            self._context.held.add(held)
            self._dispatcher.add(held)
            if claimed.suspect:
                self._suspect.hold(held)

    async def _split(self, claimed: ClaimedBatch) -> None:
        """Its executions go on one by one, in case one of them kills the nodes that send it."""
        batch = claimed.batch
        rescheduled = [Rescheduled(e, e.attempts, e.send_ms) for e in claimed.executions]
        log.warning("batch_split", batch=batch.id, executions=len(rescheduled), claims=batch.claims)
        await self._recorder.reschedule(
            rescheduled, MoveOptions(late=batch.late, claims=batch.claims, one_per_batch=True)
        )
        await self._recorder.delete_finished([batch])

    async def _give_up(self, claimed: ClaimedBatch) -> None:
        """The one execution of this batch has taken too many nodes with it."""
        batch, execution = claimed.batch, claimed.executions[0]
        reason = f"node_lost: {batch.claims - 1} nodes were lost while they sent it"
        log.error("execution_given_up", execution=execution.id, claims=batch.claims)
        ending = Ending(
            execution=execution,
            state=State.DEAD,
            ended_ms=self._clock.now_ms(),
            attempts=execution.attempts,
            reason=reason,
            alert_pending=True,
            followed=True,
        )
        await self._recorder.record_final([ending])
        self._context.stats.counters["dead"] += 1
        await self._recorder.delete_finished([batch])
