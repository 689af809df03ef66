"""The bench of reads runs, and its reads work."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo import MongoClient

from ops.bench.api import fill, rows
from tests.support import live


@pytest.mark.parametrize("jobs", [300])
def test_every_kind_of_read_is_measured(mongodb_uri: str, db_name: str, jobs: int) -> None:
    """With a small database; pages hold the stored documents."""
    with live.node(mongodb_uri, db_name) as url, MongoClient[dict[str, Any]](mongodb_uri) as client:
        fill(client[db_name], jobs=jobs, executions=3000)
        found = rows(url, jobs=jobs, requests=20)
        assert len(found) == 7
        assert all(0 < row["p50Ms"] <= row["p99Ms"] <= row["longestMs"] for row in found)
        assert client[db_name]["history"].count_documents({"state": "failed"}) == 8
        assert client[db_name]["jobs"].count_documents({}) == jobs
