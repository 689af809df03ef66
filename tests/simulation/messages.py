"""Messages: accepted by nodes that die, repeated by their callers, moved by leaders that are stale, cancelled and claimed at
the same time. What a worker does is `BatchLife`'s short driver, with the real claim, record and reasons to cancel.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from cluster.core.errors import Conflict, HoraeError, NotFound, StoreUnavailable
from cluster.core.execution.model import MESSAGE_VERSION, Attempt, Ending, Job, Rescheduled, RetryPolicy, Target, Term
from cluster.core.execution.outcome import AttemptResult, cancellation_reason, outcome
from cluster.core.ids import execution_id, message_id
from cluster.core.job.definition import Definition
from cluster.core.job.message import NewMessage
from cluster.core.lifecycle import JobState, State
from cluster.leader.due_messages import MessageMover
from cluster.store.enqueue import repair_batches
from cluster.usecases.messages import Accepted, accept, cancel
from tests.simulation.model import turn
from tests.simulation.scenarios import TIMINGS, BatchLife
from tests.simulation.world import START_MS, Broken, World
from tests.support.engine import leader_context

if TYPE_CHECKING:
    from cluster.worker.claim import ClaimedBatch

DUES = (0, 0, 20_000, 20_000)
"""When the messages are due, ms after the beginning: two at once, two beyond the look-ahead."""
LOOKAHEAD_MS = 15_000
REQUEST = Job("m", JobState.ACTIVE, MESSAGE_VERSION, 0, 0, Target("http://t/"), RetryPolicy(max_attempts=2, jitter=0.0))


def _any(value: Any) -> Any:
    return value


class Messages(BatchLife):
    """Four messages with a `dedupId` each, two cancellations, two leaders, two nodes."""

    def __init__(self, seed: int, trouble: float = 0.06, mover: type[MessageMover] = MessageMover) -> None:
        super().__init__(seed, trouble)
        self._mover = mover
        self._terms = count(1)
        self._tries = count()
        self.accepted: dict[int, str] = {}
        """The execution id that was answered, by message."""
        self.cancelled: set[str] = set()
        """Executions of messages whose cancellation was answered with 204."""

    def run(self) -> World:
        w = self.world
        for n in range(len(DUES)):
            self._begin(f"c{n}")
        for n in (1, 3):
            self._begin(f"x{n}")
        for n in range(2):
            self._begin(f"n{n}")
        self._begin("l0")
        w.spawn("l1", self._lead(w.random.random() * 8))
        w.run(40.0, self._check, self._begin)
        self._repaired_and_complete()
        return w

    def _begin(self, name: str) -> None:
        if name.startswith("c"):
            self.world.spawn(name, self._post(int(name[1:])))
        elif name.startswith("x"):
            self.world.spawn(name, self._cancel(int(name[1:])))
        elif name.startswith("l"):
            self.world.spawn(name, self._lead(0.0))
        elif name.startswith("n"):
            super()._begin(name)

    # -- callers ---------------------------------------------------------------------------------------------------

    async def _post(self, n: int) -> None:
        """A caller repeats its request, at any node, until it is answered; and now and then once more."""
        w = self.world
        await turn(w.random.random() * 6)
        due_ms = START_MS + 7000 + DUES[n]
        definition = Definition(schedule="", url="http://t/", lane=0)
        while True:
            now_ms = w.clock().now_ms()
            wanted = NewMessage(definition, due_ms, now_ms, dedup_id=f"d{n}", digest=str(n))
            own_id = execution_id(message_id(now_ms, next(self._tries)), due_ms)
            try:
                (result,) = await accept(_any(w.store), [(wanted, own_id)], now_ms, LOOKAHEAD_MS)
            except StoreUnavailable:
                await turn(w.random.random() * 2)
                continue
            if not isinstance(result, Accepted):
                raise Broken(f"message {n} was refused")
            if self.accepted.setdefault(n, result.execution_id) != result.execution_id:
                raise Broken(f"one dedupId has two messages: {self.accepted[n]} and {result.execution_id}")
            self._check_claimable(result.execution_id)
            if w.random.random() < 0.7:
                return
            await turn(w.random.random() * 10)

    def _check_claimable(self, name: str) -> None:
        """What was answered needs no sweep to be claimed, also where a dead node had begun it. What waits is moved again."""
        store = self.world.store
        e = store.executions.get(name)
        if e is None or e.cancelled or e.token or name in store.waiting:
            return
        if e.batch not in store.batches or name not in store.batches[e.batch].ids:
            raise Broken(f"{name} was accepted and is in no batch")

    async def _cancel(self, n: int) -> None:
        w = self.world
        await turn(w.random.random() * 24)
        while n not in self.accepted:
            if w.now > 35.0:
                return
            await turn(1.0)
        name = self.accepted[n]
        while True:
            try:
                await cancel(_any(w.store), name.partition(":")[0], w.clock().now_ms(), 1.0)
            except (Conflict, NotFound) as exc:
                if isinstance(exc, NotFound):
                    raise Broken(f"{name} was accepted and is not found") from exc
                return
            except StoreUnavailable:
                await turn(w.random.random() * 2)
                continue
            if any(sent == name for sent, _ in self.sent):
                raise Broken(f"{name} was sent, and its cancellation was answered")
            self.cancelled.add(name)
            return

    # -- leaders and nodes -----------------------------------------------------------------------------------------

    async def _lead(self, after: float) -> None:
        """Trusts its term for ever: a leader that was frozen just after it asked is no better."""
        await turn(after)
        w = self.world
        term = Term(next(self._terms), "x", 0.0)
        mover = self._mover(
            leader_context(
                _any(w.store), _any(w.clock()), lambda: term, TIMINGS, new_batch_id=lambda: f"b{next(self._ids)}"
            )
        )
        while True:
            try:
                await mover.step(w.clock().now_ms(), 2)
            except HoraeError:
                await turn(0.5)
            await turn(2.0)

    async def _send(self, name: str, owner: str, claimed: ClaimedBatch, final: set[str]) -> list[Ending | Rescheduled]:
        w, clock = self.world, self._holds[name][0]
        results: list[Ending | Rescheduled] = []
        for e in claimed.executions:
            if clock.monotonic() >= self._holds[name][1]:
                break
            why = cancellation_reason(e, REQUEST)
            if why is not None:
                results.append(Ending(e, State.CANCELLED, clock.now_ms(), e.attempts, why))
                continue
            self._may_send(name, e, final)
            if e.id in self.cancelled:
                raise Broken(f"{e.id} is sent, and its cancellation was answered before")
            number, at = len(e.attempts) + 1, clock.now_ms()
            self._leases.sent(owner, e.batch, (e.id, number, e.token))
            self.sent.append((e.id, number))
            await turn(w.random.random() * 3)
            status = w.random.choice((200, 200, 500, 404))
            if status == 200:
                self._heard.add(e.id)
            made = Attempt(number, at, owner, e.token, 1.0, status)
            results.append(outcome(e, REQUEST, AttemptResult((*e.attempts, made), clock.now_ms(), 0, 0.5))[0])
        return results

    # -- what must hold --------------------------------------------------------------------------------------------

    def _check(self) -> None:
        store = self.world.store
        for n, name in self.accepted.items():
            if name not in store.waiting and name not in store.executions and name not in store.history:
                raise Broken(f"message {n} was accepted and is nowhere: {name}")
        super()._check()

    def _repaired_and_complete(self) -> None:
        """No more trouble: a leader moves what waits, the sweep repairs, and everything ends."""
        w = self.world
        w.trouble = 0.0
        w.acting = ""
        while w.store.postponed:
            w.store.postponed.pop()()
            w.store.writes += 1
            self._check()
        w.spawn("sweep", self._sweep())
        w.spawn("l9", self._lead(0.0))
        for n in range(2):
            self._begin(f"n{n}")
        w.run(w.now + 120, self._check, self._begin, self._over)
        if not self._over():
            raise Broken(f"left behind: {[*w.store.waiting, *w.store.executions, *w.store.batches]}")
        for name in self.accepted.values():
            state = w.store.history[name].state
            if name in self.cancelled and (state is not State.CANCELLED or w.store.history[name].attempts):
                raise Broken(f"{name} was cancelled, and it is {state}")
            if name not in self.cancelled and state is State.CANCELLED and self._certain(name):
                raise Broken(f"{name} is cancelled, and nobody asked for it")

    def _certain(self, name: str) -> bool:
        """Whether nobody has asked for the cancellation of it, answered or not."""
        return self.accepted.get(1) != name and self.accepted.get(3) != name

    async def _sweep(self) -> None:
        for _ in range(4):
            await repair_batches(_any(self.world.store), list(self.world.store.executions.values()))
            await turn(12.0)

    def _over(self) -> bool:
        store = self.world.store
        return not (store.waiting or store.executions or store.batches)
