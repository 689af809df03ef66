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
from cluster.store.mongo import schema
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
        more, n = await _hosts_page(db)
        changed += n
        steps += 1
        on_progress(changed)
        if not more:
            await _raise_version(db, before)
            return Migrated(before, schema.SCHEMA_VERSION, changed)
    return Migrated(before, before, changed)


async def _hosts_page(db: Database) -> tuple[bool, int]:
    """1 -> 2: add `host` to jobs without it, in order of id. Whether there may be more, and how many were changed."""
    with operation():
        progress = await db.api["meta"].find_one({"_id": PROGRESS_ID})
        after = "" if progress is None else progress["after"]
        query: Document = {"_id": {"$gt": after}, "host": {"$exists": False}}
        jobs = await db.api["jobs"].find(query, {"url": 1}).sort("_id", 1).limit(PAGE).to_list()
        # The filter contains the URL: a job that is changed meanwhile gets its `host` from the node that writes it.
        writes = [
            UpdateOne(
                {"_id": d["_id"], "url": d["url"], "host": {"$exists": False}}, {"$set": {"host": _host(d["url"])}}
            )
            for d in jobs
        ]
        changed = 0
        if writes:
            changed = (await db.api["jobs"].bulk_write(writes, ordered=False)).modified_count
            await db.api["meta"].update_one({"_id": PROGRESS_ID}, {"$set": {"after": jobs[-1]["_id"]}}, upsert=True)
    return len(jobs) == PAGE, changed


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
