"""Alerts, decided with values: when an incident begins, when it is over, and which notices it has.

A job has at most one open incident of each kind:

| kind | begins when | is over when |
|---|---|---|
| failing | an execution is dead (`onDead`), or N in a row failed or are dead (`afterFailures`) | the latest one succeeded |
| missed | occurrences were recorded as missed (`onMissed`) | a later one succeeded |
| drift | a first attempt was sent too late (`driftOverMs`) | none was for a minute, and the latest one was in time |
| noRun | no execution has succeeded for too long (`noRunForSeconds`) | an execution succeeds |

The incident of a job that has ended is over, without a notice, once history holds no execution of the job; until then an
execution may be replayed. Incidents of jobs that are not active are checked less and less often.

Each incident has one notice when it begins, one when it is over (`onRecovery`), and one every `remindAfterSeconds` in
between. The text and the id of a notice follow from the incident, so that making a notice twice makes one alert. Which
of them are sent, and to which channels: `incident_notices.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from cluster.core.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DRIFT_QUIET_MS = 60_000
MAX_RECHECK_PAUSED_MS, MAX_RECHECK_ENDED_MS = 60_000, 600_000
"""The incident of a job that is not active is checked again after a tenth of its age, at most after this."""
FAILED_STATES = frozenset({State.FAILED.value, State.DEAD.value})
SENT_STATES = FAILED_STATES | {State.SUCCEEDED.value}
"""The final states of an execution that was sent."""
ALERT_PREFIX = "alert."
"""The start of the ids of alert jobs. Ids that users choose cannot contain a dot."""


class IncidentKind(StrEnum):
    """The kind of an incident."""

    FAILING = "failing"
    MISSED = "missed"
    DRIFT = "drift"
    NO_RUN = "noRun"


class NoticeKind(StrEnum):
    """The event in the life of an incident that a notice reports."""

    BEGAN = "began"
    REMINDER = "reminder"
    RESOLVED = "over"


@dataclass(frozen=True, slots=True)
class AlertRules:
    """The channels to notify, and the incidents to notify them of. Durations in ms."""

    channels: tuple[str, ...] = ()
    on_dead: bool = False
    after_failures: int | None = None
    on_missed: bool = False
    drift_over_ms: int | None = None
    no_run_ms: int | None = None
    on_recovery: bool = True
    remind_ms: int | None = None

    def covers(self, kind: IncidentKind) -> bool:
        """Whether there is a rule for incidents of this kind, and a channel."""
        return {
            IncidentKind.FAILING: self.on_dead or self.after_failures is not None,
            IncidentKind.MISSED: self.on_missed,
            IncidentKind.DRIFT: self.drift_over_ms is not None,
            IncidentKind.NO_RUN: self.no_run_ms is not None,
        }[kind] and bool(self.channels)


@dataclass(frozen=True, slots=True)
class ResultWatch:
    """The part of a job's rules that a worker needs when it records a result: whether the rules need its failures, and
    from which drift (ms) on they need any result.
    """

    failures: bool = False
    drift_over_ms: int | None = None


NOT_WATCHED = ResultWatch()


def watch_of(rules: AlertRules) -> ResultWatch:
    """The part of the rules that a worker needs."""
    if not rules.channels:
        return NOT_WATCHED
    return ResultWatch(rules.covers(IncidentKind.FAILING) or rules.on_missed, rules.drift_over_ms)


def is_watched(watch: ResultWatch, state: State, drift_ms: int | None) -> bool:
    """Whether the rules need this result."""
    if watch.failures and state.value in FAILED_STATES:
        return True
    return watch.drift_over_ms is not None and drift_ms is not None and drift_ms > watch.drift_over_ms


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
    """Whether a job can still succeed. `active`: its schedule runs. `ended`: its schedule is over. `forgotten`: history
    holds no execution of it, so that none can be replayed.
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


def symptoms(rules: AlertRules, pending: Sequence[RecordedResult], latest: Sequence[RecordedResult]) -> list[Symptom]:
    """The symptoms in the pending results of one job. `latest` are its latest sent results, the newest first, as many
    as `afterFailures` needs.
    """
    failure, budget = _failure(rules, pending, latest), rules.drift_over_ms
    result = [] if failure is None else [failure]
    missed = [r for r in pending if r.state == State.MISSED.value]
    if rules.on_missed and missed:
        last = max(missed, key=lambda r: r.ended_ms)
        count = sum(r.count for r in missed)
        many = "1 occurrence was" if count == 1 else f"{count} occurrences were"
        result.append(Symptom(IncidentKind.MISSED, last.ended_ms, f"{many} missed: {last.why}", last.id))
    late = [r for r in pending if budget is not None and r.drift_ms is not None and r.drift_ms > budget]
    if late:
        worst = max(late, key=lambda r: r.drift_ms or 0)
        at = max(r.ended_ms for r in late)
        text = f"an execution was sent {worst.drift_ms} ms late, driftOverMs is {budget}"
        result.append(Symptom(IncidentKind.DRIFT, at, text, worst.id))
    return [s for s in result if rules.covers(s.kind)]


def _failure(rules: AlertRules, pending: Sequence[RecordedResult], latest: Sequence[RecordedResult]) -> Symptom | None:
    failed = [r for r in pending if r.state in FAILED_STATES]
    dead = [r for r in failed if r.state == State.DEAD.value]
    if rules.on_dead and dead:
        last = max(dead, key=lambda r: r.ended_ms)
        text = f"an execution is dead: {last.why or 'no answer'}"
    elif rules.after_failures is not None and failed and (row := _failures_in_a_row(latest)) >= rules.after_failures:
        last = max(failed, key=lambda r: r.ended_ms)
        text = f"{'an execution' if row == 1 else f'{row} executions in a row'} failed: {last.why or 'no answer'}"
    else:
        return None
    return Symptom(IncidentKind.FAILING, last.ended_ms, text, last.id)


def _failures_in_a_row(latest: Sequence[RecordedResult]) -> int:
    for n, r in enumerate(latest):
        if r.state not in FAILED_STATES:
            return n
    return len(latest)


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to these channels about the incident that began at `since_ms`.

    `committed`: it is to be sent, whatever happens from now on. Its alert jobs may exist already.
    """

    kind: NoticeKind
    number: int
    at_ms: int
    channels: tuple[str, ...]
    since_ms: int
    detail: str
    execution: str | None = None
    committed: bool = False


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident of one job.

    `last_symptom_ms`: the time of its latest symptom. `notified_ms`: the time of its latest notice, and `number` the
    number of that notice. `checked_ms`: when it was last checked, or a later instant if the next check may wait.
    `notified`: the channels that a notice of its beginning, or a reminder, is committed to. None: not known, because a
    node of an earlier release wrote it.
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
    notified: tuple[str, ...] | None = ()
    rev: int = 0

    @property
    def id(self) -> str:
        """The id under which it is stored. A later incident of the same job and kind replaces it."""
        return f"{self.job_id}:{self.kind.value}"

    def notice_job_id(self, notice: Notice, channel: str) -> str:
        """The id of the alert job that notifies one channel. It is the same however often and wherever it is made."""
        name = f"{self.id}:{notice.since_ms}:{notice.number}:{channel}"
        return ALERT_PREFIX + hashlib.sha256(name.encode()).hexdigest()[:24]


def with_symptom(
    before: Incident | None, job_id: str, symptom: Symptom, rules: AlertRules, now_ms: int
) -> Incident | None:
    """The incident after a symptom: opened, or updated. None: nothing changes.

    A symptom that is not newer than the latest one changes nothing: a leader that died may have handled it already.
    """
    if before is not None and symptom.at_ms <= before.last_symptom_ms:
        return None
    if before is not None and before.open:
        return replace(before, last_symptom_ms=symptom.at_ms, detail=symptom.detail, execution=symptom.execution)
    began = Notice(
        kind=NoticeKind.BEGAN,
        number=0,
        at_ms=now_ms,
        channels=rules.channels,
        since_ms=now_ms,
        detail=symptom.detail,
        execution=symptom.execution,
    )
    # The incident before this one may still have a notice that was not submitted, that of its end.
    pending = () if before is None else before.pending_notices
    return Incident(
        job_id=job_id,
        kind=symptom.kind,
        open=True,
        opened_ms=now_ms,
        last_symptom_ms=symptom.at_ms,
        detail=symptom.detail,
        execution=symptom.execution,
        notified_ms=now_ms,
        checked_ms=now_ms,
        pending_notices=(*pending, began),
        rev=0 if before is None else before.rev,
    )


def is_over(incident: Incident, rules: AlertRules | None, latest: RecordedResult | None, now_ms: int) -> bool:
    """Whether the incident is over. It is if no rule covers it any more.

    `latest` is the latest sent execution of the job; for `noRun` the latest success within `no_run_ms`.
    """
    if rules is None or not rules.covers(incident.kind):
        return True
    if latest is None or latest.state != State.SUCCEEDED.value:
        return False
    if incident.kind is IncidentKind.NO_RUN:
        # Not compared with `last_symptom_ms`, the time of the leader's check: a success may have ended before that
        # check and been recorded after it.
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
    """The incident after a check of its job: closed, with a reminder, or unchanged but for the time of the check."""
    if job.ended and job.forgotten:
        return replace(incident, open=False, closed_ms=now_ms, checked_ms=now_ms)
    if is_over(incident, rules, latest, now_ms):
        # A reminder that nobody has received is no news any more.
        news = (n for n in incident.pending_notices if n.committed or n.kind is not NoticeKind.REMINDER)
        incident = replace(incident, pending_notices=tuple(news))
        if rules is not None and rules.covers(incident.kind) and rules.on_recovery:
            incident = _with_notice(incident, NoticeKind.RESOLVED, _channels_of_end(incident, rules), now_ms)
        return replace(incident, open=False, closed_ms=now_ms, checked_ms=now_ms)
    remind_ms = None if rules is None else rules.remind_ms
    if rules is not None and remind_ms is not None and job.active and now_ms - incident.notified_ms >= remind_ms:
        incident = _with_notice(incident, NoticeKind.REMINDER, rules.channels, now_ms)
    # Many incidents of jobs that are not active must not delay the checks of the others.
    longest_ms = 0 if job.active else MAX_RECHECK_ENDED_MS if job.ended else MAX_RECHECK_PAUSED_MS
    return replace(incident, checked_ms=now_ms + min(longest_ms, (now_ms - incident.opened_ms) // 10))


def _channels_of_end(incident: Incident, rules: AlertRules) -> tuple[str, ...]:
    """Those that know of the incident, or have a notice of its beginning to come. Their rules may have changed since."""
    if incident.notified is None:
        return rules.channels
    waiting = (n for n in incident.pending_notices if n.since_ms == incident.opened_ms and not n.committed)
    return tuple(dict.fromkeys((*incident.notified, *(c for n in waiting for c in n.channels))))


def _with_notice(incident: Incident, kind: NoticeKind, channels: tuple[str, ...], now_ms: int) -> Incident:
    if not channels:
        return incident
    notice = Notice(
        kind=kind,
        number=incident.number + 1,
        at_ms=now_ms,
        channels=channels,
        since_ms=incident.opened_ms,
        detail=incident.detail,
        execution=incident.execution,
    )
    return replace(
        incident, number=notice.number, notified_ms=now_ms, pending_notices=(*incident.pending_notices, notice)
    )


def by_job(results: Iterable[RecordedResult]) -> dict[str, list[RecordedResult]]:
    """The results grouped by job."""
    grouped: dict[str, list[RecordedResult]] = {}
    for r in results:
        grouped.setdefault(r.job_id, []).append(r)
    return grouped
