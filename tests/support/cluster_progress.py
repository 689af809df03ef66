"""Jobs for whole clusters, and waiting for what a cluster has to do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.processes import Nodes, Receiver


def every_second(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    return [
        {"jobId": f"j{i}", "schedule": "* * * * * *", "api": f"{receiver.url}/ok/{i}", "type": "ATLEAST_ONCE"}
        for i in range(count)
    ]


def recorded_until(nodes: Nodes, until_ms: int) -> bool:
    """Whether nothing due before an instant is owed any more, but what waits for its job to be resumed.

    What has no execution yet is owed too: it becomes one before the change of a job, the schedule, the range or the message
    that stands for it is gone. So those are looked at first, or one that becomes an execution meanwhile would be overlooked.
    """
    before = {"$lt": datetime.fromtimestamp(until_ms / 1000, UTC)}
    if nodes.db["jobs"].find_one({"unsettled": {"$exists": True}}, {}):
        return False
    for collection, due in (("schedules", "next_at"), ("backfills", "from"), ("messages", "due_at")):
        if nodes.db[collection].find_one({due: before}, {}):
            return False
    paused = [d["_id"] for d in nodes.db["jobs"].find({"state": "paused"}, {"_id": 1})]
    return nodes.db["executions"].count_documents({"due_at": before, "job_id": {"$nin": paused}}, limit=1) == 0


def next_second(nodes: Nodes) -> int:
    return nodes.now_ms() // 1000 * 1000 + 1000


def settle(nodes: Nodes) -> None:
    wait_until(
        lambda: nodes.db["jobs"].count_documents({"unsettled": {"$exists": True}}, limit=1) == 0, 20, "settled jobs"
    )


def wait_past(nodes: Nodes, instant_ms: int, seconds: float = 60) -> None:
    """By the database's clock."""
    deadline = time.monotonic() + seconds
    while (left_ms := instant_ms - nodes.now_ms()) > 0:
        assert time.monotonic() < deadline, f"{left_ms} ms are left after {seconds} s"
        time.sleep(min(left_ms / 1000 + 0.001, 1.0))
