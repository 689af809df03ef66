"""Whole workers (`cluster.worker` and all below it, as it is) on virtual machines.

They share the store of `model.py` and send to a target that answers at random, late or not at all. Nodes freeze, die
and are stopped with SIGTERM between any two callbacks. Of the product nothing is replaced here but the store's
functions, the breakers (none ever opens) and the transport.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from cluster.core.execution.model import RetryPolicy
from cluster.core.execution.planning import plan_batches
from cluster.core.ids import execution_id
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import State
from cluster.core.limits.permits import Limits
from cluster.core.timings import Timings
from cluster.outbound.sender import Reply
from cluster.siblings import LOOK_AGAIN_SECONDS, Siblings
from cluster.store import jobs
from cluster.store.enqueue import insert_owed, repair_batches
from cluster.store.mongo.job_schedule_codec import job_schedule_from_document
from cluster.worker.worker import Worker, WorkerSettings
from tests.simulation.loop import NODE, VirtualLoop
from tests.simulation.model import turn
from tests.simulation.rules import Rules
from tests.simulation.twins import LUCK
from tests.simulation.world import START_MS, Broken, World

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.core.execution.model import Target
    from cluster.worker.held_batch import HeldBatch

SLOW_SECONDS = 4.5
DEFINITIONS = {
    "skip": Definition("@every 3s", "http://t/", 0, overlap="skip", retry=RetryPolicy(3, 1.0, 2.0, 300.0, 0.2)),
    "gate": Definition(
        "@every 3s", "http://t/", 0, limits=Limits(concurrent=1), retry=RetryPolicy(2, 1.0, 1.0, 9.0, 0.0)
    ),
    "tried": Definition("@every 3s", "http://t/", 0, retry=RetryPolicy(4, 1.0, 3.0, 5.0, 0.5, max_age_seconds=12.0)),
}
DUES = tuple(START_MS + 2000 + 3000 * n for n in range(4))
STORM_SECONDS = 25.0


class Wire:
    """A node's way to the target, in the place of `outbound.sender.Sender`."""

    def __init__(self, machines: Machines, node: str) -> None:
        self._machines = machines
        self._node = node

    def prepare(self, _: Target, headers: Sequence[tuple[str, str]]) -> dict[str, str]:
        return dict(headers)

    async def send(self, request: dict[str, str], _confirm: object = None) -> Reply:
        return await self._machines.answer(self._node, request)


class Machines:
    """Two nodes, three jobs: one with `overlap: skip`, one with `maxConcurrent` 1, one with `maxAgeSeconds`."""

    timings: ClassVar = Timings()
    definitions: ClassVar[Mapping[str, Definition]] = DEFINITIONS
    dues: ClassVar[tuple[int, ...]] = DUES
    storm_seconds: ClassVar = STORM_SECONDS
    statuses: ClassVar[tuple[int, ...]] = (200, 200, 200, 500, 503, 404)
    claimers: ClassVar = 1
    mortal: ClassVar = True

    def __init__(self, seed: int, trouble: float = 0.03) -> None:
        self.world = w = World(seed, trouble)
        self.troubled = trouble > 0.0
        LUCK.source = w.random
        w.store.pause = self._slow
        self.loop = VirtualLoop(w)  # type: ignore[abstract]  # sockets and the like
        self.workers: dict[str, Worker] = {}
        self._current: dict[str, str] = {}
        self._batches = count()
        self._begun = count()
        self._apart = w.random.random() < 0.5
        self._away = [f"away{n}" for n in range(6 * (seed % 2))]
        """Nodes that the others take for alive: they have their places in the order of asking, and never ask."""
        self.owing = False
        """Whether executions are being inserted whose batches may not exist yet."""
        self.rules = Rules(self, self.definitions)
        at = ChangeStamp(START_MS - 60_000, "v1", "m")
        for name, definition in self.definitions.items():
            made = changes.define(None, name, definition, at)
            if made is not None:
                w.store.documents[name] = {k: v for k, v in jobs.new_document(made).items() if k != "unsettled"}

    def _slow(self) -> float:
        w = self.world
        return w.random.random() * SLOW_SECONDS if w.random.random() < w.trouble else 0.0

    def run(self) -> World:
        """Faults, then calm: everything ends, nothing is left behind, and the next execution of each job may run."""
        try:
            self._in(None, self.owe(self.dues))
            for n in range(2):
                self.begin(f"n{n}")
            if self.world.trouble or self.world.random.random() < 0.5:
                self._in(None, self._sigterm())
            self.loop.run(self.storm_seconds, self.rules.after, self._between)
            self._calm()
            self._repaired_and_complete()
        finally:
            for worker in self.workers.values():
                worker.dispatcher.run_queue.stop()
            self.loop.failure = None
            self.loop.close()
        return self.world

    # -- nodes ---------------------------------------------------------------------------------------------------

    def begin(self, name: str) -> str:
        """A new process of this node."""
        owner = f"{name}@{next(self._begun)}"
        store: Any = self.world.store
        clock: Any = self.world.clock()
        wire: Any = Wire(self, owner)
        settings = WorkerSettings(owner, slots=8, waiting=64, claimers=self.claimers, spare_claimers=0)
        worker = Worker(store, clock, self.timings, wire, settings)
        worker.share_with([owner, *self._away])
        self.workers[owner] = worker
        self._current[name] = owner
        context = copy_context()
        context.run(NODE.set, owner)
        self.loop.call_soon(worker.start, context=context)
        return owner

    def _in(self, owner: str | None, work: Any) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(NODE.set, owner or "")
        task = self.loop.create_task(work, context=context)
        task.add_done_callback(self._no_fault)
        return task

    def _no_fault(self, task: asyncio.Task[Any]) -> None:
        """Nobody waits for these tasks: what one raises has to end the run, or its part would go untested."""
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.loop.failure = f"{task.get_coro()}: {exc!r}"

    def die(self, owner: str) -> None:
        """kill -9, and a new process some seconds later."""
        name = owner.partition("@")[0]
        self.loop.kill(owner)
        self.rules.leases.died(owner)
        if self.world.random.random() < 0.5:
            self.tell_siblings(owner)
        if self._current.get(name) == owner:
            del self._current[name]
            self._in(None, self._again(name, self.world.random.random() * 6))

    def tell_siblings(self, ended: str) -> None:
        """The parent's word: this process has ended. Not always, for its siblings may be on other machines."""
        for owner in self._current.values():
            if owner != ended:
                self._in(owner, self._inherit(ended))

    async def _inherit(self, ended: str) -> None:
        """`Siblings` of one node, as its loop runs it, until it has seen to this one."""
        store: Any = self.world.store
        elector: Any = SimpleNamespace(holder_ended=lambda _: None)
        said = iter([[ended]])
        siblings = Siblings(store, self.world.clock(), self.timings, elector, lambda: next(said, ()))  # type: ignore[arg-type]
        until = self.world.now + self.timings.batch_lease + 1
        while self.world.now < until:
            await siblings.turn()
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _again(self, name: str, after: float) -> None:
        await turn(after)
        self.begin(name)

    def _between(self, node: str) -> None:
        w = self.world
        w.steps += 1
        w.note(node)
        if not w.trouble:
            return
        random = w.random.random
        if w.store.postponed and random() < 0.05:
            self.rules.after(node)
            w.store.postponed.pop(int(random() * len(w.store.postponed)))()
            w.store.writes += 1
            self.rules.after("")
        if node and self.mortal and random() < w.trouble / 60:
            self.die(node)
        elif node and random() < w.trouble / 15:
            self.loop.frozen[node] = w.now + random() * 16

    async def _sigterm(self) -> None:
        """A rolling restart of one node, as `cluster.node` does it."""
        w = self.world
        await turn(1 + w.random.random() * 12)
        if not self._current:
            return
        owner = self._current.pop(min(self._current))
        worker = self.workers[owner]
        await self._in(owner, worker.shutdown(6.0))
        if not w.trouble:
            self.rules.drained(owner)
        self.loop.kill(owner)
        self.rules.leases.died(owner)
        self.begin(owner.partition("@")[0])

    # -- work ----------------------------------------------------------------------------------------------------

    async def owe(self, dues: Sequence[int]) -> None:
        """Insert executions as a leader does; faults of leaders are in another scenario.

        In some runs the jobs without a limit have batches of their own: siblings release only those.
        """
        store: Any = self.world.store
        limited = [name for name, d in self.definitions.items() if d.limits.concurrent is not None]
        others = [name for name in self.definitions if name not in limited]
        groups = [limited, others] if self._apart else [list(self.definitions)]
        fault, store.fault, self.owing = store.fault, lambda: None, True
        try:
            for names in filter(None, groups):
                owed = [(job_schedule_from_document(store.documents[n]), dues) for n in names]
                planned = plan_batches(owed, 2, lambda: f"w{next(self._batches)}")
                await insert_owed(store, planned.executions, planned.batches, lambda: f"w{next(self._batches)}")
        finally:
            store.fault, self.owing = fault, False

    def held(self, owner: str, execution: str) -> HeldBatch | None:
        """Under which lease a node sends this now."""
        return next((h for h in self.workers[owner].held.values() if execution in h.sending), None)

    async def answer(self, node: str, request: dict[str, str]) -> Reply:
        """The target: notes what arrived, and answers."""
        w = self.world
        random = w.random.random
        execution, number = request["Horae-Execution-Id"], int(request["Horae-Attempt"])
        seconds = random() * 5 if random() < 0.2 else random() * 0.4
        status = w.random.choice(self.statuses)
        asked = random() * 8 if status == 503 else None
        token = int(request["Horae-Fencing-Token"])
        try:
            self.rules.arrived(node, (execution, number, token), w.now + seconds, asked)
        except Broken as exc:  # the worker would take it for an answer
            self.loop.failure = str(exc)
        await asyncio.sleep(seconds)
        self.rules.answered(execution, status)
        return Reply(status, None, None, None, asked, seconds * 1000)

    # -- the end -------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """No more trouble; new processes, and a sweep."""
        w = self.world
        w.trouble = 0.0
        while w.store.postponed:
            w.store.postponed.pop()()
            w.store.writes += 1
            self.rules.after("")
        store: Any = w.store
        if self.troubled:
            for owner in self.workers:
                self.loop.kill(owner)
                self.rules.leases.died(owner)
            self._current.clear()
            for n in range(2):
                self.begin(f"n{n}")
            self._in(None, repair_batches(store, list(w.store.executions.values())))

    def _repaired_and_complete(self) -> None:
        """All ends within the leases, and the next occurrences may run."""
        w = self.world
        late = START_MS + int(w.now) * 1000 + 40_000
        self._in(None, self.owe([late]))
        self._all_ends([*self.dues, late], 120)
        for name in self.definitions:
            if w.store.history[execution_id(name, late)].state in (State.SKIPPED, State.CANCELLED):
                raise Broken(f"{name} runs no more: the last one to run has left its mark for ever")

    def _all_ends(self, dues: Sequence[int], seconds: float) -> None:
        """Everything due at these instants is final within so many seconds, and nothing is left behind."""
        w, store = self.world, self.world.store
        all_of_it = [execution_id(name, due) for name in self.definitions for due in dues]
        until = w.now + seconds
        while w.now < until and (store.executions or store.batches or all_of_it[-1] not in store.history):
            self.loop.run(w.now + 5, self.rules.after, self._between)
        left = [*store.executions, *store.batches]
        if left:
            raise Broken(f"left behind: {left}")
        lost = [i for i in all_of_it if i not in store.history]
        if lost:
            raise Broken(f"{lost} are neither owed nor final")
