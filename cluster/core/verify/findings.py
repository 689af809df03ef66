"""The kinds of findings of `horae verify`, one finding, and the counts of a run. Values only."""

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
"""The most serious first. They are shown in this order."""
FINAL_STATES = ("succeeded", "failed", "dead", "cancelled", "skipped", "missed")
"""The final states of executions."""
NOTES: frozenset[FindingKind] = frozenset({"redelivered"})
"""Reported, but not as a finding: delivery at least once allows a second delivery after a lost lease or a dead node."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one execution, or a note about it (`redelivered`)."""

    kind: FindingKind
    job_id: str
    execution: str
    text: str


@dataclass(slots=True)
class VerifyCounts:
    """What a run of `horae verify` counted."""

    jobs: int = 0
    occurrences: int = 0
    executions: int = 0
    missed: int = 0
    waiting: int = 0
    findings: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    longest_late_ms: int = 0
    ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINAL_STATES, 0))
    """Executions by final state, without those that are still owed. `missed`: occurrences within missed ranges."""

    def add(self, other: VerifyCounts) -> None:
        """Add other counts."""
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
