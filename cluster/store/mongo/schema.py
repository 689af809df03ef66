"""Collections, indexes and the documents that must exist before the first node starts work.

Every step is idempotent, so any number of nodes may run it at once.

The schema version in `meta` says what documents look like. A release works on its own version and on the one before, and
never raises the version by itself: nodes of two neighbouring releases run side by side until an operator runs
`horae db migrate`.

    1  the first one
    2  every job carries `host`
    3  every job carries `words` (a search finds it by them) and `first_at`
    4  jobs may name calendars, and windows may hold them back: nodes of the release before know neither; `executions` may
       hold messages, which those nodes do not know; jobs carry `remove_at` and `last_at`; jobs may have callbacks, and
       run after others; deleted ones keep their callbacks until `told_until`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

from cluster.core.errors import ConfigurationError
from cluster.store.mongo.deadlines import within
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

SCHEMA_VERSION = 4
SEARCHABLE_VERSION = 3
"""From this version on every job carries its words."""
CALENDARS_VERSION = 4
"""From this version on there is no node that would send on an excluded day, or in spite of a window."""
MESSAGES_VERSION = 4
"""From this version on there are messages."""
FOLLOW_UPS_VERSION = 4
"""From this version on jobs may have callbacks and run after others: nodes of the release before would forget them."""
INDEX_SECONDS = 1800.0
"""So long the indexes of one collection may take to be built: of 100,000 jobs they take half a minute on a busy machine."""
OLDEST_SUPPORTED_VERSION = 1
"""The oldest schema version that this release works on."""

INDEXES: dict[str, list[IndexModel]] = {
    "jobs": [
        IndexModel([("schedule_key", ASCENDING), ("state", ASCENDING), ("_id", ASCENDING)], name="by_schedule"),
        IndexModel("unsettled", name="unsettled", partialFilterExpression={"unsettled": {"$exists": True}}),
        IndexModel("ends_at", name="ending", partialFilterExpression={"ends_at": {"$type": "date"}, "state": "active"}),
        IndexModel(
            "pause.until",
            name="pause_ends",
            partialFilterExpression={"pause.until": {"$type": "date"}, "state": "paused"},
        ),
        IndexModel([("tags", ASCENDING), ("created_at", DESCENDING), ("_id", ASCENDING)], name="by_tag_and_age"),
        IndexModel([("tags", ASCENDING), ("name", ASCENDING), ("_id", ASCENDING)], name="by_tag_and_name"),
        IndexModel([("state", ASCENDING), ("created_at", DESCENDING), ("_id", ASCENDING)], name="by_state"),
        IndexModel("watch.channels", name="by_channel", partialFilterExpression={"watch.channels": {"$exists": True}}),
        IndexModel(
            [("_id", ASCENDING), ("watch.no_run_ms", ASCENDING)],
            name="to_be_heard_of",
            partialFilterExpression={"watch.no_run_ms": {"$gt": 0}},
        ),
        IndexModel("updated_at", name="alerts_told", partialFilterExpression={"channel": {"$exists": True}}),
        IndexModel([("words", ASCENDING), ("created_at", DESCENDING), ("_id", ASCENDING)], name="by_word_and_age"),
        IndexModel([("words", ASCENDING), ("name", ASCENDING), ("_id", ASCENDING)], name="by_word_and_name"),
        IndexModel([("state", ASCENDING), ("name", ASCENDING), ("_id", ASCENDING)], name="by_name"),
        IndexModel([("state", ASCENDING), ("last_run_at", ASCENDING), ("_id", ASCENDING)], name="by_last_run"),
        IndexModel("host", name="by_host"),
        IndexModel("failing", name="failing", partialFilterExpression={"failing": True}),
        # Of nearly all jobs: where hardly any job succeeds, those that do are found by it.
        IndexModel([("failing", ASCENDING), ("_id", ASCENDING)], name="by_failing"),
        IndexModel("ends_at", name="completed", partialFilterExpression={"state": "completed"}),
        IndexModel(
            "remove_at",
            name="to_remove",
            partialFilterExpression={"state": "completed", "remove_at": {"$type": "date"}},
        ),
        IndexModel(
            [("last_at", ASCENDING), ("_id", ASCENDING)],
            name="ended",
            partialFilterExpression={"last_at": {"$type": "date"}, "state": "active"},
        ),
        IndexModel(
            [("first_at", ASCENDING), ("schedule_key", ASCENDING), ("_id", ASCENDING)],
            name="to_begin",
            partialFilterExpression={"first_at": {"$type": "date"}},
        ),
        IndexModel(
            [("calendar.name", ASCENDING), ("calendar.version", ASCENDING), ("_id", ASCENDING)],
            name="by_calendar",
            partialFilterExpression={"calendar.name": {"$exists": True}},
        ),
        *(
            IndexModel(
                f"{name}.channel",
                name=f"{name}_to_channel",
                partialFilterExpression={f"{name}.channel": {"$exists": True}},
            )
            for name in ("on_success", "on_failure")
        ),
        IndexModel("told_until", name="told_until", partialFilterExpression={"told_until": {"$type": "date"}}),
        IndexModel("after.job", name="chained", partialFilterExpression={"after.job": {"$exists": True}}),
        IndexModel(
            "followed_by.job", name="followed_by", partialFilterExpression={"followed_by.job": {"$exists": True}}
        ),
        IndexModel(
            "calendar.key", name="by_regular_schedule", partialFilterExpression={"calendar.key": {"$exists": True}}
        ),
    ],
    "schedules": [
        IndexModel([("next_at", ASCENDING), ("_id", ASCENDING)], name="by_next"),
        IndexModel("stride_at", name="by_stride", partialFilterExpression={"stride_at": {"$type": "date"}}),
    ],
    "executions": [],
    "history": [
        IndexModel("expire_at", name="expire_at", expireAfterSeconds=0),
        IndexModel(
            [("expire_at", DESCENDING), ("_id", DESCENDING)],
            name="unhappy_by_end",
            partialFilterExpression={"state": {"$in": ["cancelled", "dead", "failed", "missed", "skipped"]}},
        ),
        IndexModel("ended_at", name="marked", partialFilterExpression={"mark": True}),
        IndexModel("unfollowed", name="unfollowed", partialFilterExpression={"unfollowed": True}),
        IndexModel("asked_at", name="reopened", partialFilterExpression={"state": "reopened"}),
    ],
    "batches": [IndexModel([("late", ASCENDING), ("claimable_at", ASCENDING)], name="claimable")],
    "messages": [IndexModel([("due_at", ASCENDING), ("_id", ASCENDING)], name="by_due")],
    "dedups": [IndexModel("expire_at", name="expire_at", expireAfterSeconds=0)],
    "leases": [],
    "breakers": [],
    "queues": [],
    "calendars": [],
    "windows": [IndexModel("expire_at", name="expire_at", expireAfterSeconds=0)],
    "channels": [],
    "incidents": [
        IndexModel([("open", ASCENDING), ("checked_at", ASCENDING)], name="open"),
        IndexModel([("opened_at", DESCENDING), ("_id", ASCENDING)], name="by_age"),
        IndexModel("unsent", name="unsent", partialFilterExpression={"unsent": {"$exists": True}}),
        IndexModel("expire_at", name="expire_at", expireAfterSeconds=0),
    ],
    "replays": [IndexModel("expire_at", name="expire_at", expireAfterSeconds=0)],
    "actions": [
        IndexModel([("created_at", DESCENDING), ("_id", DESCENDING)], name="by_age"),
        IndexModel("next_at", name="running", partialFilterExpression={"state": "running"}),
        IndexModel("expire_at", name="expire_at", expireAfterSeconds=0),
    ],
    "action_jobs": [IndexModel("expire_at", name="expire_at", expireAfterSeconds=0)],
    "requested_backfills": [
        IndexModel([("job_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="by_job"),
        IndexModel("next_at", name="running", partialFilterExpression={"state": "running"}),
        IndexModel("expire_at", name="expire_at", expireAfterSeconds=0),
    ],
    "permits": [],
    "nodes": [],
    "backfills": [IndexModel([("cursor_at", ASCENDING), ("_id", ASCENDING)], name="oldest")],
    "stats": [IndexModel("expire_at", name="expire_at", expireAfterSeconds=0)],
    "meta": [],
    "idempotency": [IndexModel("expire_at", name="expire_at", expireAfterSeconds=0)],
    "api_keys": [],
    "sessions": [IndexModel("expire_at", name="expire_at", expireAfterSeconds=0)],
    "verifications": [
        IndexModel("expire_at", name="expire_at", expireAfterSeconds=0),
        IndexModel([("asked_at", DESCENDING)], name="by_age"),
    ],
    "revisions": [],
    "audit": [
        IndexModel([("object", ASCENDING), ("_id", DESCENDING)], name="by_object"),
        IndexModel([("by.key", ASCENDING), ("_id", DESCENDING)], name="by_key"),
    ],
}

WITH_OUTBOX = ("api_keys", "calendars", "channels", "jobs", "meta", "nodes", "queues", "replays", "windows")
"""The collections whose documents carry audit entries that are not copied yet: few documents, most of the time none."""
_OUTBOX = IndexModel("outbox._id", name="outbox", partialFilterExpression={"outbox._id": {"$exists": True}})
for _collection in WITH_OUTBOX:
    INDEXES[_collection].append(_OUTBOX)


async def ensure(db: Database) -> None:
    """Create what is missing. Raises `ConfigurationError` for a standalone server or an unsupported schema version."""
    with operation():
        hello = await db.api.client.admin.command("hello")
        if "setName" not in hello:
            raise ConfigurationError([STANDALONE_PROBLEM])
        existing = set(await db.api.list_collection_names())
        for name, indexes in INDEXES.items():
            if name not in existing:
                try:
                    await db.api.create_collection(name)
                except (CollectionInvalid, OperationFailure) as exc:
                    if isinstance(exc, OperationFailure) and exc.code != 48:  # 48: another node created it just now
                        raise
            if indexes:
                # The deadline of an operation would end the building of an index that takes longer, each time anew.
                with within(INDEX_SECONDS):
                    await db.api[name].create_indexes(indexes)
        await _ensure_documents(db)


STANDALONE_PROBLEM = (
    "MONGODB_URI points at a standalone mongod, which loses acknowledged writes when it crashes. Horae needs a replica "
    "set: start mongod with --replSet rs0 and run rs.initiate() once (one member is enough), or unset MONGODB_URI to "
    "use the embedded one."
)


async def _ensure_documents(db: Database) -> None:
    for collection, document in (
        ("leases", {"_id": "leader", "holder": None, "node": None, "term": 0, "rev": 0, "at": None, "since": None}),
        ("meta", {"_id": "schema", "version": SCHEMA_VERSION}),
    ):
        try:
            await db.api[collection].update_one(
                {"_id": document["_id"]},
                {"$setOnInsert": {k: v for k, v in document.items() if k != "_id"}},
                upsert=True,
            )
        except DuplicateKeyError:  # another node was faster
            continue
    meta = await db.api["meta"].find_one({"_id": "schema"})
    problem = version_problem(None if meta is None else meta["version"])
    if problem is not None:
        raise ConfigurationError([problem])


def version_problem(version: int | None) -> str | None:
    """Why this release cannot work on a database of this schema version, as a sentence; None if it can."""
    if version is None or OLDEST_SUPPORTED_VERSION <= version <= SCHEMA_VERSION:
        return None
    if version > SCHEMA_VERSION:
        return (
            f"the database has schema version {version}, this release knows {SCHEMA_VERSION}: a newer release has "
            "migrated it; run that release or a later one"
        )
    return (
        f"the database has schema version {version}, this release works on {OLDEST_SUPPORTED_VERSION} and "
        f"{SCHEMA_VERSION}: run `horae db migrate` of the releases between, one after the other"
    )


async def version_of(db: Database) -> int | None:
    """The schema version of the database; None if it has none yet."""
    with operation():
        meta = await db.api["meta"].find_one({"_id": "schema"})
    return None if meta is None else int(meta["version"])
