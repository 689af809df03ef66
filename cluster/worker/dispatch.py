"""Sending: executions of leased batches wait for the cluster clock, pass the last checks, and are POSTed.

The dispatcher never starts an execution whose lease may have ended, and it sends nothing for a job that was read more than
a second ago. The result of a request is handed on as a value. An execution that may not go yet waits in `host_queues` (for
its host) or `limit_queues` (for its limit). `execution_states` has the whole way of an execution as a table.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from cluster.core.execution.lateness import ON_TIME, SPLIT_MS, SendTimes, lateness_parts
from cluster.core.execution.model import Attempt
from cluster.core.execution.outcome import drift_ms, max_age_reason, next_attempt_number
from cluster.core.execution.verdict import round_up_to_grain
from cluster.core.lifecycle import Event
from cluster.core.limits.circuit_breaker import Admission
from cluster.outbound.errors import NotSent
from cluster.worker.host_queues import HostQueues
from cluster.worker.limit_queues import LimitQueues
from cluster.worker.model import WATCH_FAILURES, DroppedExecution, FinishedRequest
from cluster.worker.overlap import acquire_exclusive
from cluster.worker.prepare import Preparer
from cluster.worker.probe_lottery import ProbeLottery
from cluster.worker.run_queue import RunQueue

if TYPE_CHECKING:
    from cluster.core.alerts import ResultWatch
    from cluster.core.limits.circuit_breaker import Breaker
    from cluster.outbound.sender import Reply
    from cluster.worker.context import WorkerContext
    from cluster.worker.held_batch import HeldBatch
    from cluster.worker.model import ReadyExecution

log = structlog.get_logger()

OVERLAP_WAIT_MS = 500
"""After so long, an execution that waits for the end of the run before it looks again."""
CLAIM_AHEAD = 512
"""With fewer unsent executions a node claims more, also for a host whose slots are all taken."""
STALE_SECONDS = 0.95
"""A job read longer ago than this is read again before its execution is sent. So nothing of a job leaves later than a
second after a pause of it was answered: the read began before, or sees the pause.
"""
REREAD_SECONDS = 0.75
"""Its job is read again before it takes a slot: what is too old only then, because the node is busy, has to be given back. Once
is enough: a reading that takes longer than this itself must not be made for ever.
"""


class Dispatcher:
    """Sends what one node holds. Its queues are public: the parts that release and claim ask them."""

    def __init__(self, context: WorkerContext) -> None:
        self._db = context.db
        self._clock = context.clock
        self._sender = context.sender
        self._breakers = context.breakers
        self._node = context.node
        self._slots = context.slots
        self._unsent = context.unsent
        self._due_soon = context.due_soon
        self._records = context.records
        self._tasks = context.tasks
        self.run_queue = RunQueue(context.clock, context.slots, self._dispatch)
        self.host_queues = HostQueues(context, self._dispatch)
        self.limit_queues = LimitQueues(context, self.run_queue)
        self.lottery = ProbeLottery(context, self.host_queues, self.run_queue, self._launch, self._defer)
        self._preparer = Preparer(context, self.run_queue, self.host_queues)
        self.paused = self._preparer.paused

    def add(self, held: HeldBatch) -> None:
        """Take on a batch that was claimed."""
        self._unsent.add(held)
        self._preparer.prepare_batch(held)

    def start_waiting(self, host: str | None = None) -> None:
        """A request to this host has ended, or breakers have changed (None): what waits may go."""
        if not self.run_queue.stopped:
            self.host_queues.start_waiting(host)
            self.run_queue.start_due()

    def blocked_hosts(self) -> tuple[str, ...]:
        """Hosts that this node claims nothing more for now: no slot, an open breaker, or executions that wait.

        A host that answers quickly is blocked only while this node has enough to send: or each slot that comes free would
        wait for a claim.
        """
        busy = self._busy_hosts()
        if busy and self._due_soon() < CLAIM_AHEAD:
            now = self._clock.monotonic()
            busy = {h for h in busy if not self.host_queues.takes_turns(h, now)}
        return tuple(busy.union(self._breakers.hosts_blocked()))

    def many_leave(self) -> bool:
        """Whether so many are due and leave one after another that what can wait should wait."""
        return not self.run_queue.stopped and (self.run_queue.waits_for_slot() or self.host_queues.many_move())

    def held_back_hosts(self) -> tuple[str, ...]:
        """Hosts of which batches wait, because this node has no slot for them now, whether it claims ahead or not."""
        return tuple(self._busy_hosts().union(self._breakers.hosts_blocked()))

    def _busy_hosts(self) -> set[str]:
        waited_for = [h for h in self.host_queues.hosts() if not self.lottery.wants_others(h)]
        return {*self._slots.full_hosts(), *waited_for}

    def overdue_batches(self) -> list[HeldBatch]:
        """Batches of which something is due and waits for a slot of this node, or for its turn to be prepared."""
        return list(dict.fromkeys([*self.run_queue.overdue_batches(), *self._preparer.unprepared()]))

    def unprepared_batches(self) -> list[HeldBatch]:
        """Batches that are due and wait for their turn to be prepared."""
        return self._preparer.unprepared()

    async def finish(self, seconds: float) -> None:
        """Start nothing more, and wait until nothing is in flight, at most so long."""
        self.run_queue.stop()
        await self._tasks.wait(seconds)

    async def close(self) -> None:
        """Cancel what is left; its leases will end by themselves."""
        self.run_queue.close()
        await self._tasks.cancel()

    def _dispatch(self, ready: ReadyExecution) -> None:
        """An execution is due and a slot is free: send it, or let it wait for what it lacks."""
        held, execution, job = ready.held, ready.execution, ready.job
        if execution.id not in held.waiting or self._unsent.drop_if_lapsed(held):
            return
        now = self._clock.monotonic()
        admission = self._breakers.admission(job.host)
        if admission is Admission.HOLD or not self._slots.has_room(job.host, now, job.target.unread_bytes):
            self._defer(ready)
        elif admission is Admission.PROBE and not self.lottery.is_drawn(ready):
            self._defer(ready)
            self.lottery.draw(job.host)
        elif now - ready.read_at > (STALE_SECONDS if ready.read_again else REREAD_SECONDS):
            # Only for what has room, and together: a read for each of hundreds would use up every connection.
            self._preparer.prepare_again(ready)
        elif job.limit_key is not None and not self.limit_queues.admit(ready):
            return
        elif admission is Admission.PROBE:
            self.lottery.probe(ready)
        else:
            self._launch(ready, None)

    def _defer(self, ready: ReadyExecution) -> None:
        self.limit_queues.return_permit(ready)
        self.host_queues.add(ready)

    def _launch(self, ready: ReadyExecution, probe: Breaker | None) -> None:
        self._unsent.start_sending(ready.held, ready.execution.id)
        if self._unsent.count == CLAIM_AHEAD - 1:
            self._db.upcoming.note(0)  # a claimer may sleep because this host was blocked
        self._slots.take(ready.job.host, ready.execution.id, ready.job.target.unread_bytes)
        self._tasks.spawn(self._send(ready, probe))

    async def _send(self, ready: ReadyExecution, probe: Breaker | None) -> None:
        held, execution, job = ready.held, ready.execution, ready.job
        host, body_bytes = job.host, job.target.unread_bytes
        started_ms, held_back_ms = self._clock.now_ms(), ready.held_back_ms(self._clock.monotonic())
        reply = None
        try:
            if body_bytes:
                forbidden = await self._preparer.load(ready)
                if forbidden is not None:
                    self._drop(ready, *forbidden, WATCH_FAILURES)
                    return
                job = ready.job
            if job.overlap_skip and not await acquire_exclusive(self._db, execution):
                again_ms = round_up_to_grain(self._clock.now_ms() + OVERLAP_WAIT_MS) if execution.waits else None
                self._drop(ready, "the run before it had not ended", Event.SKIP, WATCH_FAILURES, again_ms)
                return
            # Nothing is awaited between this and the request: to get here may have taken longer than the lease.
            if self._unsent.drop_if_lapsed(held) or self._is_stale(ready):
                self._give_back(ready)
                return
            sent_ms = self._clock.now_ms()
            too_old = max_age_reason(execution, job, sent_ms)
            if too_old is not None:
                self._drop(ready, too_old, Event.EXHAUST, job.watch)
                return
            try:
                reply = await self._sender.send(ready.request, partial(self._may_leave, ready))
            except NotSent:
                self._give_back(ready)
                return
            self._breakers.record_attempt(job.host, ready.source_of(reply.error), reply.status, reply.error)
            result = self._result(ready, (started_ms, sent_ms, held_back_ms), reply)
            held.finish(execution.id)
            self._records.add(result)
        except Exception:
            # Whether it was sent is not known. Its lease ends, and the next owner decides.
            self._unsent.abandon(held, execution.id)
            log.exception("send_failed", execution=execution.id)
        finally:
            # If this is cancelled, the execution stays in `sending`: its batch stays open, and its lease ends by itself.
            ready.forget_request()
            self._slots.free(host, execution.id, body_bytes)
            self.start_waiting(host)
            if probe is not None and await self.lottery.close(probe, reply):
                self.start_waiting()

    async def _may_leave(self, ready: ReadyExecution) -> bool:
        """A new connection is there. If that took long, the job may have been paused, and the lease may have ended."""
        if self._is_stale(ready) and not await self._preparer.confirm(ready):
            return False
        return not self._is_stale(ready) and not self._unsent.drop_if_lapsed(ready.held)

    def _is_stale(self, ready: ReadyExecution) -> bool:
        return self._clock.monotonic() - ready.read_at > STALE_SECONDS

    def _give_back(self, ready: ReadyExecution) -> None:
        """It has its slot, but no lease any more, or nothing says whether its job is paused by now."""
        if self._unsent.drop_if_lapsed(ready.held):
            self._unsent.abandon(ready.held, ready.execution.id)
        else:  # it is claimed again, and its job is read then
            self._drop(ready, "its job was read too long ago", Event.RELEASE, None)

    def _result(self, ready: ReadyExecution, times: tuple[int, int, int], reply: Reply) -> FinishedRequest:
        """`times`: when it was let go and sent, and for how long it was held back before (ms)."""
        execution, job = ready.execution, ready.job
        started_ms, sent_ms, held_back_ms = times
        drift = drift_ms(execution, job, execution.attempts[0].sent_ms if execution.attempts else sent_ms)
        parts = ON_TIME
        if not execution.attempts and drift > SPLIT_MS:
            parts = lateness_parts(
                SendTimes(
                    planned=sent_ms - drift,
                    claimed=ready.held.claimed_ms,
                    started=started_ms,
                    sent=sent_ms,
                    held_back=held_back_ms,
                    late_work=ready.held.batch.late,
                )
            )
        attempt = Attempt(
            number=next_attempt_number(execution.attempts),
            sent_ms=sent_ms,
            node=self._node,
            token=ready.held.batch.token,
            duration_ms=reply.duration_ms,
            status=reply.status,
            error=reply.error,
            detail=reply.detail,
            excerpt=reply.excerpt,
            late=parts,
            claimed_ms=ready.held.claimed_ms or None,
        )
        return FinishedRequest(
            held=ready.held,
            execution=execution,
            job=job,
            attempts=(*execution.attempts, attempt),
            reply=reply,
            drift_ms=drift,
            permit=ready.permit,
        )

    def _drop(
        self, ready: ReadyExecution, reason: str, event: Event, watch: ResultWatch | None, again_ms: int | None = None
    ) -> None:
        """An execution has its slot, and maybe its permit, but must not be sent, or not before `again_ms`."""
        dropped = DroppedExecution(
            held=ready.held,
            execution=ready.execution,
            reason=reason,
            event=event,
            retention_days=ready.job.retention_days,
            watch=watch,
            again_ms=again_ms,
            job=ready.job,
        )
        ready.held.finish(ready.execution.id)
        self.limit_queues.return_permit(ready)
        self._records.add(dropped)
