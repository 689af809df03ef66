"""Fixtures for all tests: one real MongoDB per session, one empty database per test."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import settings

from tests.support import leftovers, live, mongo, order
from tests.support.databases import EmptyDatabases, through_one_client
from tests.support.examples import examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cluster.store.mongo.client import Database

GUARD = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_configure(config: pytest.Config) -> None:
    """In the process that the user started, not in the workers of xdist. No test sees the profiles of its user."""
    os.environ["HORAE_CONFIG"] = str(Path(__file__).parent / "no-profiles.json")
    # No test depends on the speed of the machine.
    settings.register_profile("horae", deadline=None, max_examples=examples(100))
    settings.load_profile("horae")
    if not hasattr(config, "workerinput"):
        config.stash[GUARD] = leftovers.begin()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow tests first, in the workers of xdist alone: without them the order is that of the files."""
    if hasattr(config, "workerinput"):
        items[:] = order.for_workers(items, config.workerinput["workercount"])


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is imported and collected stays to the end: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves a process behind has failed."""
    if GUARD in session.config.stash and (left := leftovers.left(os.environ[leftovers.RUN])):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write("\nleft behind:\n" + "\n".join(left) + "\n")


def pytest_unconfigure(config: pytest.Config) -> None:
    if GUARD in config.stash:
        config.stash[GUARD].communicate()


@pytest.fixture(scope="session")
def mongodb_uri() -> Iterator[str]:
    """The replica set of this session."""
    with mongo.server() as uri:
        yield uri


@pytest.fixture(scope="session")
def empty_databases(mongodb_uri: str) -> Iterator[EmptyDatabases]:
    with EmptyDatabases(mongodb_uri) as found:
        yield found


@pytest.fixture
def db_name(empty_databases: EmptyDatabases) -> str:
    """The name of an empty database with its schema: that of `database`, if the test has one."""
    return empty_databases.next()


@pytest_asyncio.fixture
async def database(mongodb_uri: str, db_name: str) -> AsyncIterator[Database]:
    """An empty database with its schema."""
    db = through_one_client(mongodb_uri, db_name)
    yield db
    await db.close()


@pytest.fixture(scope="module")
def node_url(mongodb_uri: str) -> Iterator[str]:
    """A live node without keys, over a socket. It ends with the module: an idle node takes more over a run than a start."""
    with live.node(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}") as url:
        yield url
