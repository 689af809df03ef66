"""`jobs` as they are defined and changed through the API. What the engine reads of them is in `engine_jobs`.

Every change is one write of one document, made on the revision that was read, so two requests never mix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from cluster.core.alerts import watch_of
from cluster.core.documents.alerts import parse_alert_rules
from cluster.core.job.definition import Definition, StoredJob
from cluster.core.lifecycle import JobState
from cluster.core.limits.permits import limit_key_of
from cluster.store import audited, revisions
from cluster.store.job_notes import origin_and_entry
from cluster.store.mongo import job_secrets
from cluster.store.mongo.calendar_fields import calendar_fields, job_calendar
from cluster.store.mongo.callback_fields import after_field, definition_follow_ups, follow_up_fields
from cluster.store.mongo.codec import date, instant, limits_from_document, retry_from_document
from cluster.store.mongo.decoding import decode_one
from cluster.store.mongo.encryption import NO_KEYS
from cluster.store.mongo.listing_fields import listing_fields
from cluster.store.mongo.operation import duplicates, operation
from cluster.store.mongo.pause_fields import pause_fields, pause_terms
from cluster.store.outbox import OUTBOX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cluster.core.job.definition import JobChange, PastSchedule
    from cluster.store.mongo.client import Database, Document
    from cluster.store.mongo.encryption import Keyring

MAX_PERIODS = 100
DAY_MS = 86_400_000
MOST_ENTRIES = 20
"""Entries that a job carries for the audit log before they are copied by whoever reads the job."""
WITHOUT_PERIODS = {"past": 0, "words": 0}
ACTED_BY = "action"
"""The field with the id of the last action that changed the job. It makes the job's part of an action safe to repeat."""


def _fields(job: StoredJob, keyring: Keyring) -> Document:
    """Every field but `_id`, `past` and `unsettled`."""
    d = job.definition
    return {
        "name": d.name,
        "description": d.description,
        "tags": list(d.tags),
        "schedule": d.schedule,
        "timezone": d.timezone,
        "anchor": date(job.anchor_ms),
        "schedule_key": job.schedule_key,
        "schedule_version": job.schedule_version,
        "active_from": DatetimeMS(job.active_from_ms),
        "calendar": calendar_fields(d, job.schedule_key),
        "start_at": date(d.start_ms),
        "end_at": date(d.end_ms),
        "ends_at": date(job.ends_ms),
        "state": job.state.value,
        "state_reason": job.state_reason,
        "pause": pause_fields(job),
        "revision": job.revision,
        "lane": d.lane,
        "host": d.host,
        "queue": d.queue,
        "max_per_second": d.limits.per_second,
        "max_concurrent": d.limits.concurrent,
        "gate": limit_key_of(job.id, d.queue, d.limits),
        "url": d.url,
        "headers": [list(pair) for pair in d.headers],
        "body": Binary(d.body),
        "body_kind": d.body_kind,
        "templates": d.templates,
        "timeout_seconds": d.timeout_seconds,
        "retry": {
            "max_attempts": d.retry.max_attempts,
            "initial_delay_seconds": d.retry.initial_delay_seconds,
            "multiplier": d.retry.multiplier,
            "max_delay_seconds": d.retry.max_delay_seconds,
            "jitter": d.retry.jitter,
            "max_age_seconds": d.retry.max_age_seconds,
        },
        "success_codes": None if d.success_codes is None else list(d.success_codes),
        "codes_at": date(job.success_codes_since_ms),
        "catch_up": d.catch_up,
        "catch_up_window_seconds": d.catch_up_window_seconds,
        "overlap": d.overlap,
        "spread_seconds": d.spread_seconds,
        "alerts": d.alerts,
        "watch": _watch(d.alerts),
        **job_secrets.encrypted_fields(d, job.id, keyring),
        **follow_up_fields(job, keyring),
        "retention_days": d.retention_days,
        "completed_retention_days": d.completed_retention_days,
        "delete_after_run": d.delete_after_run,
        "remove_at": date(_remove_ms(job)),
        **listing_fields(job),
        "created_at": DatetimeMS(job.created_ms),
        "updated_at": DatetimeMS(job.updated_ms),
    }


def _remove_ms(job: StoredJob) -> int | None:
    """From when on the job is removed once it is completed. None: as the operator's setting says, or it never ends."""
    days = 0.0 if job.definition.delete_after_run else job.definition.completed_retention_days
    return None if days is None or job.ends_ms is None else job.ends_ms + int(days * DAY_MS)


def _watch(alerts: str | None) -> Document | None:
    """The part of the alert rules that queries filter on or that recording a result needs. All of them are in `alerts`."""
    rules = parse_alert_rules(alerts)
    if rules is None:
        return None
    watched = watch_of(rules)
    return {
        "channels": list(rules.channels),
        "marks": watched.failures,
        "drift_over_ms": watched.drift_over_ms,
        "no_run_ms": rules.no_run_ms,
    }


def stored_job(d: Document, keyring: Keyring = NO_KEYS) -> StoredJob:
    """A job document as a value. A secret that no key decrypts stays locked, and is written back as it was stored."""
    definition = Definition(
        schedule=d["schedule"],
        url=d["url"],
        lane=d["lane"],
        host=d.get("host", ""),
        timezone=d["timezone"],
        name=d["name"],
        description=d["description"],
        tags=tuple(d["tags"]),
        headers=tuple((name, value) for name, value in d["headers"]),
        body=bytes(d.get("body") or b""),
        body_kind=d["body_kind"],
        templates=d.get("templates", True),
        timeout_seconds=d["timeout_seconds"],
        retry=retry_from_document(d["retry"]),
        success_codes=None if d.get("success_codes") is None else tuple(d["success_codes"]),
        catch_up=d["catch_up"],
        catch_up_window_seconds=d["catch_up_window_seconds"],
        overlap=d["overlap"],
        spread_seconds=d["spread_seconds"],
        calendar=job_calendar(d.get("calendar"), d["schedule_key"]),
        start_ms=instant(d["start_at"]),
        end_ms=instant(d["end_at"]),
        alerts=d["alerts"],
        **job_secrets.definition_fields(d, keyring),
        **definition_follow_ups(d, keyring),
        retention_days=d.get("retention_days"),
        completed_retention_days=d.get("completed_retention_days"),
        delete_after_run=d.get("delete_after_run", False),
        queue=d.get("queue"),
        limits=limits_from_document(d),
    )
    return StoredJob(
        id=d["_id"],
        definition=definition,
        state=JobState(d["state"]),
        revision=d["revision"],
        anchor_ms=instant(d["anchor"]),
        schedule_key=d["schedule_key"],
        schedule_version=d["schedule_version"],
        active_from_ms=int(d["active_from"]),
        ends_ms=instant(d["ends_at"]),
        created_ms=int(d["created_at"]),
        updated_ms=int(d["updated_at"]),
        state_reason=d["state_reason"],
        pause=pause_terms(d),
        change_id=d.get("unsettled"),
        success_codes_since_ms=instant(d.get("codes_at")),
    )


def _period(p: PastSchedule) -> Document:
    return {
        "schedule_version": p.schedule_version,
        "schedule": p.definition.schedule,
        "timezone": p.definition.timezone,
        "anchor": date(p.anchor_ms),
        "start_at": date(p.definition.start_ms),
        "end_at": date(p.definition.end_ms),
        "from": DatetimeMS(p.from_ms),
        "to": DatetimeMS(p.to_ms),
        # The rest is absent in periods of older releases.
        "key": p.schedule_key,
        "ended_by": p.ended_by,
        "retention_days": p.definition.retention_days,
        **after_field(p.definition),
        **({} if p.change_id is None else {"unsettled": p.change_id}),
        **({} if p.definition.calendar is None else {"calendar": calendar_fields(p.definition, p.schedule_key)}),
    }


def new_document(change: JobChange, keyring: Keyring = NO_KEYS) -> Document:
    """The document of a job that did not exist."""
    origin, entry = origin_and_entry(change)
    document = {"_id": change.job.id, **_fields(change.job, keyring), "past": [], "origin": origin}
    if entry is not None:
        document[OUTBOX] = [entry]
    return document if change.change_id is None else {**document, "unsettled": change.change_id}


def update_of(
    change: JobChange, keyring: Keyring, only: Collection[str] | None = None, *, action: str | None = None
) -> tuple[Document, Document]:
    """The filter and the update that write a change on the revision before it.

    `only`: these fields of the job, for a change that follows another object, whose entry the audit log has.
    `action`: the action that makes the change, which is noted in the job.
    """
    fields = _fields(change.job, keyring)
    origin, entry = origin_and_entry(change) if only is None else (None, None)
    update: Document = {"$set": {**fields, "origin": origin} if only is None else {name: fields[name] for name in only}}
    if action is not None:
        update["$set"][ACTED_BY] = action
    pushes: Document = {} if entry is None else {OUTBOX: entry}
    if change.change_id is not None:
        update["$set"]["unsettled"] = change.change_id
    if change.past is not None:
        pushes["past"] = {"$each": [_period(change.past)], "$slice": -MAX_PERIODS}
    if pushes:
        update["$push"] = pushes
    return {"_id": change.job.id, "revision": change.job.revision - 1}, update


async def get(db: Database, job_id: str) -> StoredJob | None:
    """The job, a tombstone too; None if there is no document. Raises `UnreadableDocument`."""
    with operation():
        d = await db.api["jobs"].find_one({"_id": job_id}, WITHOUT_PERIODS)
    if d is not None and len(d.get(OUTBOX, ())) >= MOST_ENTRIES:
        await audited.flush(db, "jobs", job_id)  # no leader has copied them: a document has 16 MB
    return None if d is None else decode_one("job", d, lambda d: stored_job(d, db.keyring))


async def document(db: Database, job_id: str) -> Document | None:
    """The document of a job as it is stored, without its periods; None if there is none."""
    with operation():
        found: Document | None = await db.api["jobs"].find_one({"_id": job_id}, {**WITHOUT_PERIODS, OUTBOX: 0})
    return found


async def get_many(db: Database, job_ids: Iterable[str], *, with_body: bool = True) -> dict[str, StoredJob]:
    """Those of these jobs that exist by id, tombstones included. Raises `UnreadableDocument`.

    Without their bodies for a caller that needs none: a thousand bodies may be a gigabyte.
    """
    wanted = list(job_ids)
    if not wanted:
        return {}
    with operation():
        fields = WITHOUT_PERIODS if with_body else {**WITHOUT_PERIODS, "body": 0}
        documents = await db.api["jobs"].find({"_id": {"$in": wanted}}, fields).to_list()
    return {d["_id"]: decode_one("job", d, lambda d: stored_job(d, db.keyring)) for d in documents}


async def insert(db: Database, change: JobChange, links: Document | None = None) -> bool:
    """Insert a job, with its links to jobs that run after it. False if it exists."""
    with operation():
        try:
            await db.api["jobs"].insert_one(new_document(change, db.keyring) | (links or {}))
        except DuplicateKeyError:
            return False
    return True


async def update(db: Database, change: JobChange) -> bool:
    """Write a change on the revision before it. False if the job is at another revision."""
    query, operations = update_of(change, db.keyring)
    await revisions.keep(db, [change.job.id])
    with operation():
        result = await db.api["jobs"].update_one(query, operations)
    await revisions.trim(db, {change.job.id: change.job.revision})
    return result.matched_count > 0


async def insert_many(db: Database, changes: Sequence[JobChange], links: Mapping[str, Document]) -> set[str]:
    """Insert jobs, with `links` by id. Returns the ids of those that existed already and were left as they are."""
    if not changes:
        return set()
    documents = [new_document(c, db.keyring) | links.get(c.job.id, {}) for c in changes]
    with operation():
        try:
            await db.api["jobs"].insert_many(documents, ordered=False)
        except BulkWriteError as exc:
            existed = duplicates(exc)
            if existed is None:
                raise
            return {changes[i].job.id for i in existed}
    return set()


async def update_many(db: Database, changes: Sequence[JobChange], *, action: str | None = None) -> bool:
    """Write changes, each on the revision before it. False if at least one was not applied: look at each job again.

    `action`: the action that makes them, which is noted in each job by the same write.
    """
    if not changes:
        return True
    await revisions.keep(db, [c.job.id for c in changes])
    writes = [UpdateOne(*update_of(c, db.keyring, action=action)) for c in changes]
    with operation():
        result = await db.api["jobs"].bulk_write(writes, ordered=False)
    await revisions.trim(db, {c.job.id: c.job.revision for c in changes})
    return result.matched_count == len(changes)


async def naming_channel(db: Database, channel: str) -> str | None:
    """A job that names this channel in its alert rules or a callback; None if there is none."""
    with operation():
        named = [{name: channel} for name in ("watch.channels", "on_success.channel", "on_failure.channel")]
        d = await db.api["jobs"].find_one({"$or": named, "state": {"$ne": JobState.DELETED.value}}, {"_id": 1})
    return None if d is None else str(d["_id"])
