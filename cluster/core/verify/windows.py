"""When maintenance windows were in force, for `horae verify`: by its own reading of the schedules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cluster.core.verify.oracle import occurrences

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RELEASED_WITHIN_MS = 35_000
"""An execution that a window held is claimed again so long after the window was changed or deleted, at most."""
EDGE_MS = 3000
"""A window is in force within two seconds of its answer."""


@dataclass(frozen=True, slots=True)
class WindowRule:
    """What a window was in `valid_from_ms <= t < valid_to_ms` (None: until now)."""

    mode: str
    tags: frozenset[str]
    hosts: frozenset[str]
    queues: frozenset[str]
    schedule: str | None
    timezone: str
    lasts_ms: int
    from_ms: int
    until_ms: int
    spread_ms: int
    valid_from_ms: int
    valid_to_ms: int | None

    def concerns(self, tags: Iterable[str], host: str, queue: str | None) -> bool:
        """Whether it is about a job with these."""
        if any(tag in self.tags for tag in tags) or queue in self.queues:
            return True
        return host in self.hosts or host.rsplit(":", 1)[0] in self.hosts

    def in_force(self, since_ms: int, until_ms: int) -> list[tuple[int, int]]:
        """The times in which it was in force, as far as they touch `since_ms <= t <= until_ms`, `(from, to)` in ms."""
        if self.schedule is None:
            spans = [(self.from_ms, self.until_ms)]
        else:
            begins = occurrences(self.schedule, self.timezone, 0, max(0, since_ms - self.lasts_ms), until_ms + 1)
            spans = []
            for begin in begins:
                if spans and begin <= spans[-1][1]:
                    spans[-1] = (spans[-1][0], begin + self.lasts_ms)
                else:
                    spans.append((begin, begin + self.lasts_ms))
        last = self.valid_to_ms
        cut = [(max(a, self.valid_from_ms), b if last is None else min(b, last)) for a, b in spans]
        return [(a, b) for a, b in cut if a < b and a <= until_ms and b >= since_ms]


@lru_cache(maxsize=64)
def held_times(rules: tuple[WindowRule, ...], since_ms: int, until_ms: int) -> tuple[tuple[int, int], ...]:
    """When executions had to wait for the end of windows, and for their turn after it."""
    spans = []
    for rule in rules:
        if rule.mode != "mute":
            more_ms = rule.spread_ms + RELEASED_WITHIN_MS
            spans += [(a, b + more_ms) for a, b in rule.in_force(since_ms, until_ms)]
    merged: list[tuple[int, int]] = []
    for a, b in sorted(spans):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return tuple(merged)


def skips(rules: Sequence[WindowRule], at_ms: int, decided_ms: int) -> bool:
    """Whether what was due at an instant was to be skipped, by a window as it was when that was decided."""
    return any(
        rule.mode == "skip"
        and rule.valid_from_ms - EDGE_MS <= decided_ms
        and (rule.valid_to_ms is None or decided_ms <= rule.valid_to_ms + EDGE_MS)
        and _covers(rule, at_ms)
        for rule in rules
    )


def _covers(rule: WindowRule, at_ms: int) -> bool:
    if rule.schedule is None:
        return rule.from_ms <= at_ms < rule.until_ms
    begins = occurrences(rule.schedule, rule.timezone, 0, max(0, at_ms - rule.lasts_ms + 1), at_ms + 1)
    return any(True for _ in begins)
