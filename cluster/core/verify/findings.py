"""What `horae verify` may say: the kinds of findings, one finding, and how much was looked at. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FindingKind = Literal["missing", "unexpected", "early", "late", "duplicate", "orphan", "contradiction", "redelivered"]
KINDS: tuple[FindingKind, ...] = (
    "missing",
    "orphan",
    "duplicate",
    "unexpected",
    "contradiction",
    "early",
    "late",
    "redelivered",
)
"""The gravest first: so they are shown."""
FINAL_STATES = ("succeeded", "failed", "dead", "cancelled", "skipped", "missed")
"""How executions end."""
NOTES: frozenset[FindingKind] = frozenset({"redelivered"})
"""Told, but no finding: at least once means that a lost lease or a dead node costs a second delivery."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one execution, or (`redelivered`) that is worth to be told."""

    kind: FindingKind
    job_id: str
    execution: str
    text: str


@dataclass(slots=True)
class VerifyCounts:
    """How much was looked at."""

    jobs: int = 0
    occurrences: int = 0
    executions: int = 0
    missed: int = 0
    waiting: int = 0
    findings: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    longest_late_ms: int = 0
    ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINAL_STATES, 0))
    """Executions by how they ended; those that are still owed are in none. `missed`: occurrences within missed ranges."""

    def add(self, other: VerifyCounts) -> None:
        """Take in what was counted elsewhere."""
        self.jobs += other.jobs
        self.occurrences += other.occurrences
        self.executions += other.executions
        self.missed += other.missed
        self.waiting += other.waiting
        self.longest_late_ms = max(self.longest_late_ms, other.longest_late_ms)
        for kind, n in other.findings.items():
            self.findings[kind] += n
        for state, n in other.ended.items():
            self.ended[state] += n
