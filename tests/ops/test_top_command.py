"""`horae top --once` and `--json`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.support.engine import job_document, put_jobs

if TYPE_CHECKING:
    from tests.support.commands import Commands


def test_top_prints_one_snapshot(horae: Commands) -> None:
    """Rates, backlog, nodes, failing hosts. Exit status 1 without a leader."""
    horae.on(lambda db: put_jobs(db, {**job_document("a"), "host": "bad.example.com:443"}))
    now = datetime.now(UTC)
    bad = {"job_id": "a", "state": "dead", "ended_at": now, "expire_at": now + timedelta(days=1)}
    horae.on(lambda db: db.api["history"].insert_one({"_id": "a:1", **bad}))
    seen = horae("top", "--json")
    assert seen.exit_code == 1
    told = json.loads(seen.stdout)
    assert told["failingHosts"] == [
        {"host": "bad.example.com:443", "endedBadly": 1, "waitForRetry": 0, "breaker": None}
    ]
    drawn = horae("top", "--once")
    assert "NO LEADER" in drawn.stdout
    assert "bad.example.com" in drawn.stdout
