"""What the leader reads of a job: its schedule, and the earlier ones that are not settled yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.execution.model import JobSchedule
from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import parse_schedule
from cluster.store.mongo.codec import instant

if TYPE_CHECKING:
    from cluster.store.mongo.client import Document

JOB_SCHEDULE_FIELDS = dict.fromkeys(
    (
        "state",
        "schedule_key",
        "schedule_version",
        "active_from",
        "start_at",
        "end_at",
        "lane",
        "spread_seconds",
        "catch_up",
        "catch_up_window_seconds",
        "unsettled",
        "retention_days",
        "host",
        "gate",
    ),
    1,
)
UNSETTLED_FIELDS = {**JOB_SCHEDULE_FIELDS, "past": 1}


def _past(job_id: str, d: Document) -> JobSchedule:
    anchor = instant(d.get("anchor")) or 0
    return JobSchedule(
        id=job_id,
        schedule_key=d.get("key") or parse_schedule(d["schedule"], d["timezone"], anchor).key,
        schedule_version=d["schedule_version"],
        active_from_ms=int(d["from"]),
        start_ms=instant(d.get("start_at")),
        end_ms=instant(d.get("end_at")),
        lane=0,
        spread_seconds=0,
        change_id=d.get("unsettled"),
        retention_days=d.get("retention_days"),
        ended_by=d.get("ended_by", ""),
    )


def job_schedule_from_document(d: Document) -> JobSchedule:
    """A job as the leader needs it, from a document with `JOB_SCHEDULE_FIELDS` or `UNSETTLED_FIELDS`."""
    periods = d.get("past") or ()
    return JobSchedule(
        id=d["_id"],
        schedule_key=d["schedule_key"],
        schedule_version=d["schedule_version"],
        active_from_ms=int(d["active_from"]),
        start_ms=instant(d.get("start_at")),
        end_ms=instant(d.get("end_at")),
        lane=int(d["lane"]),
        spread_seconds=int(d["spread_seconds"]),
        catch_up=d["catch_up"],
        catch_up_window_seconds=int(d["catch_up_window_seconds"]),
        state=JobState(d["state"]),
        change_id=d.get("unsettled"),
        past_schedules=tuple((_past(d["_id"], p), int(p["to"])) for p in periods),
        retention_days=d.get("retention_days"),
        host=d.get("host", ""),
        limit_key=d.get("gate"),
    )
