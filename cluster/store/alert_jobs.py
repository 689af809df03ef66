"""`jobs` as alerting needs them: the alert rules of jobs, and the one-off jobs that each carry one alert to one channel.

An alert job stores the name of its channel. The channel's address and signing secret are read when the alert is sent, so
that a corrected channel takes effect at once and no secret is copied.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
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
from cluster.core.limits.permits import Limits
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
MAIL_LIMIT_KEY = "m:mail"
"""The limit of all mails. No queue and no job has this key: theirs begin with `q:` and `j:`."""
MAILS_PER_SECOND = 1.0
"""Of all nodes together."""


# -- the alert rules of jobs ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobAlertRules:
    """What alerting needs of a job. `rules` is None for a deleted job, an alert job, or a job that notifies no channel."""

    id: str
    name: str | None
    active: bool
    ended: bool
    active_from_ms: int
    rules: AlertRules | None


_RULES_FIELDS = {"name": 1, "state": 1, "active_from": 1, "alerts": 1, "channel": 1}


def _job_alert_rules(d: Document, default: AlertRules | None) -> JobAlertRules:
    rules = default if d.get("alerts") is None else parse_alert_rules(d["alerts"])
    deleted = d["state"] == JobState.DELETED.value
    if deleted or d.get("channel") is not None or rules is None or not rules.channels:
        rules = None
    return JobAlertRules(
        id=d["_id"],
        name=d.get("name"),
        active=d["state"] == JobState.ACTIVE.value,
        ended=d["state"] == JobState.COMPLETED.value,
        active_from_ms=int(d["active_from"]),
        rules=rules,
    )


async def alert_rules_of(db: Database, job_ids: Iterable[str], default: AlertRules | None) -> dict[str, JobAlertRules]:
    """The alert rules of these jobs by job id; `default` stands in for jobs without rules of their own."""
    with operation():
        documents = await db.work["jobs"].find({"_id": {"$in": list(job_ids)}}, _RULES_FIELDS).to_list()
    return {r.id: r for r in decode_readable("job", documents, lambda d: _job_alert_rules(d, default))}


async def silence_candidates(db: Database, after: str, limit: int) -> list[JobAlertRules]:
    """Active jobs with a `noRunForSeconds` rule, in order of id, from behind `after`."""
    query = {"watch.no_run_ms": {"$gt": 0}, "state": JobState.ACTIVE.value, "_id": {"$gt": after}}
    with operation():
        documents = await db.work["jobs"].find(query, _RULES_FIELDS).sort("_id", 1).limit(limit).to_list()
    return decode_readable("job", documents, lambda d: _job_alert_rules(d, None))


# -- jobs that carry an alert --------------------------------------------------------------------------------------


def channel_host(channel: Channel) -> str:
    """The host whose slots and breaker apply to a channel: host and port of its URL, or `mail`."""
    return MAIL_HOST if channel.url is None else parse_target(channel.url).host_port


def body_of(channel: Channel, content: dict[str, Any]) -> dict[str, Any]:
    """The JSON that a channel of this kind receives for the content of an alert."""
    if channel.kind == "slack":
        # Unescaped, a job's name or a target's answer could hold a link, or a mention of everybody (`<!channel>`).
        return {"text": html.escape(content["text"], quote=False)}
    if channel.kind == "email":
        return {"subject": content["text"].partition("\n")[0][:200], "text": _mail_text(content)}
    return content


def _mail_text(content: dict[str, Any]) -> str:
    lines = [content["text"], ""]
    lines += [f"{name}: {content[name]}" for name in ("jobId", "executionId", "since", "at") if content.get(name)]
    return "\n".join(lines) + "\n"


async def insert(db: Database, job_id: str, channel: Channel, content: dict[str, Any], at_ms: int) -> bool:
    """Insert the job that sends this alert, due at the first full second at or after `at_ms`. False if it exists already.

    Equal arguments make the same job, so a leader that repeats the step sends one alert.
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
        templates=False,  # names of jobs, and what targets have said, are sent as they are
        retry=ALERT_RETRY,
        catch_up="all",
        catch_up_window_seconds=86_400,
        alerts=None,
    )
    change = changes.define(None, job_id, definition, ChangeStamp(due_ms - 1, job_id, f"alert-{job_id}"))
    if change is None:  # cannot happen: there is no earlier definition that it could equal
        return False
    # Lists of jobs leave alert jobs out. With the earliest creation date of all, pages of the newest jobs never scan them.
    earliest = DatetimeMS(0)
    unlisted: Document = {
        "channel": channel.name,
        "created_at": earliest,
        "words": [],
        "first_at": None,
        "last_at": None,
    }
    document = {**new_document(change, db.keyring), **unlisted}
    if channel.kind == "email":
        # All mails share one limit, so that neither a flood of alerts nor a caller floods the operator's mail server.
        document |= {"gate": MAIL_LIMIT_KEY, "max_per_second": MAILS_PER_SECOND}
    with operation():
        try:
            await db.work["jobs"].insert_one(document)
        except DuplicateKeyError:
            return False
    return True


def execution_id_of(job_id: str, at_ms: int) -> str:
    """The id of the one execution of the job that `insert` makes for the same `at_ms`."""
    return execution_id(job_id, _due(at_ms))


def _due(at_ms: int) -> int:
    return -(-at_ms // 1000) * 1000


def with_address(job: Job, channel: Channel) -> Job:
    """The alert job with the present address and signing secret of its channel, ready to be sent."""
    # A server that echoes its request names the path only, so the path is redacted too.
    secrets = (channel.address, urlsplit(channel.address).path) if channel.kind == "slack" else ()
    target = replace(job.target, url=channel.address, secrets=secrets)
    return replace(job, target=target, host=channel_host(channel), signing_secret=channel.signing_secret)


def to_channel(job: Job, channel: Channel) -> Job:
    """A callback to a channel, with the address, the form and the limit of that."""
    body = job.target.body
    content = orjson.loads(body) if body else None
    formed = body if content is None else strict_json.dumps(body_of(channel, content))
    addressed = with_address(replace(job, target=replace(job.target, body=formed)), channel)
    if channel.kind != "email":
        return addressed
    return replace(addressed, limit_key=MAIL_LIMIT_KEY, limits=Limits(MAILS_PER_SECOND, None))


async def delete_ended(db: Database, before_ms: int, limit: int) -> int:
    """Delete up to `limit` alert jobs that ended before an instant. Returns how many."""
    query: Document = {
        "channel": {"$exists": True},
        "state": {"$in": [JobState.COMPLETED.value, JobState.DELETED.value]},
        "updated_at": {"$lt": DatetimeMS(before_ms)},
        "unsettled": {"$exists": False},
    }
    with operation():
        ids = [d["_id"] async for d in db.work["jobs"].find(query, {"_id": 1}).limit(limit)]
        if ids:
            await db.work["jobs"].delete_many({**query, "_id": {"$in": ids}})
    return len(ids)
