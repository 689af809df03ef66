"""The API as a caller meets it, in this process, on a real MongoDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.api_client import Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster.store.mongo.client import Database


@pytest_asyncio.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async for found in serve(database):
        yield found
