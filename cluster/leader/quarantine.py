"""What cannot be read or computed is set aside for a while, so that it does not stop everything else.

Nothing is dropped: it stays in the database as it is, is said aloud each time, and is tried again every minute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger()

QUARANTINE_SECONDS = 60.0


class Quarantine:
    """The ids of one kind of document that are left out now."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._until: dict[str, float] = {}

    def add(self, poison: Mapping[str, str]) -> None:
        """Set these ids aside; the values say why."""
        for name, why in poison.items():
            self._until[name] = Clock.monotonic() + QUARANTINE_SECONDS
            log.error("document_quarantined", kind=self._kind, id=name, error=why, seconds=QUARANTINE_SECONDS)

    def add_failure(self, name: str, exc: Exception) -> None:
        """Set aside what an unexpected error came of."""
        self.add({name: f"{type(exc).__name__}: {str(exc)[:200]}"})

    def ids(self) -> list[str]:
        """What to leave out now."""
        if not self._until:
            return []
        now = Clock.monotonic()
        self._until = {name: until for name, until in self._until.items() if until > now}
        return list(self._until)

    def clear(self) -> None:
        """Try everything again at once."""
        self._until.clear()
