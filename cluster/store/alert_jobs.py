"""Jobs that carry one alert to one channel: ordinary ones that run once, and say which channel they go to.

Where the channel is, and what signs for it, is read when the alert is sent: it may have been mended by then, and no
secret of it is copied.
"""

from __future__ import annotations

import html
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from cluster.core.documents import strict_json
from cluster.core.documents.alerts import parse_alert_rules
from cluster.core.execution.model import RetryPolicy
from cluster.core.ids import execution_id, lane_of
from cluster.core.instants import format_instant
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import JobState
from cluster.core.targets import parse_target
from cluster.store.jobs import new_document
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.core.alerts import AlertRules
    from cluster.core.execution.model import Job
    from cluster.store.channels import Channel
    from cluster.store.mongo.client import Database, Document

ALERT_RETRY = RetryPolicy(max_attempts=12, initial_delay_seconds=2.0, multiplier=2.0, max_delay_seconds=600.0)
MAIL_HOST = "mail"


def channel_host(channel: Channel) -> str:
    """What slots and breakers go by."""
    return MAIL_HOST if channel.url is None else parse_target(channel.url).host_port


def body_of(channel: Channel, content: dict[str, Any]) -> dict[str, Any]:
    """What this kind of channel is sent."""
    if channel.kind == "slack":
        # Unescaped, a name or an answer could hold a link or a word that wakes everybody (`<!channel>`).
        return {"text": html.escape(content["text"], quote=False)}
    if channel.kind == "email":
        return {"subject": content["text"].partition("\n")[0][:200], "text": _letter(content)}
    return content


def _letter(said: dict[str, Any]) -> str:
    lines = [said["text"], ""]
    lines += [f"{name}: {said[name]}" for name in ("jobId", "executionId", "since", "at") if said.get(name)]
    return "\n".join(lines) + "\n"


async def insert(db: Database, job_id: str, channel: Channel, content: dict[str, Any], at_ms: int) -> bool:
    """Make the job; it is due at the full second from `at_ms` on. False if it is there already.

    The same call always makes the same job.
    """
    due_ms = _due(at_ms)
    host = channel_host(channel)
    definition = Definition(
        schedule=f"@at {format_instant(due_ms)}",
        url=f"channel:{channel.name}",
        lane=lane_of(host),
        host=host,
        name=f"alert: {content['text'][:150]}",
        body=strict_json.dumps(body_of(channel, content)),
        body_kind="json",
        retry=ALERT_RETRY,
        catch_up="all",
        catch_up_window_seconds=86_400,
        alerts=None,
    )
    change = changes.define(None, job_id, definition, ChangeStamp(due_ms - 1, job_id, f"alert-{job_id}"))
    if change is None:  # never: there is nothing it could be the same as
        return False
    # Lists of jobs leave these out; as the oldest of all they are not even passed over by a page of the newest.
    oldest = DatetimeMS(0)
    document = {**new_document(change, db.keyring), "channel": channel.name, "created_at": oldest}
    with operation():
        try:
            await db.work["jobs"].insert_one(document)
        except DuplicateKeyError:
            return False
    return True


def execution_id_of(job_id: str, at_ms: int) -> str:
    """The execution that such a job owes."""
    return execution_id(job_id, _due(at_ms))


def _due(at_ms: int) -> int:
    return -(-at_ms // 1000) * 1000


def with_address(job: Job, channel: Channel) -> Job:
    """The job as it is sent: to where the channel is now."""
    # A server that repeats its request names the path alone.
    hidden = (channel.address, urlsplit(channel.address).path) if channel.kind == "slack" else ()
    target = replace(job.target, url=channel.address, secrets=hidden)
    return replace(job, target=target, host=channel_host(channel), signing_secret=channel.signing_secret)


class JobAlertRules:
    """A job with its rules, as alerts need it. `rules` is None if the job is gone or nobody is to be told."""

    __slots__ = ("active", "active_from_ms", "ended", "id", "name", "rules")

    def __init__(self, d: Document, default: AlertRules | None) -> None:
        self.id: str = d["_id"]
        self.name: str | None = d.get("name")
        self.active = d["state"] == JobState.ACTIVE.value
        self.ended = d["state"] == JobState.COMPLETED.value
        self.active_from_ms = int(d["active_from"])
        own = parse_alert_rules(d.get("alerts"))
        rules = default if d.get("alerts") is None else own
        carries_alert = d.get("channel") is not None
        gone = d["state"] == JobState.DELETED.value
        self.rules = None if gone or carries_alert or rules is None or not rules.channels else rules


RULED_FIELDS = {"name": 1, "state": 1, "active_from": 1, "alerts": 1, "channel": 1}


async def alert_rules_of(db: Database, job_ids: Iterable[str], default: AlertRules | None) -> dict[str, JobAlertRules]:
    """These jobs with their rules."""
    with operation():
        found = await db.work["jobs"].find({"_id": {"$in": list(job_ids)}}, RULED_FIELDS).to_list()
    return {r.id: r for r in decode_readable("job", found, lambda d: JobAlertRules(d, default))}


async def silence_candidates(db: Database, after: str, limit: int) -> list[JobAlertRules]:
    """Active jobs with a `noRunForSeconds` rule, in order of id."""
    query = {"watch.no_run_ms": {"$gt": 0}, "state": JobState.ACTIVE.value, "_id": {"$gt": after}}
    with operation():
        found = await db.work["jobs"].find(query, RULED_FIELDS).sort("_id", 1).limit(limit).to_list()
    return decode_readable("job", found, lambda d: JobAlertRules(d, None))


async def delete_ended(db: Database, before_ms: int, limit: int) -> int:
    """Remove jobs that carried an alert and ended before then."""
    query: Document = {
        "channel": {"$exists": True},
        "state": {"$in": [JobState.COMPLETED.value, JobState.DELETED.value]},
        "updated_at": {"$lt": DatetimeMS(before_ms)},
        "unsettled": {"$exists": False},
    }
    with operation():
        found = [d["_id"] async for d in db.work["jobs"].find(query, {"_id": 1}).limit(limit)]
        if found:
            await db.work["jobs"].delete_many({**query, "_id": {"$in": found}})
    return len(found)
