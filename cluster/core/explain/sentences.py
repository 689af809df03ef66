"""Sentences with times, the answer that they make up, and durations in words."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.core.instants import format_instant


@dataclass(frozen=True, slots=True)
class Sentence:
    """One fact with its time (ms). None: the fact is true now."""

    at_ms: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer for one occurrence. `state` is the execution's, or `notDue`, `paused`, `deleted`, `absent`, `ahead`,
    `expired`, `waiting`, `unknown`.
    """

    state: str
    summary: str
    sentences: tuple[Sentence, ...] = ()
    due_ms: int | None = None
    execution: str | None = None


def ordered(sentences: list[Sentence]) -> tuple[Sentence, ...]:
    """By time. A sentence without a time keeps its place at the end."""
    return tuple(sorted(sentences, key=lambda s: (s.at_ms is None, s.at_ms or 0)))


def duration_text(ms: float) -> str:
    """`120 ms`, `1.5 s`, `12 min`, `3 h`, `2 days`."""
    for unit, size, least in (("days", 86_400_000, 172_800_000), ("h", 3_600_000, 7_200_000), ("min", 60_000, 120_000)):
        if ms >= least:
            return f"{ms / size:.0f} {unit}"
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"


def local_time_text(ms: int, timezone: str) -> str:
    """The instant in a time zone, in brackets. Empty for UTC."""
    return "" if timezone == "UTC" else f" ({format_instant(ms, timezone)})"
