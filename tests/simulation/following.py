"""What follows executions: callbacks and runs of chained jobs, written by nodes that die, freeze and come late.

A job whose executions two others run after, and a message with both callbacks. What a worker does is `BatchLife`'s short
driver, with the real claim, record and `owe_after`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.core.execution.follow_up import FAILURE, SUCCESS, ChainedJob, kind_of
from cluster.core.execution.model import MESSAGE_VERSION, Batch, Ending, Execution
from cluster.core.ids import callback_id, chained_id, execution_id, is_follow_up
from cluster.core.lifecycle import JobState
from cluster.store import follow_ups
from cluster.store.enqueue import insert_owed, repair_batches
from cluster.store.followed import FollowedJob
from tests.simulation.model import turn
from tests.simulation.scenarios import BatchLife
from tests.simulation.world import START_MS, Broken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Rescheduled
    from cluster.worker.claim import ClaimedBatch
    from cluster.worker.record import Recorder

MESSAGE = f"msg.{'A' * 26}"
CALLBACKS = {"on_success": {"url": "http://c/"}, "on_failure": {"url": "http://c/"}}
PARENTS = (execution_id("p", START_MS), execution_id("p", START_MS + 1000), execution_id(MESSAGE, START_MS))
CHAINED = (("always", "any"), ("then", "succeeded"))


def _any(value: Any) -> Any:
    return value


class Following(BatchLife):
    """Two executions of a job with two callbacks and two chained jobs, and a message with two callbacks."""

    def __init__(self, seed: int, trouble: float = 0.06) -> None:
        super().__init__(seed, trouble)
        store = self.world.store
        store.followed_jobs["p"] = FollowedJob(
            {SUCCESS: CALLBACKS["on_success"], FAILURE: CALLBACKS["on_failure"]}, True
        )
        store.chained_jobs["p"] = [ChainedJob(name, on, JobState.ACTIVE, 0, "v1", 0, "", None) for name, on in CHAINED]
        store.requests[PARENTS[-1]] = {"url": "http://t/", **CALLBACKS}
        self._was: set[tuple[str, str]] = set()
        """The kinds of results that history had of each parent at some time."""

    async def _write(self, after: float) -> None:
        await turn(after)
        name = f"w{next(self._ids)}"
        jobs = ("p", "p", MESSAGE)
        request = {"url": "http://t/", **CALLBACKS}
        planned = [
            Execution(i, job, START_MS, START_MS, MESSAGE_VERSION, name, 0, trigger=True)
            for i, job in zip(PARENTS, jobs, strict=True)
        ]
        planned[-1] = replace(planned[-1], message=request)
        batch = Batch(name, tuple(e.id for e in planned), 0, 0, START_MS, START_MS - 1000)
        await insert_owed(_any(self.world.store), planned, [batch], lambda: f"w{next(self._ids)}")

    async def _record(self, recorder: Recorder, claimed: ClaimedBatch, results: Sequence[Ending | Rescheduled]) -> None:
        followed = [
            replace(r, followed=True) if isinstance(r, Ending) and r.execution.id in PARENTS else r for r in results
        ]
        await super()._record(recorder, claimed, followed)

    def _check(self) -> None:
        store = self.world.store
        for parent in PARENTS:
            final = store.history.get(parent)
            kind = None if final is None or final.reopened else kind_of(final.state)
            if kind is None:
                continue
            self._was.add((parent, kind))
            if parent in store.executions or (final is not None and final.unfollowed):
                continue
            for name in expected(parent, kind):
                if name not in store.executions and name not in store.history:
                    raise Broken(f"{parent} has gone, and {name}, which follows it, is nowhere")
        # One that was written again, and that history knew, is taken back by whoever wrote it: no node has held it.
        for name, e in list(self._before.items()):
            if is_follow_up(name) and e.token == 0 and name in store.history and name not in store.executions:
                del self._before[name]
        super()._check()

    def _repaired_and_complete(self) -> None:
        self.world.spawn("sweep", self._sweep())
        super()._repaired_and_complete()
        store = self.world.store
        if any(f.unfollowed for f in store.history.values()):
            raise Broken("nothing says any more what follows a late result")
        allowed = {name for parent, kind in self._was for name in expected(parent, kind)}
        for name in store.history:
            if is_follow_up(name) and name not in allowed:
                raise Broken(f"{name} follows nothing that history has had")
        for parent in PARENTS:
            if parent in store.history and not any(parent == of for of, _ in self._was):
                raise Broken(f"{parent} was never seen as final")

    async def _sweep(self) -> None:
        for _ in range(4):
            await repair_batches(_any(self.world.store), list(self.world.store.executions.values()))
            await follow_ups.repair(_any(self.world.store))
            await turn(12.0)


def expected(parent: str, kind: str) -> list[str]:
    """The ids of what follows a parent that ended so."""
    names = [callback_id(parent, kind, _due(parent))]
    if parent.startswith("p:"):
        names += [chained_id(job, parent, _due(parent)) for job, on in CHAINED if on == "any" or kind == SUCCESS]
    return names


def _due(parent: str) -> int:
    return int(parent.partition(":")[2])
