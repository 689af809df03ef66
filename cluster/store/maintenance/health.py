"""The reads of `horae db check`. Facts that the database user may not read are None: readWrite on one database is enough
to run Horae.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo.errors import OperationFailure

from cluster.store.mongo.operation import operation
from cluster.store.mongo.schema import INDEXES, version_of

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

FORBIDDEN = 13


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the replica set. `lag_ms`: how far its last write is behind that of the primary; None if unknown."""

    name: str
    state: str
    healthy: bool
    lag_ms: int | None


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the database. Instants and durations in ms."""

    server: str
    set_name: str | None
    schema_version: int | None
    missing_collections: list[str]
    missing_indexes: list[str]
    members: list[Member] | None
    oplog_window_ms: int | None
    now_ms: int
    round_trip_ms: float


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """The replica set, without a look at collections. Durations in ms."""

    server: str
    set_name: str | None
    schema_version: int | None
    members: list[Member] | None
    oplog_window_ms: int | None
    round_trip_ms: float


async def read_replica_set(db: Database, monotonic: Any) -> ReplicaSet:
    """Read the state of the replica set. `monotonic` returns seconds."""
    with operation():
        started = monotonic()
        hello = await db.api.client.admin.command("hello")
        round_trip_ms = (monotonic() - started) * 1000
        server = (await db.api.client.admin.command("buildInfo"))["version"]
        members = await _members(db)
        oplog_window_ms = await _oplog_window_ms(db)
    return ReplicaSet(
        server=server,
        set_name=hello.get("setName"),
        schema_version=await version_of(db),
        members=members,
        oplog_window_ms=oplog_window_ms,
        round_trip_ms=round_trip_ms,
    )


async def read_health(db: Database, monotonic: Any) -> Health:
    """Read the state of the database. `monotonic` returns seconds."""
    of_set = await read_replica_set(db, monotonic)
    with operation():
        hello = await db.api.client.admin.command("hello")
        collections = set(await db.api.list_collection_names())
        missing_indexes = []
        for name, wanted in INDEXES.items():
            if name in collections and wanted:
                existing = set(await db.api[name].index_information())
                missing_indexes += [
                    f"{name}.{i.document['name']}" for i in wanted if i.document["name"] not in existing
                ]
    return Health(
        server=of_set.server,
        set_name=of_set.set_name,
        schema_version=of_set.schema_version,
        missing_collections=sorted(set(INDEXES) - collections),
        missing_indexes=missing_indexes,
        members=of_set.members,
        oplog_window_ms=of_set.oplog_window_ms,
        now_ms=int(hello["localTime"].timestamp() * 1000),
        round_trip_ms=of_set.round_trip_ms,
    )


async def _members(db: Database) -> list[Member] | None:
    try:
        status = await db.api.client.admin.command("replSetGetStatus")
    except OperationFailure as exc:
        if exc.code != FORBIDDEN:
            raise
        return None
    written = {m["name"]: m["optimeDate"] for m in status["members"] if m.get("optimeDate")}
    primary = next((m["name"] for m in status["members"] if m["stateStr"] == "PRIMARY"), None)
    members = []
    for m in status["members"]:
        lag = None
        if primary in written and m["name"] in written and m["stateStr"] in ("PRIMARY", "SECONDARY"):
            lag = max(0, int((written[primary] - written[m["name"]]).total_seconds() * 1000))
        members.append(Member(m["name"], m["stateStr"], bool(m["health"]), lag))
    return members


async def _oplog_window_ms(db: Database) -> int | None:
    oplog = db.api.client["local"]["oplog.rs"]
    try:
        first = await oplog.find_one({}, {"ts": 1}, sort=[("$natural", 1)])
        last = await oplog.find_one({}, {"ts": 1}, sort=[("$natural", -1)])
    except OperationFailure as exc:
        if exc.code != FORBIDDEN:
            raise
        return None
    return None if first is None or last is None else (last["ts"].time - first["ts"].time) * 1000
