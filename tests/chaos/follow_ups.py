"""What must follow the executions of a run: the callbacks of messages, and the runs of chained jobs. Pure.

What follows is said by the record of the execution: of a success `onSuccess`, else `onFailure`; a chained job runs after any
result. An execution that has no record may have been followed, or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.ids import callback_id, chained_id
from tests.chaos.evidence import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.chaos.evidence import Duty, Recorded, Run

FOLLOWED = ("succeeded", "failed", "dead")
CLOCKS_MS = 250
"""Between the clock that a record bears and that of the receiver."""


def follow_ups(run: Run, targets: Iterable[Target]) -> Iterator[Target]:
    """What follows these, each due when what it follows has ended."""
    records = {r.execution: r for r in run.recorded}
    told = {p.execution for p in run.posted if p.told}
    unanswered = any(p.told and p.execution is None for p in run.posted)
    children: dict[str, list[str]] = {}
    for job, after in run.chained:
        children.setdefault(after, []).append(job)
    for t in list(targets):
        record = records.get(t.execution)
        if t.execution in told or (unanswered and t.execution.startswith("msg.") and t.duty == "may"):
            yield from _callbacks(t, record)
        for job in children.get(t.execution.partition(":")[0], ()):
            name = chained_id(job, t.execution, _due(t.execution))
            must = record is not None and record.state in FOLLOWED
            yield Target(name, _ended(t, record), "must" if must and t.duty == "must" else "may")


def _callbacks(t: Target, record: Recorded | None) -> Iterator[Target]:
    for kind in ("success", "failure"):
        duty: Duty = "may"
        if record is not None and record.state in FOLLOWED and t.duty == "must":
            # A failure may have been told before a late success replaced it.
            owed = kind == ("success" if record.state == "succeeded" else "failure")
            duty = "must" if owed else "may" if kind == "failure" else "must-not"
        yield Target(callback_id(t.execution, kind, _due(t.execution)), _ended(t, record), duty)


def _ended(t: Target, record: Recorded | None) -> int:
    """From when on what follows may come. Nothing says that of what has no record."""
    return t.due_ms if record is None else max(t.due_ms, record.ended_ms - CLOCKS_MS)


def _due(execution: str) -> int:
    return int(execution.split(":")[1])


def is_follow_up(execution: str) -> bool:
    """Whether no schedule, trigger or message has this id."""
    return execution.startswith("cb.") or ":after-" in execution
