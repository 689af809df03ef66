"""The evidence of a run as values: occurrences owed, faults, arrivals and records. Pure. All instants are int ms UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Duty = Literal["must", "may", "must-not"]
Effect = Literal["late", "again", "stale"]
Verb = Literal["create", "pause", "resume", "delete", "change"]


@dataclass(frozen=True)
class Target:
    """One occurrence and whether it has to be delivered."""

    execution: str
    due_ms: int
    duty: Duty = "must"
    catch_up: str = "all"
    waits: tuple[tuple[int, float], ...] = ()
    """When its job may have been paused after it was due: until then it waits. Infinite: to the end of the run."""


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

    `ended_ms`: when it became final, by the node's clock. `last_ms`: the last occurrence of a missed range;
    `extended_ms`: when that was moved, if it was."""

    execution: str
    state: str
    attempts: tuple[tuple[int, int, int | None], ...]
    reason: str | None = None
    ended_ms: int = 0
    last_ms: int | None = None
    extended_ms: int | None = None


@dataclass(frozen=True)
class Fault:
    """A fault of the cluster, from its start until it was undone."""

    kind: str
    start_ms: int
    end_ms: int
    after_ms: int = 0
    """How much longer than that of other faults its effect may last, for a known reason."""
    explains: tuple[Effect, ...] = ("late", "again", "stale")
    """The effects that it may have: lateness, a second delivery, an old token after a newer one."""
    group: str = ""
    """Its victims: nodes, members, network or target."""


@dataclass(frozen=True)
class Leader:
    """The leader's lease and the horizon of the steady jobs with the term on it, read at one instant, in that order."""

    at_ms: int
    term: int
    holder: str | None
    cursor_ms: int | None = None
    cursor_term: int | None = None


@dataclass(frozen=True)
class Call:
    """One call of the API about a job that runs every `step` seconds (create and change say which).

    `unknown`: no answer came, it may have been done. `absent`: there is no such job, was the answer.
    """

    verb: Verb
    job: str
    invoked_ms: int
    answered_ms: int
    outcome: Literal["ok", "failed", "unknown", "absent"]
    step: int = 1


@dataclass(frozen=True)
class Trigger:
    """One run asked for by hand, with an idempotency key, until it was answered. `execution`: None if it never was."""

    job: str
    invoked_ms: int
    answered_ms: int
    execution: str | None


@dataclass(frozen=True)
class Posted:
    """One message, posted under one `dedupId` until that was answered. `execution`: None if it never was.

    `cancelled`: whether its cancellation was answered with 204. None: it was asked for, and the answer is unknown.
    """

    invoked_ms: int
    answered_ms: int
    execution: str | None
    cancelled: bool | None = False
    told: bool = False
    """Whether it has both callbacks."""


@dataclass(frozen=True)
class Bounds:
    """`late_ms`: lateness without a fault. `recovery_ms`: how long the effect of a fault may last after its end."""

    late_ms: int = 2000
    recovery_ms: int = 30_000


@dataclass(frozen=True)
class Run:
    """The evidence of one run. `owed`: executions due by its end that the database still owes.

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
    verified: tuple[str, ...] = ()
    """Findings of `horae verify` in the database at the end."""
    span: tuple[int, int] = (0, 0)
    """From which whole second until before which other the run is judged."""
    policies: tuple[tuple[str, str], ...] = ()
    """Jobs whose `catchUp` is not `all`, and what it is."""
    steady: int = 0
    """The number of jobs j0, j1, … that run in every second and are not changed."""
    earlier: tuple[Recorded, ...] = ()
    """Missed ranges that begin before the span."""
    posted: tuple[Posted, ...] = ()
    chained: tuple[tuple[str, str], ...] = ()
    """Jobs that run after any execution of a steady job, each with that."""
    excused: tuple[str, ...] = ()
    """Rules that do not hold in this run."""
