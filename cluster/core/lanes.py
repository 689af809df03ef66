"""How many slots a lane may use: trust is earned by quick answers and lost by slow ones.

A lane starts with a quarter of a node's slots. Once enough of its recent answers came within a second it may use three
quarters, so that there is always room for another lane.
"""

from __future__ import annotations

SLOW_SECONDS = 1.0
REMEMBERED = 64
PROOF = 16


class Lane:
    """One lane on one node: what runs now and how the latest requests went. Times are monotonic seconds."""

    __slots__ = ("_latest", "_slow", "running", "started")

    def __init__(self) -> None:
        self.running = 0
        self.started: dict[str, float] = {}
        self._latest: list[bool] = []
        self._slow = 0

    def begin(self, execution_id: str, now: float) -> None:
        """A request left."""
        self.running += 1
        self.started[execution_id] = now

    def end(self, execution_id: str, now: float) -> None:
        """A request ended, however it did."""
        self.running -= 1
        slow = now - self.started.pop(execution_id, now) > SLOW_SECONDS
        self._latest.append(slow)
        self._slow += slow
        if len(self._latest) > REMEMBERED:
            self._slow -= self._latest.pop(0)

    def limit(self, slots: int, now: float) -> int:
        """How many of a node's slots this lane may use now."""
        trusted = len(self._latest) >= PROOF and self._slow * 20 <= len(self._latest)
        if trusted and self.started:
            # Insertion order is start order: a hanging target shows in its oldest request before any answer comes.
            trusted = now - next(iter(self.started.values())) <= SLOW_SECONDS
        return max(1, slots - slots // 4 if trusted else slots // 4)

    def saturated(self, slots: int, now: float) -> bool:
        """Whether it may not start another request now."""
        return self.running >= self.limit(slots, now)
