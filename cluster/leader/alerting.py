"""Alerts: recorded results become incidents, incidents become executions like any other.

The leader does this, in a loop of its own, so that no alert delays a job. An alert is a job that runs once, under an id
that follows from the incident; from there on it is leased, sent, retried and recorded as all executions are. The order
of the writes:

1. the incident, with its pending notices (one compare-and-set);
2. the results that were looked at are no longer `alert_pending`;
3. the incident: its notices are committed, or dropped because a window mutes them (compare-and-set);
4. the alert jobs of committed notices, one per channel (insert: a job that exists stays);
5. the incident again, without the notices that have a job.

A crash after any of them is repaired by the next leader. A stale leader's writes are the same or fail: a result that is
looked at twice changes nothing, and an alert job that is made twice is one job. Without step 3 nobody could know whether a
leader that died had made the alert job of a notice that a window mutes by now (`core/incident_notices.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core import alerts
from cluster.core.alerts import ACTIVE, IncidentKind, JobStanding, Symptom
from cluster.core.incident_notices import with_commitments, without_made, without_news
from cluster.core.notice_texts import webhook_payload
from cluster.core.windows import muted_by
from cluster.store import alert_jobs, alert_results, channels, incidents, meta, windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.clock import Clock
    from cluster.core.alerts import AlertRules, Incident, Notice, RecordedResult
    from cluster.core.windows import Window
    from cluster.store.alert_jobs import JobAlertRules
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

RESULTS = 500
"""Pending results looked at in one step."""
INCIDENTS = 100
CHECK_MS = 2000
"""How often an open incident is checked."""
SILENCE_JOBS = 200
SILENCE_EVERY_MS = 5000
DELETE_EVERY_MS = 60_000
ALERT_JOBS_DELETED_AT_ONCE = 500
DAY_MS = 86_400_000
GRACE_MS = 4 * 3_600_000
"""An alert job outlives the retention by this, as a tombstone does: no execution may be known for longer than its job."""
RACES = 5


@dataclass(frozen=True, slots=True)
class Alerted:
    """The result of one step."""

    pending: int = 0
    """Results looked at."""
    opened: int = 0
    closed: int = 0
    alerts: int = 0

    @property
    def more(self) -> bool:
        """Whether there is probably more to do at once."""
        return self.pending >= RESULTS


class Alerter:
    """Alerts, by one leader. `retention_days` is how long the jobs that carry alerts stay."""

    def __init__(self, db: Database, clock: Clock, retention_days: float) -> None:
        self._db = db
        self._clock = clock
        self._keep_ms = int(max(1.0, retention_days) * DAY_MS) + GRACE_MS
        self._default: tuple[AlertRules | None] | None = None
        self._muting: list[Window] | None = None
        self._silence_at_ms = 0
        self._silence_after = ""
        self._deleted_at_ms = 0
        self._notified_after = ""

    async def step(self) -> Alerted:
        """One bounded piece of each part."""
        self._default = self._muting = None  # read again once they are needed
        pending, opened = await self._look_at_results()
        closed = await self._check_open_incidents()
        opened += await self._look_for_silence()
        made = await self._make_alert_jobs()
        await self._delete_old_alert_jobs()
        return Alerted(pending, opened, closed, made)

    async def _default_rules(self) -> AlertRules | None:
        if self._default is None:
            self._default = (await meta.default_rules(self._db),)
        return self._default[0]

    async def _muting_windows(self) -> list[Window]:
        if self._muting is None:
            self._muting = [w for w in await windows.present(self._db) if w.mode == "mute"]
        return self._muting

    async def _look_at_results(self) -> tuple[int, int]:
        """How many pending results were looked at, and how many incidents were opened."""
        results, looked_at = await alert_results.pending(self._db, RESULTS)
        if not looked_at:
            return 0, 0
        opened = 0
        by_job = alerts.by_job(results)
        jobs = await alert_jobs.alert_rules_of(self._db, by_job, await self._default_rules())
        for job_id, results_of_job in by_job.items():
            rules = jobs[job_id].rules if job_id in jobs else None
            if rules is not None:
                for symptom in alerts.symptoms(rules, results_of_job, await self._latest(rules, job_id)):
                    opened += await self._record_symptom(job_id, symptom, rules)
        await alert_results.clear_pending(self._db, looked_at)
        return len(looked_at), opened

    async def _latest(self, rules: AlertRules, job_id: str) -> Sequence[RecordedResult]:
        if rules.after_failures is None:
            return ()
        return await alert_results.latest(self._db, job_id, rules.after_failures)

    async def _record_symptom(self, job_id: str, symptom: Symptom, rules: AlertRules) -> int:
        """Open the incident, or note that it goes on. Returns 1 if it was opened."""
        for _ in range(RACES):
            before = await incidents.get(self._db, job_id, symptom.kind)
            after = alerts.with_symptom(before, job_id, symptom, rules, self._clock.now_ms())
            if after is None:
                return 0
            if await incidents.write(self._db, after):
                if before is not None and before.open:
                    return 0
                log.warning("incident_opened", job=job_id, kind=symptom.kind.value, detail=symptom.detail)
                return 1
        return 0  # another leader writes it

    async def _check_open_incidents(self) -> int:
        """How many incidents were closed."""
        now = self._clock.now_ms()
        due = await incidents.due_for_check(self._db, now - CHECK_MS, INCIDENTS)
        if not due:
            return 0
        closed = 0
        jobs = await alert_jobs.alert_rules_of(self._db, {i.job_id for i in due}, await self._default_rules())
        for incident in due:
            job = jobs.get(incident.job_id)
            rules = None if job is None else job.rules
            latest = await self._deciding_result(incident, rules, now)
            standing = ACTIVE if job is None else JobStanding(job.active, job.ended)
            if standing.ended and latest is None:
                standing = replace(standing, forgotten=not await alert_results.has_history(self._db, incident.job_id))
            after = alerts.after_check(incident, rules, latest, now, standing)
            if await incidents.write(self._db, after) and not after.open:
                closed += 1
                log.info("incident_closed", job=incident.job_id, kind=incident.kind.value)
        return closed

    async def _deciding_result(self, incident: Incident, rules: AlertRules | None, now: int) -> RecordedResult | None:
        """The result that decides whether it is over. A silence ends by the same question that it began by."""
        if incident.kind is IncidentKind.NO_RUN and rules is not None and rules.no_run_ms is not None:
            return await alert_results.latest_success_since(self._db, incident.job_id, now - rules.no_run_ms)
        latest = await alert_results.latest(self._db, incident.job_id, 1)
        return latest[0] if latest else None

    async def _look_for_silence(self) -> int:
        """Look at jobs that should have succeeded long ago, a page at a time. Returns how many incidents were opened."""
        now = self._clock.now_ms()
        if now - self._silence_at_ms < SILENCE_EVERY_MS and not self._silence_after:
            return 0
        candidates = await alert_jobs.silence_candidates(self._db, self._silence_after, SILENCE_JOBS)
        self._silence_after = candidates[-1].id if len(candidates) == SILENCE_JOBS else ""
        self._silence_at_ms = now
        return sum([await self._open_if_silent(job, now) for job in candidates])

    async def _open_if_silent(self, job: JobAlertRules, now: int) -> int:
        rules = job.rules
        if rules is None or rules.no_run_ms is None or now - job.active_from_ms < rules.no_run_ms:
            return 0
        if await alert_results.latest_success_since(self._db, job.id, now - rules.no_run_ms) is not None:
            return 0
        detail = f"no execution has succeeded for {rules.no_run_ms // 1000} s"
        return await self._record_symptom(job.id, Symptom(IncidentKind.NO_RUN, now, detail), rules)

    async def _make_alert_jobs(self) -> int:
        """Make alert jobs of pending notices, a page of incidents at a time. Returns how many."""
        unsent = await incidents.with_unsent_notices(self._db, self._notified_after, INCIDENTS)
        made = sum([await self._notify(incident) for incident in unsent])
        # The next page follows, and then the first again: an incident that waits for a key must not hold up the others.
        self._notified_after = unsent[-1].id if len(unsent) == INCIDENTS else ""
        return made

    async def _notify(self, incident: Incident) -> int:
        """Commit or drop the pending notices, make the alert jobs of those that are committed, then take these off.

        A notice stays pending for a channel that none of this node's keys decrypts, and while a window mutes its job.
        """
        muted = await self._is_muted(incident)
        names = {name for n in incident.pending_notices if n.committed or not muted for name in n.channels}
        usable, locked = await channels.for_sending(self._db, names)
        for name in names - usable.keys():
            why = locked.get(name, "there is no such channel")
            log.error("alert_undeliverable", channel=name, job=incident.job_id, why=why)
        decided = without_news(incident) if muted else with_commitments(incident, usable, locked)
        if decided != incident:
            if not await incidents.write(self._db, decided):
                return 0  # another leader decides
            decided = replace(decided, rev=decided.rev + 1)
        committed = [n for n in decided.pending_notices if n.committed]
        if not committed:
            return 0
        job = (await alert_jobs.alert_rules_of(self._db, [incident.job_id], None)).get(incident.job_id)
        job_name = None if job is None else job.name
        made = 0
        for notice in committed:
            for name in notice.channels:
                if name in usable:
                    made += await self._make_alert_job(incident, notice, usable[name], job_name)
        left = without_made(decided, usable, locked)
        if left != decided:
            await incidents.write(self._db, left)
        return made

    async def _is_muted(self, incident: Incident) -> bool:
        """Whether a window mutes the alerts of its job now."""
        muting = await self._muting_windows()
        if not muting:
            return False
        subject = (await windows.subjects(self._db, [incident.job_id])).get(incident.job_id)
        return subject is not None and muted_by(muting, subject, self._clock.now_ms()) is not None

    async def _make_alert_job(
        self, incident: Incident, notice: Notice, channel: channels.Channel, job_name: str | None
    ) -> int:
        content = webhook_payload(incident, notice, job_name)
        job_id = incident.notice_job_id(notice, channel.name)
        if not await alert_jobs.insert(self._db, job_id, channel, content, notice.at_ms):
            return 0
        log.info("alert_queued", alert=job_id, channel=channel.name, job=incident.job_id, notice=notice.kind.value)
        return 1

    async def _delete_old_alert_jobs(self) -> None:
        now = self._clock.now_ms()
        if now - self._deleted_at_ms > DELETE_EVERY_MS:
            deleted = await alert_jobs.delete_ended(self._db, now - self._keep_ms, ALERT_JOBS_DELETED_AT_ONCE)
            self._deleted_at_ms = now if deleted < ALERT_JOBS_DELETED_AT_ONCE else 0
