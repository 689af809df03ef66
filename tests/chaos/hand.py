"""All that can be hurt, and what every kind of fault needs to find its victim."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.evidence import Fault
    from tests.chaos.wire import Wire
    from tests.support.mongo import ReplicaSet
    from tests.support.processes import Nodes, Receiver


@dataclass(frozen=True)
class Cluster:
    """Everything that faults can be done to. `small`: the member with a small disk, if one could be mounted.

    `injected`: the faults so far.
    """

    nodes: Nodes
    mongo: ReplicaSet
    receiver: Receiver
    wire: Wire
    points: Path
    clocks: Path
    dice: random.Random
    small: int | None = None
    injected: list[Fault] = field(default_factory=list)


class Hand:
    """Faults are methods of classes that inherit this one; each returns when it is over and undone."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._nodes, self._mongo, self._receiver = cluster.nodes, cluster.mongo, cluster.receiver
        self._wire, self._points, self._dice = cluster.wire, cluster.points, cluster.dice

    def _seen(self) -> tuple[dict[str, int], str | None]:
        """The nodes that live, and who leads; the database may be hurt just now."""

        def read() -> tuple[dict[str, int], str | None] | None:
            with contextlib.suppress(PyMongoError):
                return self._nodes.alive(), self._nodes.leader()
            return None

        return wait_until(read, 60, "what the database says of the nodes")

    def _alive(self) -> dict[str, int]:
        return self._seen()[0]

    def _victim(self, *, leading: bool | None = None) -> int:
        """The pid of a node that lives, and leads or does not if that is asked; there is one soon, or the run fails."""

        def choose() -> int | None:
            alive, leader = self._seen()
            names = [n for n in alive if leading is None or (n == leader) is leading]
            return alive[self._dice.choice(sorted(names))] if names else None

        return wait_until(choose, 60, "a node to be hurt")

    def _signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have died of another fault meanwhile
            os.kill(pid, number)
