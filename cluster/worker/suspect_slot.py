"""The one place of a node for an execution that nodes were lost with before."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.worker.held_batch import HeldBatch


class SuspectSlot:
    """At most one execution on this node that nodes were lost with before: if this node is lost, that one is to blame."""

    def __init__(self) -> None:
        self._held: HeldBatch | None = None
        self._claiming = False

    @contextmanager
    def claiming(self) -> Iterator[bool]:
        """Whether the batch that is claimed meanwhile may be a suspect.

        It may not while one is held, nor while another claim may bring one.
        """
        may = not self._claiming and (self._held is None or self._held.done)
        self._claiming |= may
        try:
            yield may
        finally:
            self._claiming &= not may

    def hold(self, held: HeldBatch) -> None:
        """This suspect takes the slot until nothing of it is open."""
        self._held = held
