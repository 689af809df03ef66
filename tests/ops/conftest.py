"""Fixtures for tests of commands."""

from __future__ import annotations

import pytest

from tests.support.commands import Commands


@pytest.fixture
def horae(mongodb_uri: str, db_name: str) -> Commands:
    return Commands(mongodb_uri, db_name)
