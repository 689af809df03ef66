"""The checker of fault runs. Pure: evidence goes in, violations come out.

It knows nothing of the engine. It joins the occurrences owed (must, may or must not arrive), the arrivals that a receiver
logged on its own clock, the records in the database at the end, the faults, and the leaders. All instants are int ms UTC.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.chaos.evidence import Call, Effect, Leader, Run, Seen, Target

EARLY_MS = 20
"""Two clocks of one machine, and rounding."""
OWNERS_MS = 500
"""An owner stops a second before another node may begin."""
ON_ITS_WAY_MS = 5000
PAUSED_MS = 3000
"""After a pause was answered, a request may still leave for a second; and it takes its way."""
UNKNOWN_MS = 60_000
"""A call without an answer may be executed so much later."""
IN_FLIGHT_MS = 3000
"""A request that came so long before a fault may have been under way when it began: answers take up to 2 s at worst."""
UNCLAIMED_MS = 12_000
"""A batch lease and 2 s: what was claimable for longer before its first claim is missed, unless `catchUp` has it run."""
PREFETCH_MS = 1000
BEHIND_MS = 10_000
"""A leader that comes so late to a schedule catches up, which with `none` misses all that it has not come to."""
LOST_MS = 12_000
"""So long after a fault's end the answer to a request may still be lost: a lease, which the sender may have lost without
knowing it, its margin, and a second to record results."""


@dataclass(frozen=True)
class Violation:
    """A broken rule, and by what."""

    rule: str
    what: str


def check(run: Run) -> list[Violation]:
    """Every violation of every rule that holds in this run; an empty list is a clean run."""
    by_id: defaultdict[str, list[Seen]] = defaultdict(list)
    for s in sorted(run.seen, key=lambda s: s.at_ms):
        by_id[s.execution].append(s)
    effects = _Effects(run)
    found = [
        *_targets(run, by_id, effects),
        *_lateness(run, by_id, effects),
        *_duplicates(by_id, effects),
        *_history(run, by_id, effects),
        *_calls(run.calls),
        *_leaders(run.leaders),
        *_progress(run, by_id),
        *_paused(run, by_id, effects),
        *_orphans(run),
        *(Violation("verify", finding) for finding in run.verified),
    ]
    return [v for v in found if v.rule not in run.excused]


def figures(run: Run) -> dict[str, int]:
    """The figures of a report. `delivered again`: an attempt that had come before, or any after a 2xx; `by another claim`:
    the former. Lateness in ms, and beside it that of occurrences due far from any fault.
    """
    first: dict[str, int] = {}
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    accepted: set[str] = set()
    again = claimed = 0
    for s in sorted(run.seen, key=lambda s: s.at_ms):
        claimed += s.attempt in numbers[s.execution]
        again += s.attempt in numbers[s.execution] or s.execution in accepted
        numbers[s.execution].add(s.attempt)
        first.setdefault(s.execution, s.at_ms)
        if s.answer.startswith("2"):
            accepted.add(s.execution)
    waiting = _waiting(run) & set(run.owed)  # for the end of a pause
    must = [t for t in run.targets if t.duty == "must" and t.execution not in waiting]
    far = _Effects(run).far({t.due_ms for t in must})
    calm = sorted(first[t.execution] - t.due_ms for t in must if t.due_ms in far and t.execution in first) or [0]
    return {
        "faults": len(run.faults),
        "kinds of faults": len({f.kind for f in run.faults}),
        "executions audited": len(must),
        "far from any fault": sum(t.due_ms in far for t in must),
        "missing": sum(t.execution not in first and t.catch_up == "all" for t in must),
        "missed by their policy": sum(t.execution not in first and t.catch_up != "all" for t in must),
        "delivered again": again,
        "by another claim": claimed,
        "longest lateness ms": max((first[t.execution] - t.due_ms for t in must if t.execution in first), default=0),
        "far from faults, median ms": calm[len(calm) // 2],
        "far from faults, p99 ms": calm[min(len(calm) - 1, len(calm) * 99 // 100)],
        "far from faults, longest ms": calm[-1],
    }


class _Effects:
    """When faults may have which effects."""

    def __init__(self, run: Run) -> None:
        self._faults = run.faults
        self._recovery_ms = run.bounds.recovery_ms

    def _spans(self, effect: Effect | None) -> list[tuple[int, int]]:
        faults = [f for f in self._faults if effect is None or effect in f.explains]
        if effect == "stale":  # a request on its way arrives as soon as all processes go on
            return [(f.start_ms, f.end_ms + ON_ITS_WAY_MS) for f in faults]
        if effect == "again":
            return [(f.start_ms, f.end_ms + LOST_MS) for f in faults]
        return [(f.start_ms, f.end_ms + f.after_ms + self._recovery_ms) for f in faults]

    def at(self, at_ms: int, effect: Effect | None = None) -> bool:
        """Whether an instant lies in a fault that may have this effect (None: any), or in its recovery."""
        return any(low <= at_ms <= high for low, high in self._spans(effect))

    def lost(self, seen: Seen) -> bool:
        """Whether a fault can be why this request, or its answer, was lost."""
        return any(self.at(seen.at_ms + lag, "again") for lag in (0, IN_FLIGHT_MS))

    def taken_over(self, first: Seen, second: Seen) -> bool:
        """Whether the node that sent the first may have been killed in between: its parent says so, and a sibling goes on at
        once, under a greater token. What it had sent by then may arrive after its death."""
        killed = [f for f in self._faults if f.group == "nodes" and f.kind.startswith("kill")]
        ended = any(f.start_ms <= second.at_ms and first.at_ms <= f.end_ms + OWNERS_MS for f in killed)
        return ended and second.token > first.token

    def binds(self, first: Seen, due_ms: int) -> bool:
        """Whether what came so late should have been missed: it was never claimed before (its token says so), and neither
        its target nor the way there can have held it back."""
        hurt = [f for f in self._faults if f.group in ("target", "network")]
        held = any(f.start_ms <= first.at_ms and f.end_ms + f.after_ms + self._recovery_ms >= due_ms for f in hurt)
        return first.token == 1 and first.at_ms - due_ms > UNCLAIMED_MS + self._recovery_ms and not held

    def far(self, instants: Iterable[int]) -> set[int]:
        """The instants at which no fault may have an effect."""
        return {t for t in instants if not self.at(t)}

    def excuses(self, due_ms: int, late_ms: int, came_ms: int, waits: Sequence[tuple[int, float]] = ()) -> bool:
        """Whether faults, or pauses of its job (`waits`), can be why a request arrived so late.

        At each instant from when it was late until it arrived, some fault must have had an effect; and the time in which
        none of them was going on must not be longer than a recovery takes: a request not sent by then is stuck.
        """
        faults = [f for f in self._faults if "late" in f.explains]
        after = max(
            (f.after_ms for f in faults if f.start_ms <= came_ms and f.end_ms + f.after_ms >= due_ms), default=0
        )
        paused = [(low, int(min(high, came_ms))) for low, high in waits]
        healthy = _uncovered(due_ms, came_ms, [(f.start_ms, f.end_ms) for f in faults] + paused)
        spans = self._spans("late") + paused
        return _uncovered(due_ms + late_ms, came_ms, spans) == 0 and healthy <= self._recovery_ms + after


def _uncovered(start: int, end: int, spans: Iterable[tuple[int, int]]) -> int:
    """How much of a time (ms) lies in none of these."""
    left, at = 0, start
    for low, high in sorted(spans):
        if low >= end:
            break
        left += max(0, low - at)
        at = max(at, high)
    return left + max(0, end - at)


class _Missed:
    """Records of what was missed, and whether the faults explain it."""

    def __init__(self, run: Run, effects: _Effects) -> None:
        self._effects = effects
        self._late_ms = run.bounds.late_ms
        self._own = {r.execution: r for r in run.recorded if r.state == "missed"}
        self._ranges: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for r in run.recorded + run.earlier:
            if r.state == "missed" and r.last_ms is not None and r.execution.endswith(":missed"):
                job, first = r.execution.split(":")[:2]
                self._ranges[job].append((int(first), r.last_ms, r.ended_ms))

    def excuses(self, t: Target) -> bool:
        """Whether an occurrence that must not run late was missed, and no node can have been there in time."""
        if t.catch_up == "all":
            return False
        own = self._own.get(t.execution)
        if own is not None:
            stood_ms = own.ended_ms - (t.due_ms - PREFETCH_MS)
            return stood_ms >= UNCLAIMED_MS - EARLY_MS and self._effects.excuses(t.due_ms, self._late_ms, own.ended_ms)
        return any(
            first <= t.due_ms <= last
            and ended - first >= BEHIND_MS - EARLY_MS
            and self._effects.excuses(first, self._late_ms, ended)
            for first, last, ended in self._ranges[t.execution.split(":")[0]]
        )


def _targets(run: Run, by_id: dict[str, list[Seen]], effects: _Effects) -> Iterator[Violation]:
    missed = _Missed(run, effects)
    known = {t.execution: t for t in run.targets}
    for execution, came in by_id.items():
        target = known.get(execution)
        if target is None:
            yield Violation("phantom", f"{execution} was not owed")
        elif target.duty == "must-not":
            yield Violation("phantom", f"{execution} must not have come")
        elif came[0].at_ms < target.due_ms - EARLY_MS:
            yield Violation("early", f"{execution} came {target.due_ms - came[0].at_ms} ms early")
    states = {r.execution: r.state for r in run.recorded}
    waiting = _waiting(run) & set(run.owed)
    for t in run.targets:
        if t.duty == "must" and t.execution not in by_id and t.execution not in waiting:
            if missed.excuses(t):
                continue
            yield Violation("miss", f"{t.execution} never came")
        elif t.duty == "must" and states.get(t.execution, "succeeded") != "succeeded":
            yield Violation("miss", f"{t.execution} was owed, and is recorded as {states[t.execution]}")


def _lateness(run: Run, by_id: dict[str, list[Seen]], effects: _Effects) -> Iterator[Violation]:
    bound = run.bounds.late_ms
    for t in run.targets:
        came = by_id.get(t.execution)
        late = came and came[0].at_ms - t.due_ms > bound
        if came and late and not effects.excuses(t.due_ms, bound, came[0].at_ms, t.waits):
            yield Violation("late", f"{t.execution} came {came[0].at_ms - t.due_ms} ms late, and no fault explains it")
        elif came and t.catch_up == "none" and effects.binds(came[0], t.due_ms):
            yield Violation(
                "late", f"{t.execution} came {came[0].at_ms - t.due_ms} ms late, although its catchUp is none"
            )


def _duplicates(by_id: dict[str, list[Seen]], effects: _Effects) -> Iterator[Violation]:
    for execution, came in by_id.items():
        keys: set[tuple[int, int]] = set()
        before: dict[int, Seen] = {}  # the last arrival of each attempt
        done: Seen | None = None
        newest = 0
        latest: dict[int, tuple[int, int]] = {}  # the least and the greatest token of each attempt
        for s in came:
            low, high = latest.get(s.attempt, (s.token, s.token))
            latest[s.attempt] = (min(low, s.token), max(high, s.token))
            if (s.attempt, s.token) in keys:
                yield Violation("one token", f"{execution} attempt {s.attempt} came twice under token {s.token}")
            elif (
                s.attempt in before
                and s.at_ms - before[s.attempt].at_ms < OWNERS_MS
                and not effects.at(s.at_ms, "stale")
                and not effects.taken_over(before[s.attempt], s)
            ):
                yield Violation("two owners", f"{execution} attempt {s.attempt} came twice in {OWNERS_MS} ms")
            elif (first := before.get(s.attempt, done)) is not None and not (
                # The first request or its answer has to have been lost, and a fault must have an effect when the second arrives.
                effects.lost(first) and effects.at(s.at_ms, "late")
            ):
                yield Violation("duplicate", f"{execution} came again at {s.at_ms}, and no fault explains it")
            elif s.token < newest and not effects.at(s.at_ms, "stale"):
                yield Violation("stale", f"{execution} came under token {s.token} after {newest}")
            keys.add((s.attempt, s.token))
            before[s.attempt] = s
            newest = max(newest, s.token)
            done = s if s.answer.startswith("2") else done
        order = sorted(latest.items())
        for (n, (_, high)), (m, (low, _)) in pairwise(order):
            if low <= high:
                yield Violation("order", f"{execution} attempt {m} has token {low}, attempt {n} has {high}")


def _history(run: Run, by_id: dict[str, list[Seen]], effects: _Effects) -> Iterator[Violation]:
    known = {t.execution for t in run.targets}
    records = {r.execution: r for r in run.recorded}
    if len(records) != len(run.recorded):
        yield Violation("history", "one execution is recorded twice")
    for r in run.recorded:
        came = by_id.get(r.execution, [])
        answers = {(s.attempt, s.token): s.answer for s in came}
        # A job stopped before any leader had looked at it leaves a missed range, named after its first occurrence.
        if r.execution.removesuffix(":missed") not in known:
            yield Violation("phantom", f"history has {r.execution}, which was not owed")
        if r.state == "succeeded" and not any(s.answer.startswith("2") for s in came):
            yield Violation("history", f"{r.execution} is recorded as succeeded, but the receiver never answered so")
        recorded_status = {(number, token): status for number, token, status in r.attempts}
        for (number, token), status in recorded_status.items():
            answered = answers.get((number, token))
            if status is not None and answered != str(status):
                yield Violation(
                    "history", f"{r.execution} attempt {number}/{token}: {status} recorded, {answered} answered"
                )
        for s in came:
            if recorded_status.get((s.attempt, s.token)) is None and s.answer.isdigit() and not effects.lost(s):
                recorded = "no answer" if (s.attempt, s.token) in recorded_status else "nothing"
                yield Violation(
                    "history", f"{r.execution} attempt {s.attempt}/{s.token}: {recorded} recorded, {s.answer} answered"
                )
            elif (s.attempt, s.token) not in recorded_status and not effects.lost(s):
                yield Violation("history", f"{r.execution} attempt {s.attempt}/{s.token} came and is not recorded")
        # Its answer may be lost, and the job changed before it was sent again; nothing else undoes a success.
        lost = r.state == "cancelled" and any(effects.lost(s) for s in came)
        if r.state != "succeeded" and not lost and any(s.answer.startswith("2") for s in came):
            yield Violation("history", f"{r.execution} is recorded as {r.state}, but the receiver accepted it")
    for execution in by_id:
        if execution in known and execution not in records:
            yield Violation("history", f"{execution} came and is not in history")


def _calls(calls: tuple[Call, ...]) -> Iterator[Violation]:
    made: set[str] = set()
    for c in sorted(calls, key=lambda c: c.invoked_ms):
        if c.verb == "create" and c.outcome == "ok":
            made.add(c.job)
        elif c.verb == "delete" and c.outcome != "absent":
            made.discard(c.job)
        elif c.outcome == "absent" and c.job in made:
            yield Violation(
                "lost", f"{c.job} was created, that was acknowledged, and at {c.invoked_ms} there is no such job"
            )


def _leaders(leaders: tuple[Leader, ...]) -> Iterator[Violation]:
    holders: dict[int, str] = {}
    term, cursor, on_it = 0, 0, 0
    for seen in leaders:
        if seen.term < term:
            yield Violation("term", f"term {seen.term} was read after {term}")
        if seen.cursor_ms is not None and seen.cursor_ms < cursor:
            yield Violation("cursor", f"the horizon went back from {cursor} to {seen.cursor_ms}")
        if seen.cursor_term is not None and seen.cursor_term < on_it:
            yield Violation("cursor", f"the horizon went back from term {on_it} to {seen.cursor_term}")
        if seen.holder is not None and holders.setdefault(seen.term, seen.holder) != seen.holder:
            yield Violation("term", f"term {seen.term} had {holders[seen.term]} and {seen.holder}")
        term, cursor, on_it = max(term, seen.term), max(cursor, seen.cursor_ms or 0), max(on_it, seen.cursor_term or 0)


def _waiting(run: Run) -> set[str]:
    """What may wait for a resume that never came."""
    return {t.execution for t in run.targets if any(high == math.inf for _, high in t.waits)}


def _orphans(run: Run) -> Iterator[Violation]:
    """What is due by the end is not owed any more, unless it waits for a resume that never came."""
    waiting = _waiting(run)
    for execution in run.owed:
        if execution not in waiting:
            yield Violation("orphan", f"{execution} is still owed at the end")


def _paused(run: Run, by_id: dict[str, list[Seen]], effects: _Effects) -> Iterator[Violation]:
    """Nothing of a job leaves while it is paused; nothing but calls that were answered, one after the other, says so."""
    calls: defaultdict[str, list[Call]] = defaultdict(list)
    for c in sorted(run.calls, key=lambda c: c.invoked_ms):
        calls[c.job].append(c)
    by_hand = {t.execution for t in run.triggers}
    for execution, came in by_id.items():
        if execution in by_hand:
            continue
        for before, after in pairwise([*calls.get(execution.split(":")[0], ()), None]):
            if before is None or before.verb not in ("pause", "delete") or before.outcome != "ok":
                continue
            low, high = before.answered_ms + PAUSED_MS, math.inf if after is None else after.invoked_ms
            doubtful = any(
                c.outcome != "ok" and c.invoked_ms + UNKNOWN_MS > before.invoked_ms
                for c in calls[before.job]
                if c.invoked_ms < before.invoked_ms
            )
            for s in came:
                if low < s.at_ms < high and not doubtful and not effects.at(s.at_ms, "stale"):
                    yield Violation("paused", f"{execution} came at {s.at_ms}, and its job was stopped before {low}")


def _progress(run: Run, by_id: dict[str, list[Seen]]) -> Iterator[Violation]:
    """Of what is due after the last fault is over, something has come when its recovery is."""
    if not run.faults:
        return
    healed = max(f.end_ms + f.after_ms for f in run.faults)
    until = healed + run.bounds.recovery_ms
    due = [t.execution for t in run.targets if t.duty == "must" and healed <= t.due_ms <= until - run.bounds.late_ms]
    if due and not any(by_id[e][0].at_ms <= until for e in due if e in by_id):
        yield Violation("progress", f"nothing came within {run.bounds.recovery_ms} ms of the last fault's end")
