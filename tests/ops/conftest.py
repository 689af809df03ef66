"""Fixtures for tests of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.store.mongo import schema
from tests.support.commands import Commands

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def horae(mongodb_uri: str, db_name: str) -> Iterator[Commands]:
    found = Commands(mongodb_uri, db_name)
    found.on(schema.ensure)
    yield found
    found.on(lambda db: db.api.client.drop_database(db_name))
