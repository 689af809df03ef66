"""The kinds of findings of `horae verify`, one finding, and the counts of a run. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

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

    def note_occurrence(self) -> None:
        """Count an occurrence that was owed."""
        self.occurrences += 1

    def note_execution(self, final_state: str | None) -> None:
        """Count an execution. `final_state`: None if it is still owed."""
        self.executions += 1
        if final_state is not None:
            self.ended[final_state] += 1

    def note_missed(self) -> None:
        """Count an occurrence within a missed range."""
        self.missed += 1
        self.ended["missed"] += 1

    def note_waiting(self) -> None:
        """Count an occurrence that may have no record yet."""
        self.waiting += 1

    def note_lateness(self, late_ms: int) -> None:
        """Keep the longest lateness."""
        self.longest_late_ms = max(self.longest_late_ms, late_ms)

    def note_finding(self, kind: FindingKind) -> None:
        """Count a finding."""
        self.findings[kind] += 1

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


def describe_counts(kinds: Iterable[str], counts: VerifyCounts) -> str:
    """Counts in words: `2 missing, 1 late`."""
    return ", ".join(f"{counts.findings[kind]} {kind}" for kind in kinds if counts.findings[kind])
