"""What this process has made claimable: whoever sleeps until there is something to claim is told at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Upcoming:
    """Instants (ms, by the primary's clock) at which batches become claimable, as they are written."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[int], None]] = []

    def listen(self, listener: Callable[[int], None]) -> None:
        """Call this with each instant from now on. It must not raise."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[int], None]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def note(self, at_ms: int) -> None:
        """A batch that was just written is claimable from this instant. 0: at once."""
        for listener in tuple(self._listeners):
            listener(at_ms)
