"""Databases for tests that need the collections and indexes, not new ones: to empty them takes a quarter of the time."""

from __future__ import annotations

import itertools
import uuid
from typing import Any, Self

from pymongo import MongoClient

from cluster.store.mongo import schema


class EmptyDatabases:
    """Two databases that take turns.

    A write that a test has left under way is done before the test after the next one empties that database.
    """

    def __init__(self, uri: str) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(uri)
        self._names = [f"test_{uuid.uuid4().hex[:12]}" for _ in range(2)]
        self._turns = itertools.cycle(self._names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self._client.drop_database(name)
        self._client.close()

    def next(self) -> str:
        """The name of a database without a document; `schema.ensure` makes those that every database has."""
        database = self._client[next(self._turns)]
        for name in database.list_collection_names():
            if name in schema.INDEXES:
                database[name].delete_many({})
            else:
                database.drop_collection(name)
        return database.name
