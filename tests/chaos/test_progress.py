"""When a run under faults is over: nothing that was due before its end is owed, in whatever form it waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from pymongo import MongoClient

from tests.support.cluster_progress import recorded_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.processes import Nodes

END = datetime(2030, 1, 1, tzinfo=UTC)
EARLIER = END - timedelta(seconds=5)
OWED: dict[str, tuple[str, dict[str, Any]]] = {
    "an execution": ("executions", {"due_at": EARLIER, "job_id": "j"}),
    "a range to catch up": ("backfills", {"from": EARLIER, "to": END}),
    "a schedule behind": ("schedules", {"next_at": EARLIER}),
    "a message that waits": ("messages", {"due_at": EARLIER}),
}


@pytest.fixture
def nodes(mongodb_uri: str, db_name: str) -> Iterator[Nodes]:
    with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client:
        yield cast("Nodes", SimpleNamespace(db=client[db_name]))


@pytest.mark.parametrize(("collection", "owed"), OWED.values(), ids=OWED)
def test_a_run_is_not_over_while_something_is_owed(nodes: Nodes, collection: str, owed: dict[str, Any]) -> None:
    """What is due at its end or later does not belong to it, nor what waits until its job is resumed."""
    end_ms = int(END.timestamp() * 1000)
    assert recorded_until(nodes, end_ms)
    nodes.db[collection].insert_one({"_id": "owed", **owed})
    assert not recorded_until(nodes, end_ms)
    assert recorded_until(nodes, end_ms - 5000)


def test_what_waits_for_its_job_to_be_resumed_does_not_hold_up_the_end(nodes: Nodes) -> None:
    """Nobody resumes it."""
    nodes.db["jobs"].insert_one({"_id": "j", "state": "paused"})
    nodes.db["executions"].insert_one({"_id": "owed", **OWED["an execution"][1]})
    assert recorded_until(nodes, int(END.timestamp() * 1000))
