"""The API as a caller meets it, in this process, on a real MongoDB."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.support import live
from tests.support.api_client import Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cluster.store.mongo.client import Database


@pytest_asyncio.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async for found in serve(database):
        yield found


@pytest.fixture(scope="session")
def node_url(mongodb_uri: str) -> Iterator[str]:
    """A live node without keys, over a socket."""
    with live.node(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}") as url:
        yield url
