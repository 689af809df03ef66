"""From one schema version to the next, on a live cluster. Bounded steps whose place is kept: it may be broken off anywhere.

A step only adds what the version before does not mind, with filters that leave alone what a node writes meanwhile, so
repeating one is harmless. The version is raised last.
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
    """What was done: from which version to which, and how many documents were changed by this call."""

    before: int
    after: int
    changed: int


async def outdated_nodes(db: Database) -> list[str]:
    """Live nodes of a release that does not know the new version: it could not be started again after this."""
    with operation():
        hello = await db.api.client.admin.command("hello")
        found = await db.api["nodes"].find({}, {"seen_at": 1, "schema": 1}).to_list()
    now_ms = int(hello["localTime"].timestamp() * 1000)
    old = [d for d in found if d.get("schema", 1) < schema.SCHEMA_VERSION]
    return sorted(str(d["_id"]) for d in old if now_ms - int(d["seen_at"]) < ALIVE_MS)


async def migrate(
    db: Database, on_progress: Callable[[int], None] = lambda _: None, *, pages: int | None = None
) -> Migrated:
    """Bring the database to this release's version, from where an earlier call broke off. `tell` hears the count.

    At most `pages` bounded steps, all of them if None. Raises `Conflict` while old nodes live, `ConfigurationError` for
    a version that cannot be brought here.
    """
    await schema.ensure(db)
    before = await schema.version_of(db) or schema.SCHEMA_VERSION
    if before == schema.SCHEMA_VERSION:
        return Migrated(before, before, 0)
    if old := await outdated_nodes(db):
        raise Conflict(
            f"{', '.join(old[:5])} run(s) a release that does not know schema version {schema.SCHEMA_VERSION}: replace "
            "every node first, then migrate"
        )
    changed = done = 0
    while pages is None or done < pages:
        more, n = await _hosts_page(db)
        changed += n
        done += 1
        on_progress(changed)
        if not more:
            await _raise_version(db, before)
            return Migrated(before, schema.SCHEMA_VERSION, changed)
    return Migrated(before, before, changed)


async def _hosts_page(db: Database) -> tuple[bool, int]:
    """1 -> 2: jobs without `host` get it, in order of id. Whether there may be more, and how many were changed."""
    with operation():
        place = await db.api["meta"].find_one({"_id": PROGRESS_ID})
        after = "" if place is None else place["after"]
        query: Document = {"_id": {"$gt": after}, "host": {"$exists": False}}
        found = await db.api["jobs"].find(query, {"url": 1}).sort("_id", 1).limit(PAGE).to_list()
        # The URL is in the filter: a job that is changed meanwhile is written by a node that knows `host`.
        writes = [
            UpdateOne(
                {"_id": d["_id"], "url": d["url"], "host": {"$exists": False}}, {"$set": {"host": _host(d["url"])}}
            )
            for d in found
        ]
        changed = 0
        if writes:
            changed = (await db.api["jobs"].bulk_write(writes, ordered=False)).modified_count
            await db.api["meta"].update_one({"_id": PROGRESS_ID}, {"$set": {"after": found[-1]["_id"]}}, upsert=True)
    return len(found) == PAGE, changed


def _host(url: str) -> str:
    try:
        return parse_target(url).host_port
    except ValueError:  # what no longer counts as a URL is refused when it is sent; it has no host to be told apart by
        return ""


async def _raise_version(db: Database, before: int) -> None:
    with operation():
        await db.api["meta"].update_one(
            {"_id": "schema", "version": before}, {"$set": {"version": schema.SCHEMA_VERSION}}
        )
        await db.api["meta"].delete_one({"_id": PROGRESS_ID})
