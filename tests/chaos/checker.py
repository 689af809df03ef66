"""The checker of fault runs. Pure: what was seen goes in, what is wrong comes out.

It knows nothing of the engine. It joins what was owed (must, may or must not come), what a receiver logged on its own
clock, what the database says at the end, what was done to the cluster, and who led. All instants are int ms UTC.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Duty = Literal["must", "may", "must-not"]
Verb = Literal["create", "pause", "resume", "delete", "change"]

EARLY_MS = 20
"""Two clocks of one machine, and rounding."""


@dataclass(frozen=True)
class Target:
    """One occurrence and whether it has to be delivered."""

    execution: str
    due_ms: int
    duty: Duty = "must"


@dataclass(frozen=True)
class Seen:
    """One POST as the receiver logged it. `answer`: a status in digits, or `hang`, `reset`, `cut`."""

    execution: str
    attempt: int
    token: int
    at_ms: int
    answer: str = "200"


@dataclass(frozen=True)
class Recorded:
    """A document of `history`. `attempts`: number, token and status (None when no answer came).

    `ended_ms`: when it became final, by the node's clock. `last_ms`: the last occurrence of a missed range."""

    execution: str
    state: str
    attempts: tuple[tuple[int, int, int | None], ...]
    reason: str | None = None
    ended_ms: int = 0
    last_ms: int | None = None


@dataclass(frozen=True)
class Fault:
    """What was done to the cluster, from its start until it was undone. `after_ms`: how much longer it may be felt
    than others, for a reason that is known."""

    kind: str
    start_ms: int
    end_ms: int
    after_ms: int = 0


@dataclass(frozen=True)
class Leader:
    """The leader's lease and the horizon, read at one instant, in the order of reading."""

    at_ms: int
    term: int
    holder: str | None
    cursor_ms: int | None = None


@dataclass(frozen=True)
class Call:
    """One call of the API about a job that runs every `step` seconds (create and change say which).

    `unknown`: no answer came, it may have been done.
    """

    verb: Verb
    job: str
    invoked_ms: int
    answered_ms: int
    outcome: Literal["ok", "failed", "unknown"]
    step: int = 1


@dataclass(frozen=True)
class Trigger:
    """One run asked for by hand, with an idempotency key, until it was answered. `execution`: None if it never was."""

    job: str
    invoked_ms: int
    answered_ms: int
    execution: str | None


@dataclass(frozen=True)
class Bounds:
    """`late_ms`: lateness without a fault. `recovery_ms`: how long after its end a fault may still be felt."""

    late_ms: int = 2000
    recovery_ms: int = 30_000


@dataclass(frozen=True)
class Run:
    """All that is known of one run. `owed`: executions due by its end that the database still owes.

    `calls` and `triggers` are what `targets` follow from (`calls.py`); nothing is judged by them here."""

    targets: tuple[Target, ...]
    seen: tuple[Seen, ...]
    recorded: tuple[Recorded, ...]
    faults: tuple[Fault, ...] = ()
    leaders: tuple[Leader, ...] = ()
    owed: tuple[str, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)
    calls: tuple[Call, ...] = ()
    triggers: tuple[Trigger, ...] = ()


@dataclass(frozen=True)
class Violation:
    """A broken rule, and by what."""

    rule: str
    what: str


def check(run: Run) -> list[Violation]:
    """Every violation of every rule; an empty list is a clean run."""
    by_id: defaultdict[str, list[Seen]] = defaultdict(list)
    for s in sorted(run.seen, key=lambda s: s.at_ms):
        by_id[s.execution].append(s)
    return [
        *_targets(run, by_id),
        *_duplicates(run, by_id),
        *_history(run, by_id),
        *_leaders(run.leaders),
        *_progress(run),
        *(Violation("orphan", f"{execution} is still owed at the end") for execution in run.owed),
    ]


def figures(run: Run) -> dict[str, int]:
    """What a report states: faults, executions audited, deliveries that came again, the longest lateness (ms)."""
    first: dict[str, int] = {}
    again = 0
    for s in sorted(run.seen, key=lambda s: s.at_ms):
        again += s.attempt == 1 and s.execution in first
        first.setdefault(s.execution, s.at_ms)
    must = [t for t in run.targets if t.duty == "must"]
    return {
        "faults": len(run.faults),
        "executions audited": len(must),
        "missing": sum(t.execution not in first for t in must),
        "delivered again": again,
        "longest lateness ms": max((first[t.execution] - t.due_ms for t in must if t.execution in first), default=0),
    }


def _felt(run: Run, at_ms: int) -> bool:
    """Whether an instant lies in a fault or in the time its recovery is given."""
    return any(f.start_ms <= at_ms <= f.end_ms + f.after_ms + run.bounds.recovery_ms for f in run.faults)


FORGONE = frozenset({"cancelled", "skipped", "missed"})


def _targets(run: Run, by_id: dict[str, list[Seen]]) -> Iterator[Violation]:
    known = {t.execution: t for t in run.targets}
    for execution, came in by_id.items():
        target = known.get(execution)
        if target is None:
            yield Violation("phantom", f"nobody owed {execution}")
        elif target.duty == "must-not":
            yield Violation("phantom", f"{execution} must not have come")
        elif came[0].at_ms < target.due_ms - EARLY_MS:
            yield Violation("early", f"{execution} came {target.due_ms - came[0].at_ms} ms early")
        elif came[0].at_ms - target.due_ms > run.bounds.late_ms and not _felt(run, came[0].at_ms):
            yield Violation("late", f"{execution} came {came[0].at_ms - target.due_ms} ms late, far from any fault")
    forgone = {r.execution: r.state for r in run.recorded if r.state in FORGONE}
    for t in run.targets:
        if t.duty == "must" and t.execution not in by_id:
            yield Violation("miss", f"{t.execution} never came")
        elif t.duty == "must" and t.execution in forgone:
            yield Violation("miss", f"{t.execution} was owed, and is recorded as {forgone[t.execution]}")


def _duplicates(run: Run, by_id: dict[str, list[Seen]]) -> Iterator[Violation]:
    for execution, came in by_id.items():
        keys: set[tuple[int, int]] = set()
        numbers: set[int] = set()
        done = False
        newest = 0
        latest: dict[int, tuple[int, int]] = {}  # the least and the greatest token of each attempt
        for s in came:
            low, high = latest.get(s.attempt, (s.token, s.token))
            latest[s.attempt] = (min(low, s.token), max(high, s.token))
            if (s.attempt, s.token) in keys:
                yield Violation("one token", f"{execution} attempt {s.attempt} came twice under token {s.token}")
            elif (s.attempt in numbers or done) and not _felt(run, s.at_ms):
                yield Violation("duplicate", f"{execution} came again at {s.at_ms}, and no fault explains it")
            elif s.token < newest and not _felt(run, s.at_ms):
                yield Violation("stale", f"{execution} came under token {s.token} after {newest}")
            keys.add((s.attempt, s.token))
            numbers.add(s.attempt)
            newest = max(newest, s.token)
            done = done or s.answer.startswith("2")
        order = sorted(latest.items())
        for (n, (_, before)), (m, (after, _)) in pairwise(order):
            if after <= before:
                yield Violation("order", f"{execution} attempt {m} has token {after}, attempt {n} has {before}")


def _history(run: Run, by_id: dict[str, list[Seen]]) -> Iterator[Violation]:
    known = {t.execution for t in run.targets}
    records = {r.execution: r for r in run.recorded}
    if len(records) != len(run.recorded):
        yield Violation("history", "one execution is recorded twice")
    for r in run.recorded:
        came = by_id.get(r.execution, [])
        answers = {(s.attempt, s.token): s.answer for s in came}
        # A job stopped before any leader had looked at it leaves a missed range, named after its first occurrence.
        if r.execution.removesuffix(":missed") not in known:
            yield Violation("phantom", f"history has {r.execution}, which nobody owed")
        if r.state == "succeeded" and not any(s.answer.startswith("2") for s in came):
            yield Violation("history", f"{r.execution} is recorded as succeeded, but the receiver never said so")
        for number, token, status in r.attempts:
            if status is not None and answers.get((number, token)) != str(status):
                said = answers.get((number, token))
                yield Violation(
                    "history", f"{r.execution} attempt {number}/{token}: {status} recorded, {said} answered"
                )
        if r.state != "succeeded" and any(s.answer.startswith("2") and not _felt(run, s.at_ms) for s in came):
            yield Violation("history", f"{r.execution} is recorded as {r.state}, but the receiver accepted it")
    for execution in by_id:
        if execution in known and execution not in records:
            yield Violation("history", f"{execution} came and is not in history")


def _leaders(leaders: tuple[Leader, ...]) -> Iterator[Violation]:
    holders: dict[int, str] = {}
    term, cursor = 0, 0
    for seen in leaders:
        if seen.term < term:
            yield Violation("term", f"term {seen.term} was read after {term}")
        if seen.cursor_ms is not None and seen.cursor_ms < cursor:
            yield Violation("cursor", f"the horizon went back from {cursor} to {seen.cursor_ms}")
        if seen.holder is not None and holders.setdefault(seen.term, seen.holder) != seen.holder:
            yield Violation("term", f"term {seen.term} had {holders[seen.term]} and {seen.holder}")
        term, cursor = max(term, seen.term), max(cursor, seen.cursor_ms or 0)


def _progress(run: Run) -> Iterator[Violation]:
    if not run.faults:
        return
    healed = max(f.end_ms + f.after_ms for f in run.faults)
    until = healed + run.bounds.recovery_ms
    if any(t.duty == "must" and healed <= t.due_ms <= until - run.bounds.late_ms for t in run.targets) and not any(
        healed <= s.at_ms <= until for s in run.seen
    ):
        yield Violation("progress", f"nothing came within {run.bounds.recovery_ms} ms of the last fault's end")
