"""Alerts decided with values: when something begins, when it is over, what is said.

An incident is one trouble of one job, from its beginning to its end. There is at most one of a kind open:

| kind | begins | is over |
|---|---|---|
| failing | an execution is dead (`onDead`), or N in a row failed or are dead (`afterFailures`) | the latest one succeeded |
| missed | occurrences were recorded as missed (`onMissed`) | a later one succeeded |
| drift | a first attempt left too late (`driftOverMs`) | for a minute none did, and the latest one was in time |
| noRun | nothing has succeeded for too long (`noRunForSeconds`) | something succeeds |

That of a job that has ended (it ran for the last time) is over without a word when history holds nothing more of the
job: until then its executions may be retried. Incidents of jobs that do not run are looked at ever less often.

Of each incident there is one alert when it begins, one when it is over (`onRecovery`), and one every
`remindAfterSeconds` between. What an alert says and its id follow from the incident, so that making it twice makes one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cluster.core.instants import render
from cluster.core.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

QUIET_MS = 60_000
PAUSED_MOST_MS, ENDED_MOST_MS = 60_000, 600_000
"""The incident of a job that does not run is looked at again after a tenth of its age, at most after so long."""
BAD = frozenset({State.FAILED.value, State.DEAD.value})
SENT = BAD | {State.SUCCEEDED.value}
"""States that say how a target did."""
ALERT_PREFIX = "alert."
"""Job ids of alerts begin so; those that users choose cannot hold a dot."""


class Kind(StrEnum):
    """What can be wrong."""

    FAILING = "failing"
    MISSED = "missed"
    DRIFT = "drift"
    NO_RUN = "noRun"


class Said(StrEnum):
    """What an alert tells of its incident."""

    BEGAN = "began"
    REMINDER = "reminder"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Rules:
    """Whom to tell, and of what. Durations in ms."""

    channels: tuple[str, ...] = ()
    on_dead: bool = False
    after_failures: int | None = None
    on_missed: bool = False
    drift_over_ms: int | None = None
    no_run_ms: int | None = None
    on_recovery: bool = True
    remind_ms: int | None = None

    def of(self, kind: Kind) -> bool:
        """Whether there is a rule of this kind."""
        return {
            Kind.FAILING: self.on_dead or self.after_failures is not None,
            Kind.MISSED: self.on_missed,
            Kind.DRIFT: self.drift_over_ms is not None,
            Kind.NO_RUN: self.no_run_ms is not None,
        }[kind] and bool(self.channels)


@dataclass(frozen=True, slots=True)
class Watch:
    """What whoever records results must know of the rules of a job: whether its bad results are to be marked, and from
    which lateness (ms) on its good ones.
    """

    marks: bool = False
    drift_over_ms: int | None = None


NOT_WATCHED = Watch()


def watch(rules: Rules) -> Watch:
    """The part of the rules that those who record need."""
    if not rules.channels:
        return NOT_WATCHED
    return Watch(rules.of(Kind.FAILING) or rules.on_missed, rules.drift_over_ms)


def marked(watched: Watch, state: State, drift_ms: int | None) -> bool:
    """Whether this result is one that alerts are decided on."""
    if watched.marks and state.value in BAD:
        return True
    return watched.drift_over_ms is not None and drift_ms is not None and drift_ms > watched.drift_over_ms


@dataclass(frozen=True, slots=True)
class Result:
    """A final execution, or a missed range (`count` occurrences), as alerts see it."""

    id: str
    job_id: str
    state: str
    ended_ms: int
    drift_ms: int | None = None
    why: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """What may still come of a job: `active` if it runs, `ended` if it never will by itself, `forgotten` if history
    holds nothing of it either, so that nobody can retry it.
    """

    active: bool = True
    ended: bool = False
    forgotten: bool = False


RUNS = Standing()


@dataclass(frozen=True, slots=True)
class Trouble:
    """A reason to open an incident, or to keep it open."""

    kind: Kind
    at_ms: int
    detail: str
    execution: str | None = None


def troubles(rules: Rules, marks: Sequence[Result], latest: Sequence[Result]) -> list[Trouble]:
    """What marked results of one job mean. `latest` are its latest sent ones, the newest first, as many as
    `afterFailures` needs.
    """
    found: list[Trouble] = []
    bad = [r for r in marks if r.state in BAD]
    dead = [r for r in bad if r.state == State.DEAD.value]
    if rules.on_dead and dead:
        last = max(dead, key=lambda r: r.ended_ms)
        found.append(Trouble(Kind.FAILING, last.ended_ms, f"an execution is dead: {last.why or 'no answer'}", last.id))
    elif rules.after_failures is not None and bad:
        run = _in_a_row(latest)
        if run >= rules.after_failures:
            last = max(bad, key=lambda r: r.ended_ms)
            many = "an execution" if run == 1 else f"{run} executions in a row"
            found.append(Trouble(Kind.FAILING, last.ended_ms, f"{many} failed: {last.why or 'no answer'}", last.id))
    missed = [r for r in marks if r.state == State.MISSED.value]
    if rules.on_missed and missed:
        last = max(missed, key=lambda r: r.ended_ms)
        total = sum(r.count for r in missed)
        found.append(Trouble(Kind.MISSED, last.ended_ms, f"{total} occurrence(s) were missed: {last.why}", last.id))
    budget = rules.drift_over_ms
    late = [r for r in marks if budget is not None and r.drift_ms is not None and r.drift_ms > budget]
    if late:
        worst = max(late, key=lambda r: r.drift_ms or 0)
        at = max(r.ended_ms for r in late)
        text = f"sent {worst.drift_ms} ms late, {budget} are allowed"
        found.append(Trouble(Kind.DRIFT, at, text, worst.id))
    return [t for t in found if rules.of(t.kind)]


def _in_a_row(latest: Sequence[Result]) -> int:
    for n, r in enumerate(latest):
        if r.state not in BAD:
            return n
    return len(latest)


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that is to be said of the incident that began at `since_ms`, to these channels."""

    said: Said
    number: int
    at_ms: int
    channels: tuple[str, ...]
    since_ms: int
    detail: str
    execution: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """One trouble. `bad_ms`: when it was last seen; `told_ms`: when it was last told; `number`: of the last notice;
    `checked_ms`: when it was last looked at, and later than that if the next look may wait.
    """

    job_id: str
    kind: Kind
    open: bool
    opened_ms: int
    bad_ms: int
    detail: str
    execution: str | None = None
    told_ms: int = 0
    checked_ms: int = 0
    closed_ms: int | None = None
    number: int = 0
    unsent: tuple[Notice, ...] = ()
    rev: int = 0

    @property
    def id(self) -> str:
        """The place it is kept under; a later one of the same kind takes it over."""
        return f"{self.job_id}:{self.kind.value}"

    def job_of(self, notice: Notice, channel: str) -> str:
        """The id of the job that tells one channel; the same whoever makes it, however often."""
        name = f"{self.id}:{notice.since_ms}:{notice.number}:{channel}"
        return ALERT_PREFIX + hashlib.sha256(name.encode()).hexdigest()[:24]


def seen(before: Incident | None, job_id: str, trouble: Trouble, rules: Rules, now_ms: int) -> Incident | None:
    """What the incident becomes when its trouble is seen (again). None: nothing changes.

    A result that was looked at before (by a leader that died before it said so) changes nothing.
    """
    if before is not None and trouble.at_ms <= before.bad_ms:
        return None
    if before is not None and before.open:
        return replace(before, bad_ms=trouble.at_ms, detail=trouble.detail, execution=trouble.execution)
    unsent = () if before is None else before.unsent  # the end of the one before may not have been said yet
    began = Notice(Said.BEGAN, 0, now_ms, rules.channels, now_ms, trouble.detail, trouble.execution)
    return Incident(
        job_id,
        trouble.kind,
        open=True,
        opened_ms=now_ms,
        bad_ms=trouble.at_ms,
        detail=trouble.detail,
        execution=trouble.execution,
        told_ms=now_ms,
        checked_ms=now_ms,
        unsent=(*unsent, began),
        rev=0 if before is None else before.rev,
    )


def over(incident: Incident, rules: Rules | None, latest: Result | None, now_ms: int) -> bool:
    """Whether it has ended. `latest` is the latest sent execution of the job, for a silence the latest success within
    `no_run_ms`; no rules: nobody wants to know any more.
    """
    if rules is None or not rules.of(incident.kind):
        return True
    if latest is None or latest.state != State.SUCCEEDED.value:
        return False
    if incident.kind is Kind.NO_RUN:
        # Not by `bad_ms`, which is when the leader looked: a success may have ended before and been recorded after.
        return True
    if latest.ended_ms <= incident.bad_ms:
        return False
    if incident.kind is not Kind.DRIFT:
        return True
    in_time = latest.drift_ms is None or latest.drift_ms <= (rules.drift_over_ms or 0)
    return in_time and now_ms - incident.bad_ms >= QUIET_MS


def checked(
    incident: Incident, rules: Rules | None, latest: Result | None, now_ms: int, job: Standing = RUNS
) -> Incident:
    """The incident after a look at its job."""
    if job.ended and job.forgotten:
        return replace(incident, open=False, closed_ms=now_ms, checked_ms=now_ms)
    if over(incident, rules, latest, now_ms):
        tell = rules is not None and rules.of(incident.kind) and rules.on_recovery
        said = _say(incident, Said.OVER, rules.channels, now_ms) if tell and rules is not None else incident
        return replace(said, open=False, closed_ms=now_ms, checked_ms=now_ms)
    again = rules is not None and rules.remind_ms is not None and now_ms - incident.told_ms >= rules.remind_ms
    if again and job.active and rules is not None:
        incident = _say(incident, Said.REMINDER, rules.channels, now_ms)
    # What does not run must not keep others waiting for their turn, however much of it there is.
    most = 0 if job.active else ENDED_MOST_MS if job.ended else PAUSED_MOST_MS
    return replace(incident, checked_ms=now_ms + min(most, (now_ms - incident.opened_ms) // 10))


def _say(incident: Incident, said: Said, channels: tuple[str, ...], now_ms: int) -> Incident:
    i = incident
    notice = Notice(said, i.number + 1, now_ms, channels, i.opened_ms, i.detail, i.execution)
    return replace(incident, number=notice.number, told_ms=now_ms, unsent=(*incident.unsent, notice))


def payload(incident: Incident, notice: Notice, job_name: str | None) -> dict[str, Any]:
    """What a webhook gets."""
    return {
        "type": f"{incident.kind.value}.{notice.said.value}",
        "jobId": incident.job_id,
        "jobName": job_name,
        "kind": incident.kind.value,
        "said": notice.said.value,
        "detail": notice.detail,
        "executionId": notice.execution,
        "since": render(notice.since_ms),
        "at": render(notice.at_ms),
        "text": sentence(incident, notice, job_name),
    }


def sentence(incident: Incident, notice: Notice, job_name: str | None) -> str:
    """The same in words, one line."""
    job = f"{job_name} ({incident.job_id})" if job_name else incident.job_id
    what = {
        Kind.FAILING: "is failing",
        Kind.MISSED: "missed runs",
        Kind.DRIFT: "runs late",
        Kind.NO_RUN: "has not run",
    }[incident.kind]
    since = render(notice.since_ms)
    if notice.said is Said.OVER:
        return f"Over: job {job} is well again; it had been wrong since {since} ({notice.detail})"
    still = "still " if notice.said is Said.REMINDER else ""
    return f"Job {job} {still}{what} since {since}: {notice.detail}"


def grouped(marks: Iterable[Result]) -> dict[str, list[Result]]:
    """By job."""
    found: dict[str, list[Result]] = {}
    for r in marks:
        found.setdefault(r.job_id, []).append(r)
    return found
