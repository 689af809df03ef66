"""The occurrences that must, may and must not arrive, as they follow from the calls of the API. Pure.

What came due before a change is sent all the same; before a pause, it waits for the resume. Only a deletion cancels it.
Whether it did is not guessed: an occurrence that was owed and did not arrive has to have a record that says so, written
after the call. What no leader had written down before a stop or a change may be recorded as missed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.evidence import Target
from tests.chaos.follow_ups import follow_ups, is_follow_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.chaos.evidence import Call, Duty, Posted, Recorded, Run, Trigger

CLOCKS_MS = 250
"""Between the clocks of the caller and of the node that took the call."""
SETTLING_MS = 3000
"""How long after a stop or a change requests may still arrive: a node sends by the job as it read it before."""
CHANGES = ("pause", "delete", "change")
RESUMED_MS = 32_000
"""How long after a resume an execution may wait that nothing woke: no leader settled it, and it is claimed again by itself."""
LATER_MS = 60_000
"""A call without an answer may be executed so much later: the network, the primary or the node held it."""
UNSETTLED_MS = 15_000
"""A change of leader and a little more: so long after a call the leader may not have settled the job."""
OVER_MS = 120_000
"""So long after the last call about a job that was stopped by it, nothing of it is written ahead any more."""


@dataclass(frozen=True)
class _State:
    """A possible state of a job: whether it runs, and how many seconds apart."""

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


def owed(run: Run) -> tuple[Target, ...]:
    """All that has a target in a run: its steady jobs, those of the calls, and the runs asked for by hand."""
    start, end = run.span
    policies = dict(run.policies)
    hurt = [(f.start_ms, f.end_ms + f.after_ms + run.bounds.recovery_ms) for f in run.faults if "late" in f.explains]
    seen = {s.execution for s in run.seen if not is_follow_up(s.execution)}
    found = (
        *(
            Target(f"j{i}:{t}", t, catch_up=policies.get(f"j{i}", "all"))
            for i in range(run.steady)
            for t in range(start, end, 1000)
        ),
        *targets(run.calls, run.recorded + run.earlier, start, end, hurt),
        *triggered(run.triggers, {e for e in seen if not _is_message(e)}, start, end),
        *messages(run.posted, {e for e in seen if _is_message(e)}, start, end),
    )
    return (*found, *follow_ups(run, found))


def _is_message(execution: str) -> bool:
    return execution.startswith("msg.")


def messages(posted: Iterable[Posted], seen: Iterable[str], start_ms: int, end_ms: int) -> list[Target]:
    """The messages that are due in a span: those accepted must come, unless their cancellation was answered.

    Of one that was never answered nothing is known: as many of those that came (`seen`) may have been it.
    """
    found: dict[str, Target] = {}
    unanswered = 0
    for p in posted:
        if p.execution is None:
            unanswered += 1
        elif start_ms <= (due := int(p.execution.split(":")[1])) < end_ms:
            duty: Duty = "may" if p.cancelled is None else "must-not" if p.cancelled else "must"
            found[p.execution] = Target(p.execution, due, duty)
    for execution in sorted(set(seen) - set(found))[:unanswered]:
        found[execution] = Target(execution, int(execution.split(":")[1]), "may")
    return list(found.values())


def targets(
    calls: Iterable[Call],
    recorded: Iterable[Recorded],
    start_ms: int,
    end_ms: int,
    hurt: Sequence[tuple[int, int]] = (),
) -> list[Target]:
    """Every second of every job from `start_ms` until before `end_ms`, with its duty. `hurt`: when a leader may be lacking.

    There is no target before a job was made, or long after it was stopped for good: nothing is owed then.
    """
    by_job: defaultdict[str, list[Call]] = defaultdict(list)
    for c in calls:
        if c.outcome in ("ok", "unknown") or (c.outcome == "absent" and c.verb == "delete"):
            by_job[c.job].append(c)
    forgone = _Forgone(recorded, hurt)
    found = []
    for job, made in by_job.items():
        made.sort(key=lambda c: c.invoked_ms)
        surely, hardly = _History(made, CLOCKS_MS), _History(made, SETTLING_MS)
        begin = max(start_ms, made[0].invoked_ms // 1000 * 1000)
        over = _over(made)
        end = end_ms if over is None else min(end_ms, over + OVER_MS)
        for t in range(begin, end, 1000):
            duty: Duty = "may"
            if surely.owing(t) == {True} and not (
                _excused(made, t, forgone.missed(job, t), CHANGES)
                or _excused(made, t, forgone.cancelled(job, t), ("delete",))
                or _not_come_to(made, forgone.cancelled(job, t), hurt)
            ):
                duty = "must"
            elif hardly.owing(t) == {False}:
                duty = "must-not"
            # Also what was due while a pause was asked for may have been due before it, and then waits for the resume.
            waits = () if duty == "must-not" else tuple(_pauses(made, t))
            found.append(Target(f"{job}:{t}", t, duty, waits=waits))
    return found


def _pauses(made: Sequence[Call], due_ms: int) -> Iterable[tuple[int, float]]:
    """When the job may have been paused after an occurrence was due: until a resume that surely came later."""
    for c in made:
        done_ms = c.answered_ms if c.outcome == "ok" else c.invoked_ms + LATER_MS
        if c.verb == "pause" and done_ms + CLOCKS_MS >= due_ms:
            resumed = (r for r in made if r.verb == "resume" and r.outcome == "ok" and r.invoked_ms >= done_ms)
            yield c.invoked_ms - CLOCKS_MS, next((r.answered_ms + RESUMED_MS for r in resumed), math.inf)


def _over(made: Sequence[Call]) -> int | None:
    """When a job was stopped for good; None if it was not, as far as one can know."""
    last = made[-1]
    doubtful = any(c.outcome != "ok" and c.invoked_ms + LATER_MS > last.invoked_ms for c in made)
    return last.answered_ms if last.verb in ("pause", "delete") and not doubtful else None


class _History:
    """The possible states of a job at each instant, if an answered call holds from `slack_ms` after its answer."""

    def __init__(self, made: Sequence[Call], slack_ms: int) -> None:
        moments = {c.invoked_ms - CLOCKS_MS for c in made} | {c.answered_ms + slack_ms for c in made}
        self._moments = sorted(moments)
        self._states = [_states(made, at, slack_ms) for at in self._moments]

    def owing(self, due_ms: int) -> set[bool]:
        """Whether it owes this second, as far as one can know."""
        place = bisect_right(self._moments, due_ms) - 1
        states = self._states[place] if place >= 0 else {_NOTHING}
        return {s.owes(due_ms) for s in states}


def _states(made: Sequence[Call], at_ms: int, slack_ms: int) -> set[_State]:
    states = {_NOTHING}
    unanswered: list[Call] = []
    for c in made:
        if c.invoked_ms - CLOCKS_MS > at_ms:
            break
        after = {s.after(c) for s in states}
        if c.outcome == "ok" and c.answered_ms + slack_ms <= at_ms:
            states = after
            for u in unanswered:
                if u.invoked_ms + LATER_MS > c.invoked_ms:
                    states |= {s.after(u) for s in states}
        else:
            states |= after
        if c.outcome != "ok":
            unanswered.append(c)
    return states


class _Forgone:
    """When it was recorded that an occurrence is not sent, for those of which it was."""

    def __init__(self, recorded: Iterable[Recorded], hurt: Sequence[tuple[int, int]]) -> None:
        self._hurt = hurt
        self._cancelled: dict[str, int] = {}
        self._ranges: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for r in recorded:
            if r.state == "cancelled":
                self._cancelled[r.execution] = r.ended_ms
            elif r.state == "missed" and r.last_ms is not None:
                job, first = r.execution.split(":")[:2]
                self._ranges[job].append((int(first), r.last_ms, max(r.ended_ms, r.extended_ms or 0)))

    def cancelled(self, job: str, due_ms: int) -> int | None:
        """In ms; None: it is not recorded as cancelled."""
        return self._cancelled.get(f"{job}:{due_ms}")

    def missed(self, job: str, due_ms: int) -> int | None:
        """In ms, at the latest; None: it is not recorded as missed. Of a range that grew: when it did last.

        A range bears the time at which the leader began to look at jobs; a job may have been stopped until it was read.
        """
        for first, last, ended in self._ranges[job]:
            if first <= due_ms <= last:
                slow = any(low <= ended <= high for low, high in self._hurt)
                return ended + (UNSETTLED_MS if slow else SETTLING_MS)
        return None


def _excused(made: Sequence[Call], due_ms: int, forgone_ms: int | None, verbs: Sequence[str]) -> bool:
    """Whether such a call that may have come after it was due can have been why it is recorded as not sent."""
    if forgone_ms is None:
        return False
    return any(
        c.verb in verbs
        and c.invoked_ms - CLOCKS_MS <= forgone_ms
        and (c.answered_ms if c.outcome == "ok" else c.invoked_ms + LATER_MS) + CLOCKS_MS > due_ms
        for c in made
    )


def _not_come_to(made: Sequence[Call], cancelled_ms: int | None, hurt: Sequence[tuple[int, int]]) -> bool:
    """Whether a job was stopped before a leader had come to what it owes since it was changed or resumed.

    A node may cancel what was written ahead for the time before that; then the leader writes it down again, unless the
    job is stopped by then. Without a fault a leader comes within a moment.
    """
    if cancelled_ms is None:
        return False
    for begun in made:
        if begun.verb in ("change", "resume") and begun.invoked_ms - CLOCKS_MS <= cancelled_ms:
            came = begun.answered_ms + SETTLING_MS
            if any(low <= came and high >= begun.invoked_ms for low, high in hurt):
                came = begun.answered_ms + UNSETTLED_MS
            if any(
                c.verb not in ("create", "resume")
                and begun.invoked_ms < c.invoked_ms <= came
                and c.invoked_ms > cancelled_ms
                for c in made
            ):
                return True
    return False


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
