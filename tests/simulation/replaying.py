"""Replays of executions that something follows: by users, and of many by leaders, while nodes that come late still end them.

`Following`, and two users who replay whatever a replay leaves, follow-ups too; and two leaders that both do one page and
repair what users left half done. `replay`, `Replayer` and `owe_before_replay` are the real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.core.errors import Conflict, NotFound
from cluster.core.execution.follow_up import kind_of
from cluster.core.execution.model import Ending, Term
from cluster.core.lifecycle import REPLAYABLE
from cluster.leader.replay import Replayer
from cluster.store.batches import ClaimFilter
from cluster.store.replays import Replay, ReplayFilter
from cluster.usecases import executions
from tests.simulation.following import PARENTS, Following, expected
from tests.simulation.model import turn
from tests.simulation.model_replays import ReplayStore
from tests.simulation.scenarios import TIMINGS
from tests.simulation.world import Broken
from tests.support.engine import leader_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Execution, Rescheduled
    from cluster.worker.claim import ClaimedBatch
    from cluster.worker.record import Recorder

REPLAYS = 4
"""How often users ask, in all."""


def _any(value: Any) -> Any:
    return value


class Replaying(Following):
    """What `Following` asks, and: what followed a result is owed although a replay has taken that result back."""

    def __init__(self, seed: int, trouble: float = 0.06) -> None:
        super().__init__(seed, trouble)
        old = self.world.store
        self.world.store = self._leases.store = ReplayStore(
            old.now_ms, old.fault, followed_jobs=old.followed_jobs, chained_jobs=old.chained_jobs, requests=old.requests
        )
        self._asked = 0
        self._required: set[str] = set()
        """What follows results that were taken back."""
        self._finals: dict[str, set[str]] = {}

    def run(self) -> Any:
        for name in ("user0", "user1", "lead0", "lead1"):
            self._begin(name)
        return super().run()

    def _begin(self, name: str) -> None:
        if name.startswith("user"):
            self.world.spawn(name, self._replay())
        elif name.startswith("lead"):
            self.world.spawn(name, self._lead())
        else:
            super()._begin(name)

    async def _replay(self) -> None:
        w = self.world
        while True:
            await turn(w.random.random() * 10)
            there = sorted(i for i, f in w.store.history.items() if f.state in REPLAYABLE and not f.reopened)
            if self._asked >= REPLAYS or not there:
                continue
            self._asked += 1
            name = w.random.choice(there)
            try:
                await executions.replay(_any(w.store), name, w.clock().now_ms(), 7.0)
            except (Conflict, NotFound):
                continue

    async def _lead(self) -> None:
        """Trusts its term for ever, as a leader that was frozen just after it asked."""
        w = self.world
        clock = _any(w.clock())
        context = leader_context(
            _any(w.store),
            clock,
            lambda: Term(1, "x", 0.0),
            TIMINGS,
            new_batch_id=lambda: f"r{next(self._ids)}",
            retention_days=7.0,
        )
        replayer = Replayer(context)
        store = _any(w.store)
        while True:
            await turn(w.random.random() * 8)
            if not store.replays and w.now > 8.0:  # a page of what has failed; it was written before
                page = tuple(i for i in PARENTS if i in store.history)
                if page:
                    store.replays["r"] = Replay("r", ReplayFilter(), 1000.0, clock.now_ms(), len(page), page=page)
            await replayer.repair(clock.now_ms())
            await replayer.step(clock.now_ms())

    def _counted_as(self, e: Execution) -> str:
        """Each replay counts anew. What a writer inserts late, while the record is open, is sent as that replay."""
        final = self.world.store.history.get(e.id)
        return e.id if final is None else f"{e.id}@{final.asked_ms}"

    def _claims(self) -> ClaimFilter:
        """A leader's replays are late work."""
        return ClaimFilter(late=self.world.random.random() < 0.4)

    def _final_before(self, node: str) -> set[str]:
        self._finals[node] = super()._final_before(node)
        return self._finals[node]

    async def _record(self, recorder: Recorder, claimed: ClaimedBatch, results: Sequence[Ending | Rescheduled]) -> None:
        for r in results:
            if isinstance(r, Ending) and r.execution.message is not None:
                self.world.store.requests.setdefault(r.execution.id, dict(r.execution.message))
        await super()._record(recorder, claimed, results)

    def _check(self) -> None:
        store = self.world.store
        for name, final in store.history.items():
            if not final.reopened:
                continue
            for finals in self._finals.values():
                finals.discard(name)
            kind = kind_of(final.state)
            if name in PARENTS and kind is not None:
                self._required |= set(expected(name, kind))
        for name in self._required:
            if name not in store.executions and name not in store.history:
                raise Broken(f"{name} follows a result that a replay took back, and is nowhere")
        super()._check()

    def _left_behind(self) -> list[str]:
        return super()._left_behind() + [f"{i} reopened" for i, f in self.world.store.history.items() if f.reopened]

    def _repaired_and_complete(self) -> None:
        self._asked = REPLAYS
        for name in ("lead0", "lead1"):
            self._begin(name)
        super()._repaired_and_complete()
