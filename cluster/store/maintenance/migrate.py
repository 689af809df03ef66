"""Migration from one schema version to the next, on a live cluster, in bounded steps. It may be interrupted anywhere,
because the progress is stored.

A step only adds fields that the version before ignores, and its filters leave out documents that a node writes meanwhile,
so it may be repeated. The schema version is raised last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymongo import UpdateOne

from cluster.core.errors import Conflict
from cluster.core.targets import parse_target
from cluster.store.jobs import stored_job
from cluster.store.mongo import schema
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.listing_fields import listing_fields
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.mongo.client import Database, Document

PAGE = 500
ALIVE_MS = 10_000
PROGRESS_ID = "migration"


@dataclass(frozen=True, slots=True)
class Migrated:
    """The schema versions before and after this call, and how many documents it changed."""

    before: int
    after: int
    changed: int


async def outdated_nodes(db: Database) -> list[str]:
    """Live nodes of a release that does not know the new schema version and could not start again after the migration."""
    with operation():
        hello = await db.api.client.admin.command("hello")
        heartbeats = await db.api["nodes"].find({}, {"seen_at": 1, "schema": 1}).to_list()
    now_ms = int(hello["localTime"].timestamp() * 1000)
    outdated = [d for d in heartbeats if d.get("schema", 1) < schema.SCHEMA_VERSION]
    return sorted(str(d["_id"]) for d in outdated if now_ms - int(d["seen_at"]) < ALIVE_MS)


async def migrate(
    db: Database, on_progress: Callable[[int], None] = lambda _: None, *, pages: int | None = None
) -> Migrated:
    """Migrate the database to the schema version of this release, from where an earlier call was interrupted.

    At most `pages` bounded steps, all of them if None. `on_progress` is called with the number of documents changed so far.
    Raises `Conflict` while outdated nodes are alive, `ConfigurationError` for a version that cannot be migrated.
    """
    await schema.ensure(db)
    before = await schema.version_of(db) or schema.SCHEMA_VERSION
    if before == schema.SCHEMA_VERSION:
        return Migrated(before, before, 0)
    if outdated := await outdated_nodes(db):
        raise Conflict(
            f"{', '.join(outdated[:5])} run(s) a release that does not know schema version {schema.SCHEMA_VERSION}: "
            "replace every node first, then migrate"
        )
    changed = steps = 0
    while pages is None or steps < pages:
        more, n = await _jobs_page(db)
        changed += n
        steps += 1
        on_progress(changed)
        if not more:
            await _raise_version(db, before)
            return Migrated(before, schema.SCHEMA_VERSION, changed)
    return Migrated(before, before, changed)


async def _jobs_page(db: Database) -> tuple[bool, int]:
    """Complete jobs in order of id: `host` (1 -> 2), `words` and `first_at` (2 -> 3),
    `last_at` (3 -> 4).

    Returns whether there may be more, and how many were changed.
    """
    with operation():
        progress = await db.api["meta"].find_one({"_id": PROGRESS_ID})
        after = "" if progress is None else progress["after"]
        documents = await db.api["jobs"].find({"_id": {"$gt": after}}, {"past": 0}).sort("_id", 1).limit(PAGE).to_list()
        # The filter contains URL and revision: a job that is changed meanwhile gets its fields from the node that writes it.
        writes = [
            UpdateOne({"_id": d["_id"], "url": d["url"], "revision": d["revision"]}, {"$set": missing})
            for d in documents
            if (missing := _missing_fields(d))
        ]
        changed = 0
        if writes:
            changed = (await db.api["jobs"].bulk_write(writes, ordered=False)).modified_count
        if documents:
            last = documents[-1]["_id"]
            await db.api["meta"].update_one({"_id": PROGRESS_ID}, {"$set": {"after": last}}, upsert=True)
    return len(documents) == PAGE, changed


def _missing_fields(d: Document) -> Document:
    """The fields of a job that are missing or that a node of the release before left as they were when it changed the job."""
    wanted: Document = {}
    if "host" not in d:
        wanted["host"] = _host(d["url"])
    if d.get("channel") is None:
        for job in decode_readable("job", [d], stored_job):
            wanted |= listing_fields(job)
    return {name: value for name, value in wanted.items() if name not in d or d[name] != value}


def _host(url: str) -> str:
    try:
        return parse_target(url).host_port
    except ValueError:  # a URL that is not accepted any more: refused when it is sent, and of no host
        return ""


async def _raise_version(db: Database, before: int) -> None:
    with operation():
        await db.api["meta"].update_one(
            {"_id": "schema", "version": before}, {"$set": {"version": schema.SCHEMA_VERSION}}
        )
        await db.api["meta"].delete_one({"_id": PROGRESS_ID})
