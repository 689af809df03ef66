"""Which attempts of an execution are kept: the first and the last ones. The others are counted.

One run has at most 100 attempts. But an execution may be replayed any number of times, and a document of MongoDB that
comes to 16 MB cannot be written any more: its execution would never be final, and be sent for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

KEEP_FIRST = 20
KEEP_LAST = 180
MAX_KEPT = KEEP_FIRST + KEEP_LAST
MAX_OWED = 300
"""An execution that is owed gets no more attempts of nodes that had lost its lease, if it has so many."""


def keep(attempts: Sequence[T], left_out: int = 0) -> tuple[list[T], int]:
    """Of attempts in order of time those that are kept, and how many are left out in all."""
    surplus = len(attempts) - MAX_KEPT
    if surplus <= 0:
        return list(attempts), left_out
    return [*attempts[:KEEP_FIRST], *attempts[-KEEP_LAST:]], left_out + surplus
