"""Alerts: what was recorded becomes incidents, incidents become executions like any other.

The leader does this, in a loop of its own, so that no alert delays a job. An alert is a job that runs once, under an id
that follows from the incident; from there on it is leased, sent, retried and recorded as everything is. The order of
writes:

1. the incident, with what is to be said of it (one compare-and-set);
2. the results that were looked at lose their mark;
3. the jobs that say it, one per channel (insert: what is there already stays);
4. the incident again, with nothing left to be said.

A crash after any of them is repaired by whoever leads next, and a stale leader's writes are the same or fail: a result
looked at twice changes nothing, and a job made twice is one job.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core import alerts
from cluster.core.alerts import ACTIVE, IncidentKind, JobStanding, Symptom
from cluster.core.notice_texts import webhook_payload
from cluster.store import alert_jobs, alert_results, channels, incidents, meta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.clock import Clock
    from cluster.core.alerts import AlertRules, Incident, Notice, RecordedResult
    from cluster.store.alert_jobs import JobAlertRules
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

MARKS = 500
INCIDENTS = 100
CHECK_MS = 2000
"""How often an open incident is looked at."""
SILENT = 200
SILENT_EVERY_MS = 5000
FORGET_EVERY_MS = 60_000
FORGOTTEN = 500
DAY_MS = 86_400_000
LONGER_MS = 4 * 3_600_000
RACES = 5


@dataclass(slots=True)
class Alerted:
    """What one step did."""

    pending: int = 0
    opened: int = 0
    closed: int = 0
    alerts: int = 0

    @property
    def more(self) -> bool:
        """Whether there is probably more to do at once."""
        return self.pending >= MARKS


class Alerter:
    """Alerts, by one leader. `keep_days` is how long a job that carried an alert stays."""

    def __init__(self, db: Database, clock: Clock, keep_days: float) -> None:
        self._db = db
        self._clock = clock
        # As tombstones: what it sent must not be known for longer than the job is.
        self._keep_ms = int(max(1.0, keep_days) * DAY_MS) + LONGER_MS
        self._default: AlertRules | None = None
        self._silent_at = 0
        self._silent_after = ""
        self._forget_at = 0
        self._told_after = ""

    async def step(self) -> Alerted:
        """One bounded piece of each."""
        done = Alerted()
        self._default = await meta.default_rules(self._db)
        await self._look_at_marks(done)
        await self._look_at_open(done)
        await self._look_for_silence(done)
        unsent = await incidents.with_unsent_notices(self._db, self._told_after, INCIDENTS)
        for incident in unsent:
            done.alerts += await self._tell(incident)
        # Round and round: what waits for its channel's key must not keep others from being told.
        self._told_after = unsent[-1].id if len(unsent) == INCIDENTS else ""
        now = self._clock.now_ms()
        if now - self._forget_at > FORGET_EVERY_MS:
            forgotten = await alert_jobs.delete_ended(self._db, now - self._keep_ms, FORGOTTEN)
            self._forget_at = now if forgotten < FORGOTTEN else 0
        return done

    async def _look_at_marks(self, done: Alerted) -> None:
        marks, looked_at = await alert_results.pending(self._db, MARKS)
        done.pending = len(looked_at)
        if not looked_at:
            return
        by_job = alerts.by_job(marks)
        ruled = await alert_jobs.alert_rules_of(self._db, by_job, self._default)
        for job_id, results in by_job.items():
            job = ruled.get(job_id)
            if job is not None and job.rules is not None:
                for trouble in alerts.symptoms(job.rules, results, await self._latest(job.rules, job_id)):
                    done.opened += await self._seen(job_id, trouble, job.rules)
        await alert_results.clear_pending(self._db, looked_at)

    async def _latest(self, rules: AlertRules, job_id: str) -> Sequence[RecordedResult]:
        if rules.after_failures is None:
            return ()
        return await alert_results.latest(self._db, job_id, rules.after_failures)

    async def _seen(self, job_id: str, trouble: Symptom, rules: AlertRules) -> int:
        """Open the incident, or note that it goes on. Returns 1 if it was opened."""
        for _ in range(RACES):
            before = await incidents.get(self._db, job_id, trouble.kind)
            after = alerts.with_symptom(before, job_id, trouble, rules, self._clock.now_ms())
            if after is None:
                return 0
            if await incidents.write(self._db, after):
                if before is not None and before.open:
                    return 0
                log.warning("incident_opened", job=job_id, kind=trouble.kind.value, detail=trouble.detail)
                return 1
        return 0  # another leader is at it

    async def _look_at_open(self, done: Alerted) -> None:
        now = self._clock.now_ms()
        found = await incidents.due_for_check(self._db, now - CHECK_MS, INCIDENTS)
        if not found:
            return
        ruled = await alert_jobs.alert_rules_of(self._db, {i.job_id for i in found}, self._default)
        for incident in found:
            job = ruled.get(incident.job_id)
            rules = None if job is None else job.rules
            latest = await self._judged_by(incident, rules, now)
            standing = ACTIVE if job is None else JobStanding(job.active, job.ended)
            if standing.ended and latest is None:
                standing = replace(standing, forgotten=not await alert_results.has_history(self._db, incident.job_id))
            after = alerts.after_check(incident, rules, latest, now, standing)
            if await incidents.write(self._db, after) and not after.open:
                done.closed += 1
                log.info("incident_closed", job=incident.job_id, kind=incident.kind.value)

    async def _judged_by(self, incident: Incident, rules: AlertRules | None, now: int) -> RecordedResult | None:
        """The result that says whether it is over. A silence ends by the same question that it began by."""
        if incident.kind is IncidentKind.NO_RUN and rules is not None and rules.no_run_ms is not None:
            return await alert_results.latest_success_since(self._db, incident.job_id, now - rules.no_run_ms)
        found = await alert_results.latest(self._db, incident.job_id, 1)
        return found[0] if found else None

    async def _look_for_silence(self, done: Alerted) -> None:
        """Jobs that should have succeeded long ago: a page at a time, round and round."""
        now = self._clock.now_ms()
        if now - self._silent_at < SILENT_EVERY_MS and not self._silent_after:
            return
        found = await alert_jobs.silence_candidates(self._db, self._silent_after, SILENT)
        self._silent_after = found[-1].id if len(found) == SILENT else ""
        self._silent_at = now
        for job in found:
            done.opened += await self._silent(job, now)

    async def _silent(self, job: JobAlertRules, now: int) -> int:
        rules = job.rules
        if rules is None or rules.no_run_ms is None or now - job.active_from_ms < rules.no_run_ms:
            return 0
        if await alert_results.latest_success_since(self._db, job.id, now - rules.no_run_ms) is not None:
            return 0
        detail = f"nothing has succeeded for {rules.no_run_ms // 1000} s"
        return await self._seen(job.id, Symptom(IncidentKind.NO_RUN, now, detail), rules)

    async def _tell(self, incident: Incident) -> int:
        """Make the jobs that say what is to be said, then note that it is. What no key opens yet stays to be said."""
        names = {name for notice in incident.pending_notices for name in notice.channels}
        known, locked = await channels.for_sending(self._db, names)
        for name in names - known.keys():
            why = locked.get(name, "there is no such channel")
            log.error("alert_undeliverable", channel=name, job=incident.job_id, why=why)
        job = (await alert_jobs.alert_rules_of(self._db, [incident.job_id], None)).get(incident.job_id)
        made = 0
        for notice in incident.pending_notices:
            for name in notice.channels:
                if name in known:
                    made += await self._carry(incident, notice, known[name], None if job is None else job.name)
        waiting = (replace(n, channels=tuple(c for c in n.channels if c in locked)) for n in incident.pending_notices)
        left = tuple(n for n in waiting if n.channels)
        if left != incident.pending_notices:
            await incidents.write(self._db, replace(incident, pending_notices=left))
        return made

    async def _carry(self, incident: Incident, notice: Notice, channel: channels.Channel, name: str | None) -> int:
        said = webhook_payload(incident, notice, name)
        job_id = incident.notice_job_id(notice, channel.name)
        if not await alert_jobs.insert(self._db, job_id, channel, said, notice.at_ms):
            return 0
        log.info("alert_queued", alert=job_id, channel=channel.name, job=incident.job_id, said=notice.kind.value)
        return 1
