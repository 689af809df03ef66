"""Databases for tests that need the collections and indexes, not new ones.

A new database costs a third of a second of processor time, to empty one some milliseconds: the test before has written to
few of its collections, and one query names them.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import TYPE_CHECKING, Any, Self

from pymongo import MongoClient, ReadPreference
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from cluster.store.mongo import client, schema
from cluster.store.mongo.client import Database
from cluster.store.mongo.encryption import Keyring

if TYPE_CHECKING:
    from pymongo.database import Database as SyncDatabase

KEYRING = Keyring((bytes(32),))
WORK_TIMEOUT_MS = 15_000
NOT_AWAITED = WriteConcern(w=1)


def through_one_client(uri: str, name: str) -> Database:
    """A database whose three handles share one client: a node has three for floods, and to connect is most of a test's
    beginning. No member is elected while a test lasts, so the client asks without a connection that streams the answers: a
    quarter of its processor time. `Database.open` is what nodes in a test's process and nodes of their own use.
    """
    polled = f"{uri}{'&' if '?' in uri else '?'}serverMonitoringMode=poll"
    one = client._client(polled, "horae/test", WORK_TIMEOUT_MS, pool=32)
    handle = one.get_database(
        name,
        codec_options=client.CODEC_OPTIONS,
        read_preference=ReadPreference.PRIMARY,
        write_concern=WriteConcern(w="majority", j=True),
        read_concern=ReadConcern("majority"),
    )
    return Database(handle, handle, handle, (one,), KEYRING)


class EmptyDatabases:
    """Two databases that take turns.

    A write that a test has left under way is done before the test after the next one empties that database.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: MongoClient[dict[str, Any]] = MongoClient(uri)
        self._names = [f"test_{uuid.uuid4().hex[:12]}" for _ in range(2)]
        self._turns = itertools.cycle(self._names)
        self._first: dict[str, list[dict[str, Any]]] = {}
        """The documents of a new database, by collection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self._client.drop_database(name)
        self._client.close()

    def next(self) -> str:
        """The name of a database as `schema.ensure` makes it. A test that takes an index away puts it back."""
        database = self._client[next(self._turns)]
        there = set(database.list_collection_names())
        for name in there - schema.INDEXES.keys():
            database.drop_collection(name)
        if not schema.INDEXES.keys() <= there:
            self._make(database.name)
        self._empty(database)
        return database.name

    def _make(self, name: str) -> None:
        async def ensure() -> None:
            made = through_one_client(self._uri, name)
            await schema.ensure(made)
            await made.close()

        loop = asyncio.new_event_loop()  # not `asyncio.run`, which takes the loop of the test's own fixtures away
        loop.run_until_complete(ensure())
        loop.close()
        if not self._first:
            database = self._client[name]
            self._first = {c: list(database[c].find()) for c in _with_documents(database)}

    def _empty(self, database: SyncDatabase[dict[str, Any]]) -> None:
        for name in _with_documents(database):
            database[name].with_options(write_concern=NOT_AWAITED).delete_many({})
        for name, documents in self._first.items():
            # A majority has this one, so it has all before it, and a test reads nothing that was deleted.
            database[name].with_options(write_concern=WriteConcern("majority")).insert_many(documents)


def _with_documents(database: SyncDatabase[dict[str, Any]]) -> list[str]:
    """The collections of the schema that have a document, by one query."""
    first, *others = schema.INDEXES
    union = [{"$unionWith": {"coll": other, "pipeline": _named(other)}} for other in others]
    return [found["name"] for found in database[first].aggregate([*_named(first), *union])]


def _named(collection: str) -> list[dict[str, Any]]:
    """A pipeline that answers with the name of the collection, if it has a document."""
    return [{"$limit": 1}, {"$project": {"_id": 0, "name": {"$literal": collection}}}]
