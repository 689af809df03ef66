"""Three scenarios, each of the real steps: elections, scheduling, and the life of a batch.

The invariants are those of `cluster/README.md`, as far as each scenario can see them.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import (
    FIRST_CLAIM,
    FIRST_TOKEN,
    Attempt,
    Batch,
    Ending,
    Execution,
    Job,
    JobSchedule,
    Rescheduled,
    RetryPolicy,
    Target,
    Term,
)
from cluster.core.execution.outcome import AttemptResult, outcome
from cluster.core.ids import execution_id
from cluster.core.lifecycle import JobState, State
from cluster.core.schedule.schedule import parse_schedule
from cluster.core.timings import Timings
from cluster.leader.elector import Elector
from cluster.leader.materialise import Materialiser
from cluster.store import batches
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed, repair_batches
from cluster.store.schedules import ScheduleRow
from cluster.worker.claim import ClaimedBatch, Claimer
from cluster.worker.record import Recorder
from tests.simulation.crowding import AnyCrowds
from tests.simulation.leases import Leases
from tests.simulation.model import turn
from tests.simulation.world import START_MS, Broken, World
from tests.support.engine import leader_context

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMINGS = Timings()
STEP_SECONDS = 1.5


def _any(value: Any) -> Any:
    """Twins replace the store and the clock; the steps see no difference."""
    return value


class Election:
    """Three candidates. At most one trusts its term at any time; a term has one holder; terms only grow."""

    def __init__(self, seed: int, trouble: float = 0.06) -> None:
        self.world = World(seed, trouble)
        self._electors: dict[str, Elector] = {}
        self._holders: dict[int, str | None] = {}
        self._highest = 0
        self._writes = -1
        self._jump_at = self.world.random.random() * 25

    def run(self) -> World:
        for n in range(3):
            self._begin(f"n{n}")
        self.world.run(18.0, self._check, self._begin)
        return self.world

    def _begin(self, name: str) -> None:
        w = self.world
        self._electors[name] = elector = Elector(_any(w.store), _any(w.clock()), TIMINGS, f"{name}@{w.steps}", name)
        w.spawn(name, self._stand(elector))

    async def _stand(self, elector: Elector) -> None:
        while True:
            await elector.step()
            await turn(STEP_SECONDS)

    def _check(self) -> None:
        w, lease = self.world, self.world.store.lease
        if w.now > self._jump_at:
            w.skew_ms = 300_000
        acted = self._electors.get(w.acting)
        if acted is not None and acted.term is not None:  # trust begins with a step of one's own
            trusting = [n for n, e in self._electors.items() if e.term is not None]
            if len(trusting) > 1:
                raise Broken(f"{trusting} lead at once")
        if w.store.writes == self._writes:
            return  # the lease has not changed
        self._writes = w.store.writes
        if lease.term < self._highest:
            raise Broken("the term went back")
        self._highest = lease.term
        if lease.holder is not None and self._holders.setdefault(lease.term, lease.holder) != lease.holder:
            raise Broken(f"term {lease.term} has two holders")


KEY = parse_schedule("@every 10s").key
JOBS = tuple(
    JobSchedule(f"j{n}", KEY, "v1", START_MS + n * 10_000, None, None, lane=0, spread_seconds=0) for n in range(2)
)


class WritingDown:
    """Leaders one after the other, the old one not knowing it yet: every due occurrence is there once, none is lost."""

    def __init__(self, seed: int, trouble: float = 0.06, materialiser: type[Materialiser] = Materialiser) -> None:
        self.world = World(seed, trouble)
        self._materialiser = materialiser
        self._ids = count()
        self._terms = count(1)
        self._writes = -1
        self._first = parse_schedule("@every 10s").next_after(START_MS - 1) or 0
        self.world.store.rows[KEY] = ScheduleRow(KEY, self._first, 0)
        self.world.store.jobs.extend(JOBS)

    def run(self) -> World:
        self._begin("")
        self.world.spawn("second", self._later(self.world.random.random() * 8))
        self.world.run(24.0, self._check, self._begin)
        self._repaired_and_complete()
        return self.world

    def _begin(self, _: str) -> None:
        term = Term(next(self._terms), "x", 0.0)
        if term.number < 6:
            self.world.spawn(f"t{term.number}", self._lead(term))

    async def _later(self, seconds: float) -> None:
        await turn(seconds)
        self._begin("")

    async def _lead(self, term: Term) -> None:
        """Trusts its term for ever: a leader that was frozen just after it asked is no better."""
        w = self.world
        context = leader_context(
            _any(w.store),
            _any(w.clock()),
            lambda: term,
            TIMINGS,
            new_batch_id=lambda: f"b{next(self._ids)}",
            retention_days=1.0,
            crowds=AnyCrowds(w.seed),
        )
        step = self._materialiser(context).step
        for _ in range(3):
            await step(w.clock().now_ms(), 2)
            await turn(6.0)

    def _check(self) -> None:
        store = self.world.store
        if store.writes == self._writes:
            return  # no document has changed
        self._writes = store.writes
        there = {(e.job_id, e.due_ms) for e in store.executions.values()}
        if len(there) < len(store.executions):
            raise Broken("one occurrence is owed twice")
        for due in range(self._first, store.rows[KEY].next_ms, 10_000):
            for job in JOBS:
                later = any(b.from_ms <= due < b.to_ms for b in store.backfills.values())
                if job.owes(due) and (job.id, due) not in there and not later:
                    raise Broken(f"{job.id} at {due} is lost: its row has moved on")

    def _repaired_and_complete(self) -> None:
        """The sweep, which runs once a minute: after it each execution is listed by the batch that it names."""
        w = self.world
        w.trouble = 0.0
        while w.store.postponed:
            w.store.postponed.pop()()
        w.spawn("sweep", repair_batches(_any(w.store), list(w.store.executions.values())))
        w.run(w.now + 100, self._check)
        for e in w.store.executions.values():
            if e.batch not in w.store.batches or e.id not in w.store.batches[e.batch].ids:
                raise Broken(f"{e.id} is owed by no batch")


JOB = Job("j", JobState.ACTIVE, "v1", 0, 0, Target("http://t/"), RetryPolicy(max_attempts=2, jitter=0.0))
RECORD_MS = 4000


class BatchLife:
    """Two writers of one occurrence, two nodes: claim, send, record, retry. See the checks for what must hold."""

    def __init__(self, seed: int, trouble: float = 0.06, claimer: type[Claimer] = Claimer) -> None:
        self.world = World(seed, trouble)
        self._claimer = claimer
        self._ids = count()
        self._holds: dict[str, tuple[Any, float, str]] = {}
        """By node: its clock, until when it trusts its lease, and the batch."""
        self._owners: dict[str, str | None] = {}
        self._first_owners: dict[str, str | None] = {}
        """Who claimed each batch first."""
        self._by_hand = seed % 4 == 0
        self._heard: set[str] = set()
        self.sent: list[tuple[str, int]] = []
        self._before: dict[str, Execution] = {}
        self._succeeded: set[str] = set()
        self._seen = (-1, 0)
        self._leases = Leases(self.world.store, int(TIMINGS.batch_lease * 1000))

    def run(self) -> World:
        w = self.world
        for name in ("first", "second")[: 2 if w.trouble else 1]:
            w.spawn(name, self._write(w.random.random() * 3))
        for n in range(2):
            self._begin(f"n{n}")
        w.run(30.0, self._check, self._begin)
        self._repaired_and_complete()
        return w

    def _begin(self, name: str) -> None:
        if name.startswith("n"):
            self._holds.pop(name, None)
            if name in self._owners:
                self._leases.died(str(self._owners[name]))
            owner = self._owners[name] = f"{name}@{self.world.steps}"
            self.world.spawn(name, self._node(name, owner))

    async def _write(self, after: float) -> None:
        await turn(after)
        name = f"w{next(self._ids)}"
        ids = [execution_id("j", START_MS + 1000 * n) for n in range(2)]
        # As a schedule owes them, and as runs by hand are owed: those are stamped at the first claim too.
        owner, token = (None, 0) if self._by_hand else (FIRST_CLAIM, FIRST_TOKEN)
        planned = [Execution(i, "j", START_MS, START_MS, "v1", name, 0, owner=owner, token=token) for i in ids]
        batch = Batch(name, tuple(ids), 0, 0, START_MS, START_MS - 1000)
        await insert_owed(_any(self.world.store), planned, [batch], lambda: f"w{next(self._ids)}")

    async def _node(self, name: str, owner: str) -> None:
        w = self.world
        clock = _any(w.clock())
        claimer = self._claimer(_any(w.store), clock, TIMINGS, owner)
        recorder = Recorder(_any(w.store), 1.0)
        while True:
            final = self._final_before(name)
            try:
                claimed = await claimer.step(self._claims())
            except StoreUnavailable:
                claimed = None
            if claimed is None:
                await turn(2.0)
                continue
            self._holds[name] = (clock, claimed.valid_until, claimed.batch.id)
            results = await self._send(name, owner, claimed, final)
            await self._record(recorder, claimed, results)
            self._holds.pop(name, None)

    def _counted_as(self, e: Execution) -> str:
        """Whose attempts are counted together."""
        return e.id

    def _claims(self) -> ClaimFilter:
        """What a node looks for."""
        return ClaimFilter()

    def _final_before(self, _node: str) -> set[str]:
        """What this node must not send: it is final before the claim."""
        return {i for i, f in self.world.store.history.items() if f.is_sent}

    async def _send(self, name: str, owner: str, claimed: ClaimedBatch, final: set[str]) -> list[Ending | Rescheduled]:
        """The requests that left before the lease ended, and what came of each."""
        w, clock = self.world, self._holds[name][0]
        results: list[Ending | Rescheduled] = []
        for e in claimed.executions:
            if clock.monotonic() >= self._holds[name][1]:
                break
            self._may_send(name, e, final)
            number, at = len(e.attempts) + 1, clock.now_ms()
            self._leases.sent(owner, e.batch, (self._counted_as(e), number, e.token))
            self.sent.append((e.id, number))
            await turn(w.random.random() * 3)
            status = w.random.choice((200, 200, 500, 404))
            if status == 200:
                self._heard.add(e.id)
            made = Attempt(number, at, owner, e.token, 1.0, status)
            results.append(outcome(e, JOB, AttemptResult((*e.attempts, made), clock.now_ms(), 0, 0.5))[0])
            if w.random.random() < 0.3 and not await self._renew(name, owner, claimed.batch):
                break
        return results

    async def _renew(self, name: str, owner: str, batch: Batch) -> bool:
        clock = self._holds[name][0]
        started = clock.monotonic()
        try:
            lost = await batches.renew(_any(self.world.store), owner, [(batch.id, batch.token)], TIMINGS.batch_lease)
        except StoreUnavailable:
            return True
        if not lost:
            self._holds[name] = (clock, started + TIMINGS.batch_lease - TIMINGS.margin, batch.id)
        return not lost

    def _may_send(self, name: str, e: Execution, final: set[str]) -> None:
        batch = self._holds[name][2]
        for other, (theirs, until, held) in self._holds.items():
            if other != name and held == batch and theirs.monotonic() < until:
                raise Broken(f"{name} and {other} trust their lease of one batch")
        if e.id in final:
            raise Broken(f"{e.id} is sent again although it was final before it was claimed")

    async def _record(self, recorder: Recorder, claimed: ClaimedBatch, results: Sequence[Ending | Rescheduled]) -> None:
        """Late results too: it is the fences that must hold, not the node's good manners."""
        await recorder.record_final([r for r in results if isinstance(r, Ending)])
        await recorder.reschedule([r for r in results if isinstance(r, Rescheduled)])
        if len(results) == len(claimed.executions):
            await recorder.delete_finished([claimed.batch])

    def _check(self) -> None:
        store = self.world.store
        if (store.writes, len(self._leases.deaths)) == self._seen:
            return  # no document has changed, and no node has died
        self._seen = (store.writes, len(self._leases.deaths))
        self._first_owners |= {b.id: b.owner for b in store.batches.values() if b.token == FIRST_TOKEN and b.owner}
        if store.executions != self._before:
            for i, e in self._before.items():
                if i not in store.executions and i not in store.history:
                    raise Broken(f"{i} is neither owed nor final")
                owner = self._first_owners.get(e.batch) if e.owner == FIRST_CLAIM else e.owner
                if i not in store.executions and self._owners.get(self.world.acting, owner) != owner:
                    raise Broken(f"{i} was ended by a node that did not hold it")
                now = store.executions.get(i)
                if now is not None and now.batch == e.batch and now.owner is not None and now.token < e.token:
                    raise Broken(f"{i} was taken back by a node that had lost it")
            self._before = dict(store.executions)
        for i, f in store.history.items():
            if f.state is State.SUCCEEDED:
                if i not in self._heard:
                    raise Broken(f"{i} succeeded although no success was heard")
                self._succeeded.add(i)
            elif i in self._succeeded:
                raise Broken(f"the success of {i} was undone")
        self._leases.after(late=not self.world.acting)

    def _repaired_and_complete(self) -> None:
        """No more trouble, and a sweep: everything ends within the leases, and nothing is left behind."""
        w = self.world
        w.trouble = 0.0
        w.acting = ""  # a postponed write is that of the holder at the time when it was sent
        while w.store.postponed:
            w.store.postponed.pop()()
            w.store.writes += 1
            self._check()
        w.spawn("sweep", repair_batches(_any(w.store), list(w.store.executions.values())))
        for n in range(2):
            self._begin(f"n{n}")
        w.run(w.now + 60, self._check, self._begin, lambda: not self._left_behind())
        if left := self._left_behind():
            raise Broken(f"left behind: {left}")

    def _left_behind(self) -> list[str]:
        return [*self.world.store.executions, *self.world.store.batches]
