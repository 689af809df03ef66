"""Times that no calendar decides, in seconds since 1970: one instant, a constant interval, and none at all."""

from __future__ import annotations

from dataclasses import dataclass

AFTER_KEY = "after|"
"""The key of the schedule of a job that runs after another one: it has no occurrences."""


@dataclass(frozen=True, slots=True)
class OneInstant:
    """Of `@at`: one occurrence."""

    instant: int

    def next_after(self, after: int) -> int | None:
        """The instant, if it is later."""
        return self.instant if after < self.instant else None


@dataclass(frozen=True, slots=True)
class ConstantInterval:
    """Of `@every`: occurrences for ever."""

    interval: int
    phase: int

    def next_after(self, after: int) -> int | None:
        """The first occurrence that is later."""
        return after + 1 + (self.phase - after - 1) % self.interval


@dataclass(frozen=True, slots=True)
class NoInstant:
    """Of a job that runs after another one."""

    def next_after(self, _after: int) -> None:
        """There is none."""
