"""One batch of six executions, and the request of one of them kills the node that sends it, each time.

Their batch is claimed until it is split, then each execution by itself until the one that kills nodes is given up, with
faults of the store meanwhile. The others are delivered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from cluster.core.execution.model import RetryPolicy
from cluster.core.execution.outcome import next_attempt_number
from cluster.core.ids import execution_id
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import State
from cluster.core.timings import Timings
from cluster.worker.claim import GIVE_UP_AFTER, SUSPECT_AFTER
from tests.simulation.nodes import Machines
from tests.simulation.world import START_MS, Broken

if TYPE_CHECKING:
    from cluster.outbound.sender import Reply

DUE = START_MS + 2000
POISON = execution_id("k", DUE)
JOB = Definition("@every 3s", "http://t/", 0, retry=RetryPolicy(50, 1.0, 1.0, 1.0, 0.0))
CALM_SECONDS = 300.0


class NodeKillers(Machines):
    """Two nodes with two claimers each, and leases as short as they may be, so that there are many of them."""

    timings: ClassVar = Timings(batch_lease=4.5)
    definitions: ClassVar = dict.fromkeys(("a", "f", "k", "p", "u", "z"), JOB)
    dues: ClassVar = (DUE,)
    storm_seconds: ClassVar = 60.0
    statuses: ClassVar = (200, 200, 200, 503)
    claimers: ClassVar = 2
    mortal: ClassVar = False
    """Nodes die here of that execution only."""

    def __init__(self, seed: int, trouble: float = 0.03) -> None:
        super().__init__(seed, trouble)
        self.troubled = True  # its effect on nodes is reason enough for a second delivery
        self._in_peace = trouble == 0.0
        self._taken = Counter[tuple[str, int]]()
        """By execution and number of the attempt to be made: how many nodes were killed that held it too."""

    async def answer(self, node: str, request: dict[str, str]) -> Reply:
        """Sooner or later it kills the node, before an answer is heard."""
        reply = super().answer(node, request)
        if request["Horae-Execution-Id"] != POISON:
            return await reply
        loop, random = asyncio.get_running_loop(), self.world.random.random
        loop.call_later(random() if random() < 0.5 else 0.0, self._kill, node)
        await reply
        never: asyncio.Future[Reply] = loop.create_future()
        return await never

    def _kill(self, node: str) -> None:
        held = [h for h in self.workers[node].held.values() if not h.lost]
        along = {i for h in held for i in (*h.waiting, *h.sending)} - {POISON}
        for e in self.world.store.executions.values():
            if e.id in along:
                self._taken[e.id, next_attempt_number(e.attempts)] += 1
        self.die(node)

    def _repaired_and_complete(self) -> None:
        self._all_ends(self.dues, CALM_SECONDS)
        for i, final in self.world.store.history.items():
            lost = final.state is State.DEAD and "node_lost" in str(final.reason)
            if i == POISON and not lost:
                raise Broken(f"{i} kills nodes and is {final.state}: {final.reason}")
            # Under faults so many nodes may lose their leases of one execution that it is given up without a fault of its own.
            times = max((n for (other, _), n in self._taken.items() if other == i), default=0)
            fate = lost and not self._in_peace and times <= SUSPECT_AFTER
            if i != POISON and final.state is not State.SUCCEEDED and not fate:
                raise Broken(
                    f"{i} harmed no node, was on {times} nodes that died, and is {final.state}: {final.reason}"
                )
        killed = len(self.rules.sent[POISON])
        if self._in_peace and killed > GIVE_UP_AFTER:
            raise Broken(f"{POISON} killed {killed} nodes")
