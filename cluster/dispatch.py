"""Sending: executions of leased batches wait for the cluster clock, pass the last check, and are POSTed.

The dispatcher owns the slots of one node. It never starts an execution whose lease may have ended, and it reads jobs
at most a second before it sends for them. What comes of a request is handed on as a value.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog

from cluster.core.alerts import Watch
from cluster.core.breaker import Gate
from cluster.core.errors import StoreError
from cluster.core.lanes import Lanes
from cluster.core.lifecycle import Event, JobState
from cluster.core.model import Attempt
from cluster.core.outcome import next_number, planned_ms, too_old, used_up
from cluster.core.permits import STALE_MS
from cluster.core.templates import filled
from cluster.core.trace import traceparent
from cluster.outbound.headers import delivery_headers
from cluster.store import definitions
from cluster.tasks import stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.breakers import Breakers
    from cluster.clock import Clock
    from cluster.core.breaker import Breaker
    from cluster.core.model import Batch, Execution, Job
    from cluster.core.trace import Trace
    from cluster.gates import Gates
    from cluster.outbound.sender import Reply, Sender
    from cluster.store.client import Database
    from cluster.store.definitions import Read

log = structlog.get_logger()

STALE_SECONDS = 1.0
"""A job read longer ago than this is read again before its execution is sent."""
UNPARKED = 4
"""So many may go for one that ended. Their jobs may have to be read again first, so that nobody knows yet who will."""
LOOK_SECONDS = 0.05
"""How often everything that waits for its host is looked at; the host of a request that ended is looked at at once."""
ASKED = 256
"""So many permits are asked for at once."""
REREAD_MS = 150
REREAD = 256
ASK_SECONDS = 0.1
"""How often a limit on what runs at once is asked for again; what ends on this node is known at once."""
STUCK_SECONDS = 1.0
"""No slot free and none freed for so long: what waits here is better sent by another node."""
LEAD_SECONDS = 0.05
LEAD_PER_EXECUTION = 0.0004
LEAD_MOST = 0.9


CERTAINLY = Watch(marks=True)
"""What failed before its job could be read is marked for alerts; whoever decides on them reads the job again."""


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
    watch: Watch | None = CERTAINLY


@dataclass(slots=True)
class _Ready:
    held: Held
    execution: Execution
    job: Job
    request: Any
    read_at: float
    parked_at: float = 0.0
    permit_ms: int | None = None
    """The instant for which its limit lets it through; None: not asked yet, or in vain."""


@dataclass(slots=True)
class _Line:
    """Executions that wait for permits of one limit; one task asks for them. `wake` is set when some came back."""

    waiting: deque[_Ready] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    again_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """Executions of one batch that may not be sent now; `until_ms` if it is known until when."""

    held: Held
    executions: tuple[Execution, ...]
    until_ms: int | None
    host: str | None = None
    """The host they wait for; None: they wait for their limit."""


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


@dataclass(frozen=True, slots=True)
class Doors:
    """What the dispatcher asks and tells."""

    db: Database
    clock: Clock
    sender: Sender
    breakers: Breakers
    gates: Gates


class Dispatcher:
    """The slots of one node."""

    def __init__(self, doors: Doors, node: str, slots: int, hooks: Hooks) -> None:
        self._db = doors.db
        self._clock = doors.clock
        self._sender = doors.sender
        self._breakers = doors.breakers
        self._node = node
        self._slots = slots
        self._hooks = hooks
        self._heap: list[tuple[int, int, _Ready]] = []
        self._parked: dict[str, deque[_Ready]] = {}
        self._order = count()
        self._lanes = Lanes(slots)
        self._gates = doors.gates
        self._lines: dict[str, _Line] = {}
        self._returning: dict[str, asyncio.Task[None]] = {}
        """Permits on their way back, by execution."""
        self._looked_at = 0.0
        self._stale: list[_Ready] = []
        self._rereading = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._freed_at = 0.0
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
        self._spawn(self._prepare(held))

    def hosts_held(self) -> tuple[str, ...]:
        """Hosts for which nothing more should be claimed here now."""
        return tuple({*self._lanes.full(self._clock.monotonic()), *self._breakers.held(), *self._parked})

    def hosts_slow(self) -> list[str]:
        """Hosts that use all they may and are slow."""
        return self._lanes.slow(self._clock.monotonic())

    def withdraw(self, held: Held, only: Iterable[Execution] | None = None) -> list[Execution]:
        """Take back what has not been sent of a batch; it will not be sent by this node under this lease."""
        wanted = list(held.waiting.values()) if only is None else only
        taken = [e for e in wanted if held.waiting.pop(e.id, None) is not None]
        self.waiting -= len(taken)
        return taken

    def parked(self, seconds: float, limited_seconds: float) -> list[Parked]:
        """What waits because a breaker is open, or for so long already for its slow host, or its limit."""
        now = self._clock.monotonic()
        since = now - seconds
        found: list[Parked] = []
        for host, queue in self._parked.items():
            until = self._breakers.until_ms(host)
            groups: dict[Held, list[Execution]] = {}
            for r in queue:
                if r.execution.id in r.held.waiting and not r.held.lost and (until is not None or r.parked_at <= since):
                    groups.setdefault(r.held, []).append(r.execution)
            found += [Parked(held, tuple(members), until, host) for held, members in groups.items()]
        return found + self._behind_gates(now - limited_seconds)

    def _behind_gates(self, since: float) -> list[Parked]:
        found: list[Parked] = []
        for line in self._lines.values():
            groups: dict[Held, list[Execution]] = {}
            for r in line.waiting:
                if r.execution.id in r.held.waiting and not r.held.lost and r.parked_at <= since:
                    groups.setdefault(r.held, []).append(r.execution)
            found += [Parked(held, tuple(members), line.again_ms) for held, members in groups.items()]
        return found

    def gates_shut(self) -> tuple[str, ...]:
        """Limits that something waits for here already: nothing more should be claimed for them."""
        return tuple(self._lines)

    def stuck(self) -> bool:
        """Whether every slot hangs: nobody knows when one comes free."""
        return self.in_flight >= self._slots and self._clock.monotonic() - self._freed_at > STUCK_SECONDS

    def overdue(self) -> list[Held]:
        """Batches of which something is due and waits for a slot."""
        now_ms = self._clock.now_ms()
        return list({r.held: None for at, _, r in self._heap if at <= now_ms and r.execution.id in r.held.waiting})

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

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("dispatch_failed", exc_info=exc)

    async def _prepare(self, held: Held) -> None:
        """Shortly before the send time, read the jobs, decide, and make the requests ready."""
        lead = min(LEAD_MOST, LEAD_SECONDS + LEAD_PER_EXECUTION * self.waiting)
        delay = self._clock.until(held.batch.send_ms) - lead
        if delay > 0:
            await asyncio.sleep(delay)
        while not self.stopped:
            wanted = list(held.waiting.values())
            if not wanted or self._gone(held):
                return
            read_at = self._clock.monotonic()
            try:
                read = await definitions.by_id(self._db, {e.job_id for e in wanted})
            except Exception as exc:  # whatever it was, the batch is still ours: try again until its lease ends
                log.warning("jobs_unread", batch=held.batch.id, error=str(exc))
                await asyncio.sleep(0.25)
                continue
            self._sort_out(held, wanted, (read, read_at), {})
            return

    def _sort_out(
        self, held: Held, wanted: list[Execution], known: tuple[Read, float], permits: dict[str, int | None]
    ) -> None:
        for execution in wanted:
            if execution.id not in held.waiting:
                continue
            try:
                self._decide(held, execution, known, permits.get(execution.id))
            except Exception as exc:  # one that cannot be made ready must not keep its batch waiting for ever
                log.exception("execution_unsendable", execution=execution.id)
                why = f"its request could not be made: {type(exc).__name__}: {str(exc)[:200]}"
                self._drop(Dropped(held, execution, why, Event.EXHAUST))
        self._pump()

    def _decide(self, held: Held, execution: Execution, known: tuple[Read, float], permit_ms: int | None) -> None:
        """Whether an execution goes out for its job as it is now, and its request if it does."""
        read, read_at = known
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
        over = used_up(execution, job) or too_old(execution, job, self._clock.now_ms())
        if over is not None:
            self._drop(Dropped(held, execution, over, Event.EXHAUST, job.retention_days, job.watch))
            return
        number = next_number(execution.attempts)
        parent = traceparent(execution.id, number, held.batch.token, self.trace)
        if job.target.templated:
            job = replace(job, target=filled(job.target, execution, number))
        headers = delivery_headers(execution, job, number, held.batch.token, parent, self._clock.now_ms())
        request = self._sender.prepare(job.target, headers)
        self._line_up(_Ready(held, execution, job, request, read_at, permit_ms=permit_ms))

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
        host = ready.job.host
        gate = self._breakers.gate(host)
        if gate is Gate.HOLD or not self._lanes.room(host, now):
            self._park(ready)
        elif now - ready.read_at > STALE_SECONDS:
            # Only for what has room, and together: a read for each of hundreds would use up every connection.
            self._stale.append(ready)
            if not self._rereading:
                self._rereading = True
                self._spawn(self._reread())
        elif ready.job.gate is not None and not self._permitted(ready):
            return
        elif gate is Gate.PROBE:
            self._spawn(self._probe(ready))
        else:
            self._launch(ready, None)

    async def _reread(self) -> None:
        """Read the jobs of what is to be sent and has waited for more than a moment; many in one read."""
        try:
            while self._stale and not self.stopped:
                taken, self._stale = self._stale[:REREAD], self._stale[REREAD:]
                taken = [r for r in taken if r.execution.id in r.held.waiting and not self._gone(r.held)]
                if not taken:
                    continue
                read_at = self._clock.monotonic()
                try:
                    read = await definitions.by_id(self._db, {r.execution.job_id for r in taken})
                except (
                    Exception
                ) as exc:  # whatever it was, the batches are still ours: try again until their leases end
                    log.warning("jobs_unread", batch=taken[0].held.batch.id, error=str(exc))
                    self._stale = taken + self._stale
                    await asyncio.sleep(0.25)
                    continue
                for r in taken:
                    self._sort_out(r.held, [r.execution], (read, read_at), {r.execution.id: r.permit_ms})
        finally:
            self._rereading = False

    def _permitted(self, ready: _Ready) -> bool:
        """Whether its limit lets it through now; if not, it waits for a permit or for the instant of the one it has."""
        now_ms = self._clock.now_ms()
        if ready.permit_ms is not None:
            if now_ms < ready.permit_ms:
                heapq.heappush(self._heap, (ready.permit_ms, next(self._order), ready))
                self._wake_at(ready.permit_ms)
                return False
            if now_ms <= ready.permit_ms + STALE_MS:
                return True
            ready.permit_ms = None
        name = str(ready.job.gate)
        ready.parked_at = self._clock.monotonic()
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
            self._spawn(self._ask(name, line))
        line.waiting.append(ready)
        return False

    async def _ask(self, name: str, line: _Line) -> None:
        """Ask for permits until nobody waits for them here."""
        try:
            while not self.stopped:
                asked = [r for r in line.waiting if r.execution.id in r.held.waiting and not r.held.lost]
                line.waiting.clear()
                line.wake.clear()
                if not asked:
                    return
                again_ms, unserved = await self._ask_for(name, asked[:ASKED])
                # Whoever came meanwhile stands behind those who asked before.
                line.waiting.extendleft(reversed([*unserved, *asked[ASKED:]]))
                line.again_ms = again_ms
                self._pump()
                if unserved:
                    pause = ASK_SECONDS if again_ms is None else max(0.0, self._clock.until(again_ms))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(line.wake.wait(), min(pause, 1.0))
        finally:
            self._lines.pop(name, None)
            for r in line.waiting:  # only if something went wrong: they begin anew
                self._line_up(r)

    async def _ask_for(self, name: str, asked: list[_Ready]) -> tuple[int | None, list[_Ready]]:
        """Permits for some. Returns when to ask again, and who got none."""
        try:
            limits = await self._gates.limits(asked[0].job)
            if not limits.any:
                at, again_ms = dict.fromkeys((r.execution.id for r in asked), self._clock.now_ms()), None
            else:
                # A permit that is being given back must not be found on the list and used, and then be taken off it.
                back = [t for r in asked if (t := self._returning.get(r.execution.id)) is not None]
                if back:
                    await asyncio.wait(back)
                granted = await self._gates.ask(name, limits, [r.execution.id for r in asked])
                at, again_ms = granted.at_ms, granted.again_ms
        except StoreError as exc:
            log.warning("permits_disturbed", gate=name, error=str(exc))
            return self._clock.now_ms() + 500, asked
        for r in asked:
            instant = at.get(r.execution.id)
            if instant is not None:
                r.permit_ms = instant
                # Early enough to read its job again, if it will have been read too long ago by then.
                heapq.heappush(self._heap, (instant - REREAD_MS, next(self._order), r))
        return again_ms, [r for r in asked if r.execution.id not in at]

    def permits_back(self, gates: Iterable[str]) -> None:
        """Something that ran under these limits has ended: whoever waits may ask at once."""
        for name in gates:
            line = self._lines.get(name)
            if line is not None:
                line.wake.set()

    def _park(self, ready: _Ready) -> None:
        ready.parked_at = self._clock.monotonic()
        if ready.permit_ms is not None and ready.job.gate is not None:
            # Others may use it meanwhile. If this is not done, it counts as soon as the lease is given back.
            ready.permit_ms = None
            name = ready.execution.id
            self._returning[name] = task = self._spawn(self._gates.give_back({ready.job.gate: [name]}))
            task.add_done_callback(lambda _: self._returning.pop(name, None))
        self._parked.setdefault(ready.job.host, deque()).append(ready)

    def _launch(self, ready: _Ready, probe: Breaker | None) -> None:
        held, execution = ready.held, ready.execution
        del held.waiting[execution.id]
        held.sending.add(execution.id)
        self.waiting -= 1
        self.in_flight += 1
        self._lanes.begin(ready.job.host, execution.id, self._clock.monotonic())
        self._spawn(self._send(ready, probe))

    async def _probe(self, ready: _Ready) -> None:
        """One request finds out whether the host is back, if this node wins it; whatever else there is waits."""
        won = None
        try:
            won = await self._breakers.probe(ready.job.host, ready.job.target.timeout_seconds)
        except StoreError as exc:
            log.warning("probe_disturbed", host=ready.job.host, error=str(exc))
        if ready.execution.id not in ready.held.waiting or self.stopped or self._gone(ready.held):
            if won is not None:
                await self._breakers.abandoned(won)
        elif won is None:
            self._park(ready)
        else:
            self._launch(ready, won)

    async def _send(self, ready: _Ready, probe: Breaker | None) -> None:
        held, execution, job = ready.held, ready.execution, ready.job
        reply = None
        try:
            if job.overlap_skip and not await self._hooks.may_overlap(execution):
                why = "the run before it had not ended"
                self._drop_launched(ready, Dropped(held, execution, why, Event.SKIP, job.retention_days))
                return
            # Nothing is awaited between this and the request: to get here may have taken longer than the lease.
            if self._gone(held):
                return
            sent_ms = self._clock.now_ms()
            old = too_old(execution, job, sent_ms)
            if old is not None:
                self._drop_launched(ready, Dropped(held, execution, old, Event.EXHAUST, job.retention_days, job.watch))
                return
            reply = await self._sender.send(ready.request)
            self._breakers.note(job.host, reply.status, reply.error)
            attempt = Attempt(
                next_number(execution.attempts),
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
            self._freed_at = self._clock.monotonic()
            self._lanes.end(job.host, execution.id, self._clock.monotonic())
            self._unpark(job.host)
            self._pump()
            if probe is not None:
                await self._after_probe(probe, reply)

    def _drop_launched(self, ready: _Ready, dropped: Dropped) -> None:
        """It has its slot, and maybe its permit, but must not be sent."""
        ready.held.sending.discard(ready.execution.id)
        ready.held.unrecorded += 1
        if ready.job.gate is not None:
            self._spawn(self._gates.give_back({ready.job.gate: [ready.execution.id]}))
        self._hooks.dropped(dropped)

    async def _after_probe(self, probe: Breaker, reply: Reply | None) -> None:
        try:
            if reply is None:
                await self._breakers.abandoned(probe)
            elif await self._breakers.probed(probe, reply.status, reply.error):
                self.reconsider()
        except StoreError as exc:  # it stays half-open until its time is over; then another probe is sent
            log.warning("probe_disturbed", host=probe.host, error=str(exc))

    def reconsider(self) -> None:
        """A breaker has changed: what waits may go."""
        self._unpark()
        self._pump()

    def _unpark(self, host: str | None = None) -> None:
        """Slots came free: what waits longest for this host may go, and now and then what waits for any."""
        if not self._parked or self.stopped:
            return
        now = self._clock.monotonic()
        if host is None or now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            for name in list(self._parked):
                self._unpark_one(name, now)
        else:
            self._unpark_one(host, now)

    def _unpark_one(self, host: str, now: float) -> None:
        queue = self._parked.pop(host, None)
        if queue is None:
            return
        started = 0
        while queue and started < UNPARKED:
            if queue[0].execution.id not in queue[0].held.waiting:
                queue.popleft()
                continue
            started += 1
            gate = self._breakers.gate(host)
            if gate is Gate.HOLD or self.in_flight >= self._slots or not self._lanes.room(host, now):
                break
            self._start(queue.popleft())
            if gate is Gate.PROBE:
                break
        if queue:  # what could not go meanwhile stands behind it
            queue.extend(self._parked.get(host, ()))
            self._parked[host] = queue
