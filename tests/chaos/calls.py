"""What follows from the calls made: which occurrences must come, may come and must not come. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.checker import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.chaos.checker import Call, Duty, Trigger

SETTLING_MS = 3000
"""How long before or after a call's answer an occurrence is left open: the change travels to the nodes."""


@dataclass(frozen=True)
class _State:
    """What a job may be like: whether it runs, and how many seconds apart."""

    runs: bool
    step: int

    def after(self, call: Call) -> _State:
        match call.verb:
            case "create":
                return _State(True, call.step)
            case "change":
                return _State(self.runs, call.step)
            case _:
                return _State(call.verb == "resume", self.step)

    def owes(self, due_ms: int) -> bool:
        return self.runs and due_ms // 1000 % self.step == 0


_NOTHING = _State(False, 1)


def targets(calls: Iterable[Call], start_ms: int, end_ms: int, backlog_ms: int = SETTLING_MS) -> list[Target]:
    """Every second of every job from `start_ms` until before `end_ms`, with its duty.

    A stop or a change may cancel what was due up to `backlog_ms` before it and was not sent yet.
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


def triggered(triggers: Iterable[Trigger], seen: Iterable[str], start_ms: int, end_ms: int) -> list[Target]:
    """The runs asked for by hand that are due in a span: those answered must come.

    Of one that was never answered only the job is known: of what came (`seen`, execution ids) and no schedule owes,
    as many as there were such calls may have been it.
    """
    found = {}
    unanswered: defaultdict[str, list[int]] = defaultdict(list)
    for t in triggers:
        if t.execution is None:
            unanswered[t.job].append(t.invoked_ms)
        elif start_ms <= (due := int(t.execution.split(":")[1])) < end_ms:
            found[t.execution] = Target(t.execution, due)
    for execution in sorted(set(seen) - set(found)):
        job, due = execution.split(":")[0], int(execution.split(":")[1])
        asked = [ms for ms in unanswered[job] if ms - SETTLING_MS <= due]
        if due % 1000 and asked:
            unanswered[job].remove(max(asked))
            found[execution] = Target(execution, due, "may")
    return list(found.values())


def _duty(made: Sequence[Call], due_ms: int, backlog_ms: int) -> Duty:
    states = {_NOTHING}
    for c in made:
        # What is started or resumed owes from then on; a stop or a change also concerns what was not sent yet.
        if c.invoked_ms > due_ms + (0 if c.verb in ("create", "resume") else backlog_ms):
            continue
        after = {s.after(c) for s in states}
        if c.outcome == "ok" and c.answered_ms + SETTLING_MS <= due_ms:
            states = after
        else:
            states |= after
            if c.verb == "change" and due_ms <= c.answered_ms + SETTLING_MS:
                states.add(_NOTHING)  # owed under the schedule from before the change, and cancelled by it
    owing = {s.owes(due_ms) for s in states}
    return "may" if len(owing) == 2 else "must" if owing == {True} else "must-not"
