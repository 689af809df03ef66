"""A broken target costs the log a few lines per interval, whatever the rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from structlog.testing import capture_logs

from cluster.core.histogram import Histogram
from cluster.node import Node, NodeSettings
from cluster.outbound.sender import Sender
from cluster.stats_rollup import DIGEST_HOSTS
from tests.support.engine import worker
from tests.support.workers import owed, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_failures_are_counted_and_not_logged(database: Database) -> None:
    """Forty failed attempts log nothing by themselves; they are counted by kind, and summed up by host."""
    await owed(database, *(f"j{n}" for n in range(40)), url="http://127.0.0.1:9/hook?key=pa55")
    w = worker(database, lambda _: httpx.Response(404))
    with capture_logs() as lines:
        await run_dry(w)
    assert not [line for line in lines if line["log_level"] in ("warning", "error")]
    assert w.stats.attempt_results == {"http_4xx": 40}
    assert w.stats.queue_time.total() == w.stats.duration.total() == 40
    [failing] = w.stats.failures.take()
    assert (failing.host, failing.attempts, dict(failing.results)) == ("127.0.0.1:9", 40, {"http_4xx": 40})
    assert failing.execution.startswith("j")


async def test_the_worst_hosts_get_a_line_each() -> None:
    """Ten lines and one for the rest; nothing when nothing failed."""
    node = Node(NodeSettings("mongodb://127.0.0.1:9"), Sender(httpx.MockTransport(lambda _: httpx.Response(200))))
    for n in range(30):
        for _ in range(n + 1):
            node.worker.stats.failures.add(f"https://h{n}.example/x", "timeout", f"j{n}:1")
    with capture_logs() as lines:
        node.stats_rollup.log_failing_hosts()
        node.stats_rollup.log_failing_hosts()
    assert [line["event"] for line in lines] == ["target_failing"] * DIGEST_HOSTS + ["more_targets_failing"]
    assert (lines[0]["host"], lines[0]["attempts"], lines[0]["execution"]) == ("h29.example", 30, "j29:1")
    assert (lines[-1]["hosts"], lines[-1]["attempts"]) == (20, sum(range(1, 21)))
    await node.db.close()


def test_a_histogram_knows_its_sum() -> None:
    """Counts fall into their buckets, bounds included, and the sum is that of the values."""
    h = Histogram(bounds=(10, 100))
    for value in (-5, 10, 10.5, 100, 1000):
        h.add(value)
    assert (h.counts, h.sum, h.total()) == ([2, 2, 1], 1115.5, 5)
