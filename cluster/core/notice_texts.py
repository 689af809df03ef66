"""The texts of notices: one line for people, and the JSON object for webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.core.alerts import IncidentKind, NoticeKind
from cluster.core.instants import format_instant

if TYPE_CHECKING:
    from cluster.core.alerts import Incident, Notice

_PHRASES = {
    IncidentKind.FAILING: ("has been failing", "had been failing"),
    IncidentKind.MISSED: ("has missed runs", "had missed runs"),
    IncidentKind.DRIFT: ("has been running late", "had been running late"),
    IncidentKind.NO_RUN: ("has not run successfully", "had not run successfully"),
}
"""What a job does, said while the incident is open and after it is over."""


def webhook_payload(incident: Incident, notice: Notice, job_name: str | None) -> dict[str, Any]:
    """The JSON object that a webhook receives."""
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
    """The notice in one line of text."""
    job = f"{job_name} ({incident.job_id})" if job_name else incident.job_id
    now, before = _PHRASES[incident.kind]
    since = format_instant(notice.since_ms)
    if notice.kind is NoticeKind.RESOLVED:
        return f"Resolved: job {job} recovered. It {before} since {since}: {notice.detail}"
    reminder = "Reminder: job" if notice.kind is NoticeKind.REMINDER else "Job"
    return f"{reminder} {job} {now} since {since}: {notice.detail}"
