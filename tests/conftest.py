"""Fixtures for all tests: one real MongoDB per session, one fresh database per test."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from cluster.store.mongo import schema
from cluster.store.mongo.client import Database
from cluster.store.mongo.encryption import Keyring
from tests.support import live, mongo, run_guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def pytest_configure(config: pytest.Config) -> None:
    """Guard the run: once, in the controller of pytest-xdist, whose workers inherit the mark."""
    if not hasattr(config, "workerinput"):
        run_guard.start()


@pytest.fixture(scope="session")
def mongodb_uri() -> Iterator[str]:
    """The replica set of this session."""
    with mongo.server() as uri:
        yield uri


@pytest.fixture
def db_name() -> str:
    """A name no other test uses."""
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest_asyncio.fixture
async def database(mongodb_uri: str, db_name: str) -> AsyncIterator[Database]:
    """A fresh database with its schema, dropped afterwards."""
    db = Database.open(mongodb_uri, db_name, "test", Keyring((bytes(32),)))
    await schema.ensure(db)
    yield db
    await db.api.client.drop_database(db_name)
    await db.close()


@pytest.fixture(scope="session")
def node_url(mongodb_uri: str) -> Iterator[str]:
    """A live node without keys, over a socket."""
    with live.node(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}") as url:
        yield url
