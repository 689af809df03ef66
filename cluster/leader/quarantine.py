"""A document that cannot be read or computed is left out for a while, so that it does not stop all others.

Nothing is dropped: the document stays in the database as it is, each quarantine is logged, and the document is tried
again after a minute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog

from cluster.clock import Clock
from cluster.core.errors import OwnershipLost, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

T = TypeVar("T")
R = TypeVar("R")
log = structlog.get_logger()

QUARANTINE_SECONDS = 60.0


class Quarantine:
    """The ids of the documents of one kind that are left out now."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._until: dict[str, float] = {}

    def add(self, reasons: Mapping[str, str]) -> None:
        """Leave these ids out; `reasons` says why, by id."""
        for name, reason in reasons.items():
            self._until[name] = Clock.monotonic() + QUARANTINE_SECONDS
            log.error("document_quarantined", kind=self._kind, id=name, error=reason, seconds=QUARANTINE_SECONDS)

    def add_failure(self, name: str, exc: Exception) -> None:
        """Leave out the id whose document caused an unexpected error."""
        self.add({name: f"{type(exc).__name__}: {str(exc)[:200]}"})

    def ids(self) -> list[str]:
        """The ids to leave out now."""
        if not self._until:
            return []
        now = Clock.monotonic()
        self._until = {name: until for name, until in self._until.items() if until > now}
        return list(self._until)

    def clear(self) -> None:
        """Try every document again at once."""
        self._until.clear()


async def bisect(
    items: Sequence[T],
    work: Callable[[Sequence[T]], Awaitable[R]],
    quarantine: Quarantine,
    *,
    id_of: Callable[[T], str],
) -> list[R | None]:
    """Work on all items at once; on an unexpected error halve them until the item that causes it is known and left out.

    `work` must be repeatable: part of its writes may have been made before the error. Returns the result of each part in
    order, None for an item that was quarantined. `OwnershipLost` and `StoreError` are raised: they do not come of an
    item.
    """
    try:
        return [await work(items)]
    except (OwnershipLost, StoreError):
        raise
    except Exception as exc:
        if len(items) == 1:
            quarantine.add_failure(id_of(items[0]), exc)
            return [None]
    half = len(items) // 2
    first = await bisect(items[:half], work, quarantine, id_of=id_of)
    return first + await bisect(items[half:], work, quarantine, id_of=id_of)
