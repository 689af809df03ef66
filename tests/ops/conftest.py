"""Fixtures for tests of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.commands import Commands
from tests.support.moving import Moved

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def horae(mongodb_uri: str, db_name: str) -> Commands:
    return Commands(mongodb_uri, db_name)


@pytest.fixture
def moved(node_url: str) -> Iterator[Moved]:
    found = Moved(node_url)
    found.wipe()  # other files have tests with the same node
    yield found
    found.wipe()
