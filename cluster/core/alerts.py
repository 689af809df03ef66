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

from cluster.core.instants import format_instant
from cluster.core.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DRIFT_QUIET_MS = 60_000
MAX_RECHECK_PAUSED_MS, MAX_RECHECK_ENDED_MS = 60_000, 600_000
"""The incident of a job that does not run is looked at again after a tenth of its age, at most after so long."""
FAILED_STATES = frozenset({State.FAILED.value, State.DEAD.value})
SENT_STATES = FAILED_STATES | {State.SUCCEEDED.value}
"""States that say how a target did."""
ALERT_PREFIX = "alert."
"""Job ids of alerts begin so; those that users choose cannot hold a dot."""


class IncidentKind(StrEnum):
    """What can be wrong."""

    FAILING = "failing"
    MISSED = "missed"
    DRIFT = "drift"
    NO_RUN = "noRun"


class NoticeKind(StrEnum):
    """What an alert tells of its incident."""

    BEGAN = "began"
    REMINDER = "reminder"
    RESOLVED = "over"


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Whom to tell, and of what. Durations in ms."""

    channels: tuple[str, ...] = ()
    on_dead: bool = False
    after_failures: int | None = None
    on_missed: bool = False
    drift_over_ms: int | None = None
    no_run_ms: int | None = None
    on_recovery: bool = True
    remind_ms: int | None = None

    def covers(self, kind: IncidentKind) -> bool:
        """Whether there is a rule of this kind."""
        return {
            IncidentKind.FAILING: self.on_dead or self.after_failures is not None,
            IncidentKind.MISSED: self.on_missed,
            IncidentKind.DRIFT: self.drift_over_ms is not None,
            IncidentKind.NO_RUN: self.no_run_ms is not None,
        }[kind] and bool(self.channels)


@dataclass(frozen=True, slots=True)
class ResultWatch:
    """What whoever records results must know of the rules of a job: whether its bad results are to be marked, and from
    which lateness (ms) on its good ones.
    """

    failures: bool = False
    drift_over_ms: int | None = None


NOT_WATCHED = ResultWatch()


def watch_of(rules: AlertRules) -> ResultWatch:
    """The part of the rules that those who record need."""
    if not rules.channels:
        return NOT_WATCHED
    return ResultWatch(rules.covers(IncidentKind.FAILING) or rules.on_missed, rules.drift_over_ms)


def is_watched(watched: ResultWatch, state: State, drift_ms: int | None) -> bool:
    """Whether this result is one that alerts are decided on."""
    if watched.failures and state.value in FAILED_STATES:
        return True
    return watched.drift_over_ms is not None and drift_ms is not None and drift_ms > watched.drift_over_ms


@dataclass(frozen=True, slots=True)
class RecordedResult:
    """A final execution, or a missed range (`count` occurrences), as alerts see it."""

    id: str
    job_id: str
    state: str
    ended_ms: int
    drift_ms: int | None = None
    why: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class JobStanding:
    """What may still come of a job: `active` if it runs, `ended` if it never will by itself, `forgotten` if history
    holds nothing of it either, so that nobody can retry it.
    """

    active: bool = True
    ended: bool = False
    forgotten: bool = False


ACTIVE = JobStanding()


@dataclass(frozen=True, slots=True)
class Symptom:
    """A reason to open an incident, or to keep it open."""

    kind: IncidentKind
    at_ms: int
    detail: str
    execution: str | None = None


def symptoms(rules: AlertRules, marks: Sequence[RecordedResult], latest: Sequence[RecordedResult]) -> list[Symptom]:
    """What marked results of one job mean. `latest` are its latest sent ones, the newest first, as many as
    `afterFailures` needs.
    """
    found: list[Symptom] = []
    bad = [r for r in marks if r.state in FAILED_STATES]
    dead = [r for r in bad if r.state == State.DEAD.value]
    if rules.on_dead and dead:
        last = max(dead, key=lambda r: r.ended_ms)
        found.append(
            Symptom(IncidentKind.FAILING, last.ended_ms, f"an execution is dead: {last.why or 'no answer'}", last.id)
        )
    elif rules.after_failures is not None and bad:
        run = _in_a_row(latest)
        if run >= rules.after_failures:
            last = max(bad, key=lambda r: r.ended_ms)
            many = "an execution" if run == 1 else f"{run} executions in a row"
            found.append(
                Symptom(IncidentKind.FAILING, last.ended_ms, f"{many} failed: {last.why or 'no answer'}", last.id)
            )
    missed = [r for r in marks if r.state == State.MISSED.value]
    if rules.on_missed and missed:
        last = max(missed, key=lambda r: r.ended_ms)
        total = sum(r.count for r in missed)
        found.append(
            Symptom(IncidentKind.MISSED, last.ended_ms, f"{total} occurrence(s) were missed: {last.why}", last.id)
        )
    budget = rules.drift_over_ms
    late = [r for r in marks if budget is not None and r.drift_ms is not None and r.drift_ms > budget]
    if late:
        worst = max(late, key=lambda r: r.drift_ms or 0)
        at = max(r.ended_ms for r in late)
        text = f"sent {worst.drift_ms} ms late, {budget} are allowed"
        found.append(Symptom(IncidentKind.DRIFT, at, text, worst.id))
    return [t for t in found if rules.covers(t.kind)]


def _in_a_row(latest: Sequence[RecordedResult]) -> int:
    for n, r in enumerate(latest):
        if r.state not in FAILED_STATES:
            return n
    return len(latest)


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that is to be said of the incident that began at `since_ms`, to these channels."""

    kind: NoticeKind
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
    kind: IncidentKind
    open: bool
    opened_ms: int
    last_symptom_ms: int
    detail: str
    execution: str | None = None
    notified_ms: int = 0
    checked_ms: int = 0
    closed_ms: int | None = None
    number: int = 0
    pending_notices: tuple[Notice, ...] = ()
    rev: int = 0

    @property
    def id(self) -> str:
        """The place it is kept under; a later one of the same kind takes it over."""
        return f"{self.job_id}:{self.kind.value}"

    def notice_job_id(self, notice: Notice, channel: str) -> str:
        """The id of the job that tells one channel; the same whoever makes it, however often."""
        name = f"{self.id}:{notice.since_ms}:{notice.number}:{channel}"
        return ALERT_PREFIX + hashlib.sha256(name.encode()).hexdigest()[:24]


def with_symptom(
    before: Incident | None, job_id: str, trouble: Symptom, rules: AlertRules, now_ms: int
) -> Incident | None:
    """What the incident becomes when its trouble is seen (again). None: nothing changes.

    A result that was looked at before (by a leader that died before it said so) changes nothing.
    """
    if before is not None and trouble.at_ms <= before.last_symptom_ms:
        return None
    if before is not None and before.open:
        return replace(before, last_symptom_ms=trouble.at_ms, detail=trouble.detail, execution=trouble.execution)
    unsent = () if before is None else before.pending_notices  # the end of the one before may not have been said yet
    began = Notice(NoticeKind.BEGAN, 0, now_ms, rules.channels, now_ms, trouble.detail, trouble.execution)
    return Incident(
        job_id,
        trouble.kind,
        open=True,
        opened_ms=now_ms,
        last_symptom_ms=trouble.at_ms,
        detail=trouble.detail,
        execution=trouble.execution,
        notified_ms=now_ms,
        checked_ms=now_ms,
        pending_notices=(*unsent, began),
        rev=0 if before is None else before.rev,
    )


def is_over(incident: Incident, rules: AlertRules | None, latest: RecordedResult | None, now_ms: int) -> bool:
    """Whether it has ended. `latest` is the latest sent execution of the job, for a silence the latest success within
    `no_run_ms`; no rules: nobody wants to know any more.
    """
    if rules is None or not rules.covers(incident.kind):
        return True
    if latest is None or latest.state != State.SUCCEEDED.value:
        return False
    if incident.kind is IncidentKind.NO_RUN:
        # Not by `bad_ms`, which is when the leader looked: a success may have ended before and been recorded after.
        return True
    if latest.ended_ms <= incident.last_symptom_ms:
        return False
    if incident.kind is not IncidentKind.DRIFT:
        return True
    in_time = latest.drift_ms is None or latest.drift_ms <= (rules.drift_over_ms or 0)
    return in_time and now_ms - incident.last_symptom_ms >= DRIFT_QUIET_MS


def after_check(
    incident: Incident, rules: AlertRules | None, latest: RecordedResult | None, now_ms: int, job: JobStanding = ACTIVE
) -> Incident:
    """The incident after a look at its job."""
    if job.ended and job.forgotten:
        return replace(incident, open=False, closed_ms=now_ms, checked_ms=now_ms)
    if is_over(incident, rules, latest, now_ms):
        tell = rules is not None and rules.covers(incident.kind) and rules.on_recovery
        said = _say(incident, NoticeKind.RESOLVED, rules.channels, now_ms) if tell and rules is not None else incident
        return replace(said, open=False, closed_ms=now_ms, checked_ms=now_ms)
    again = rules is not None and rules.remind_ms is not None and now_ms - incident.notified_ms >= rules.remind_ms
    if again and job.active and rules is not None:
        incident = _say(incident, NoticeKind.REMINDER, rules.channels, now_ms)
    # What does not run must not keep others waiting for their turn, however much of it there is.
    most = 0 if job.active else MAX_RECHECK_ENDED_MS if job.ended else MAX_RECHECK_PAUSED_MS
    return replace(incident, checked_ms=now_ms + min(most, (now_ms - incident.opened_ms) // 10))


def _say(incident: Incident, said: NoticeKind, channels: tuple[str, ...], now_ms: int) -> Incident:
    i = incident
    notice = Notice(said, i.number + 1, now_ms, channels, i.opened_ms, i.detail, i.execution)
    return replace(
        incident, number=notice.number, notified_ms=now_ms, pending_notices=(*incident.pending_notices, notice)
    )


def webhook_payload(incident: Incident, notice: Notice, job_name: str | None) -> dict[str, Any]:
    """What a webhook gets."""
    return {
        "type": f"{incident.kind.value}.{notice.kind.value}",
        "jobId": incident.job_id,
        "jobName": job_name,
        "kind": incident.kind.value,
        "said": notice.kind.value,
        "detail": notice.detail,
        "executionId": notice.execution,
        "since": format_instant(notice.since_ms),
        "at": format_instant(notice.at_ms),
        "text": notice_text(incident, notice, job_name),
    }


def notice_text(incident: Incident, notice: Notice, job_name: str | None) -> str:
    """The same in words, one line."""
    job = f"{job_name} ({incident.job_id})" if job_name else incident.job_id
    what = {
        IncidentKind.FAILING: "is failing",
        IncidentKind.MISSED: "missed runs",
        IncidentKind.DRIFT: "runs late",
        IncidentKind.NO_RUN: "has not run",
    }[incident.kind]
    since = format_instant(notice.since_ms)
    if notice.kind is NoticeKind.RESOLVED:
        return f"Over: job {job} is well again; it had been wrong since {since} ({notice.detail})"
    still = "still " if notice.kind is NoticeKind.REMINDER else ""
    return f"Job {job} {still}{what} since {since}: {notice.detail}"


def by_job(marks: Iterable[RecordedResult]) -> dict[str, list[RecordedResult]]:
    """By job."""
    found: dict[str, list[RecordedResult]] = {}
    for r in marks:
        found.setdefault(r.job_id, []).append(r)
    return found
