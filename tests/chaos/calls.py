"""What follows from the calls made: which occurrences must come, may come and must not come. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.chaos.checker import Duty, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SETTLING_MS = 3000
"""How long before or after a call's answer an occurrence is left open: the change travels to the nodes."""

_STARTS = frozenset({"create", "resume"})


@dataclass(frozen=True)
class Call:
    """One call of the API about a job that runs every second. `unknown`: no answer came, it may have been done."""

    verb: Literal["create", "pause", "resume", "delete"]
    job: str
    invoked_ms: int
    answered_ms: int
    outcome: Literal["ok", "failed", "unknown"]


def targets(calls: Iterable[Call], start_ms: int, end_ms: int, backlog_ms: int = SETTLING_MS) -> list[Target]:
    """Every second of every job from `start_ms` until before `end_ms`, with its duty.

    A stop may cancel what was due up to `backlog_ms` before it and was not sent yet.
    """
    by_job: defaultdict[str, list[Call]] = defaultdict(list)
    for c in calls:
        if c.outcome != "failed":
            by_job[c.job].append(c)
    found = []
    for job, made in by_job.items():
        made.sort(key=lambda c: c.invoked_ms)
        found += [Target(f"{job}:{t}", t, _duty(made, t, backlog_ms)) for t in range(start_ms, end_ms, 1000)]
    return found


def _duty(made: Sequence[Call], due_ms: int, backlog_ms: int) -> Duty:
    runs: bool | None = False
    for c in made:
        starts = c.verb in _STARTS
        if c.invoked_ms > due_ms + (0 if starts else backlog_ms):
            continue
        sure = c.outcome == "ok" and c.answered_ms + SETTLING_MS <= due_ms
        runs = starts if sure or runs is starts else None
    return "may" if runs is None else "must" if runs else "must-not"
