"""In which order the nodes ask for what comes due soon: a few of them first, the others for what these have left.

An execution costs a node less when it shares its instant with hundreds of others: their jobs are read together, their
results are written together, and the processor stays with one process. So with many nodes the executions of an instant go
through few of them. Two nodes ask as soon as a batch may be claimed, the next two a moment later, and so on; one that holds
enough asks last. The order turns every few minutes, so that all nodes have their share.

Two nodes ask at the same time, and each leaves the more to the other the more it holds: a crowd has left when the node with
the larger share of it is done.

It is an order of asking, and nothing depends on it: whoever claims, claims by the same write. What is due within 0.3 s no node
leaves to another one. A node that is first and is dead, frozen or cut off delays nobody.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cluster.core.execution.planning import SHARING_NODES

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.worker.held_batch import HeldBatches

STEP_MS = 200
"""Between two groups of nodes. So long the first ones need to claim while they are sending what was due just before."""
LAST_MS = 500
"""When all nodes ask, however much they hold: half of the prefetch, so that there is time to prepare what they claim."""
ENOUGH = 512
"""A node that holds so many executions which are not due yet leaves the next ones to others. It prepares as many at once."""
SHARE = 256
SHARE_MS = 50
"""With each so many executions that it holds and that are not due yet, one of two nodes leaves a batch to the other for so much
longer: as long as it may take the other one to begin (see `claim_pauses.SPREAD_SECONDS`).
"""
MOST_SHARED_MS = 300
"""And no longer: the other one may be dead, or hold as much."""
SHARED_MS = 10_000
"""A node of the first group that held enough so recently shares its work with the other groups."""
TURN_MS = 300_000
"""How long an order holds. A node that comes first reads and decodes jobs that others had decoded."""


class ClaimOrder:
    """The place of one node in the order."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._nodes: tuple[str, ...] = ()
        self._turn = -1
        self._step_ms = 0
        self._enough_ms = 0

    def share_with(self, nodes: Collection[str]) -> None:
        """These nodes claim. They need not agree about it: two that ask at the same time share what there is."""
        self._nodes = tuple(nodes)
        self._turn = -1

    def patience_ms(self, now_ms: int, unsent: int, held: HeldBatches) -> int:
        """For how long a batch that is not due yet must have been claimable before this node asks for it.

        `unsent`: how many executions it holds and has not sent, all in all.
        """
        if len(self._nodes) < SHARING_NODES:
            return 0
        ahead = 0 if unsent < SHARE else unsent - held.count_due(now_ms)
        if len(self._nodes) == SHARING_NODES:
            return min(MOST_SHARED_MS, ahead // SHARE * SHARE_MS)
        if ahead >= ENOUGH:
            self._enough_ms = now_ms
            return LAST_MS
        return self._step(now_ms)

    def sharing(self, now_ms: int) -> int:
        """Among how many nodes the work is divided, as this one sees it."""
        alone = self._step(now_ms) == 0 and now_ms - self._enough_ms > SHARED_MS
        return min(len(self._nodes), SHARING_NODES) if alone else len(self._nodes)

    def _step(self, now_ms: int) -> int:
        turn = now_ms // TURN_MS
        if turn != self._turn:
            self._turn = turn
            self._step_ms = min(LAST_MS, STEP_MS * (self._place(turn) // SHARING_NODES))
        return self._step_ms

    def _place(self, turn: int) -> int:
        own = _number(self._node, turn)
        return sum(_number(node, turn) < own for node in self._nodes if node != self._node)


def _number(node: str, turn: int) -> bytes:
    return hashlib.blake2b(f"{turn}:{node}".encode(), digest_size=8).digest()
