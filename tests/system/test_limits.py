"""Overlap and limits over three real nodes together, also when those that hold them are killed."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import plain_http
from tests.support.alert_receivers import HttpServer
from tests.support.cluster_progress import next_second, settle
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler

    from tests.support.processes import Nodes

pytestmark = pytest.mark.timeout(150)


@dataclass
class Slow(HttpServer):
    """A target that takes its time and remembers from when to when each request ran, by its own clock."""

    seconds: float
    runs: list[tuple[float, float, str]] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    now: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, request: BaseHTTPRequestHandler, _: bytes, /) -> None:
        began = time.monotonic()
        with self.lock:
            self.begun.append(began)
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
            self.runs.append((began, time.monotonic(), request.headers["Idempotency-Key"]))
        self.answer(request)


@pytest.fixture
def slow() -> Iterator[Callable[[float], Slow]]:
    opened: list[Slow] = []

    def make(seconds: float) -> Slow:
        opened.append(Slow(seconds).__enter__())
        return opened[-1]

    yield make
    for s in opened:
        s.__exit__()


def _now(nodes: Nodes) -> Any:
    return nodes.client.admin.command("hello")["localTime"]


def holders(nodes: Nodes, jobs: list[str]) -> set[str]:
    """The nodes that have claimed an execution of these jobs that may be sent by now."""
    due = {"job_id": {"$in": jobs}, "send_at": {"$lte": _now(nodes)}}
    return set(holders_of(nodes, due))


def holders_of(nodes: Nodes, which: dict[str, Any]) -> list[str]:
    """The node that holds it, of each of these executions that one holds: their batches say so."""
    batches = [e["batch"] for e in nodes.db["executions"].find(which, {"batch": 1})]
    owners = {b["_id"]: b["owner"] for b in nodes.db["batches"].find({"_id": {"$in": batches}}, {"owner": 1})}
    return [owner for name in batches if (owner := owners.get(name)) is not None]


def most_within_a_second(instants: list[float]) -> int:
    ordered = sorted(instants)
    return max(bisect_left(ordered, first + 1.0) - i for i, first in enumerate(ordered))


@pytest.mark.long
@pytest.mark.takes(50)
def test_overlap_concurrency_and_rate_hold_over_three_nodes_that_are_killed(
    cluster: Callable[..., Nodes], slow: Callable[[float], Slow]
) -> None:
    """A job that skips overlaps, a queue of three at once and a queue of twenty a second, on three nodes.

    The node that holds the running execution of the first and one that holds a permit of the second are killed; then,
    while the third is worked off, the node that holds most of it. No limit is ever passed, nothing is lost, and what the
    dead had asked permits for asks again when their leases have ended.
    """
    solo, three, twenty = slow(2.5), slow(0.3), slow(0.0)
    nodes = cluster(3, HORAE_BATCH_LEASE_SECONDS="5")
    queued = [f"q{i}" for i in range(10)]
    nodes.put("/queues/three", {"maxConcurrent": 3})
    nodes.put("/queues/twenty", {"maxPerSecond": 20})
    nodes.put("/jobs/solo", {"schedule": "* * * * * *", "api": solo.url, "overlap": "skip"})
    for job in queued:
        nodes.put(f"/jobs/{job}", {"schedule": "*/2 * * * * *", "api": three.url, "queue": "three"})
    settle(nodes)
    wait_until(lambda: len(solo.runs) >= 3 and len(three.runs) >= 20, 40, "the first runs")
    victims = wait_until(lambda: holders_of_both(nodes, solo, queued), 20, "holders of both")
    begun, ended = len(solo.begun), len(three.runs)
    for victim in victims:
        nodes.kill(victim)
    load_for_one_instant(nodes, twenty, 120)
    wait_until(lambda: len(twenty.runs) >= 20, 40, "the first of the hundred and twenty")
    wait_until(lambda: len(nodes.alive()) == 3, 30, "successors of the dead")
    third = kill_who_holds_most(nodes)
    wait_until(lambda: len(solo.begun) >= begun + 3, 60, "runs of the job that skips, after the deaths")
    wait_until(lambda: len(three.runs) >= ended + 30, 60, "runs of the queue, after the deaths")
    # What the dead held is sent again when their leases have ended; a deletion before that would cancel it.
    dead = {"owner": {"$in": [*victims, third]}}
    wait_until(lambda: nodes.db["batches"].count_documents(dead) == 0, 30, "the leases of the dead to end")
    wait_until(lambda: nodes.db["executions"].count_documents({"token": {"$gt": 1}}) == 0, 30, "their work to be done")
    rated = {"job_id": {"$regex": "^r"}, "state": "succeeded"}
    wait_until(lambda: nodes.db["history"].count_documents(rated) == 120, 60, "all of the hundred and twenty")
    for job in ["solo", *queued]:
        assert plain_http.delete(f"{nodes.url}/jobs/{job}").status_code == 204
    wait_until(lambda: nodes.db["executions"].count_documents({}) == 0, 60, "what was owed to end")
    check_no_overlap(nodes, solo)
    check_concurrency(nodes, three)
    check_rate(nodes, twenty)


def holders_of_both(nodes: Nodes, solo: Slow, queued: list[str]) -> set[str]:
    """The node that holds the run under way, and one that holds something of the queue; it may be the same."""
    running, queue = holders(nodes, ["solo"]), holders(nodes, queued)
    return {*running, min(queue)} if solo.now and running and queue else set()


def load_for_one_instant(nodes: Nodes, target: Slow, count: int) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((next_second(nodes) + 6000) / 1000))
    job = {"schedule": f"@at {at}", "api": target.url, "queue": "twenty"}
    nodes.load([{"jobId": f"r{i}", **job} for i in range(count)])


def kill_who_holds_most(nodes: Nodes) -> str:
    """The node that holds most of the queue of twenty a second; its name."""
    alive = nodes.alive()

    def look() -> str | None:
        owners = [name for name in holders_of(nodes, {"job_id": {"$regex": "^r"}}) if name in alive]
        return max(set(owners), key=owners.count) if owners else None

    victim = wait_until(look, 10, "a holder of the rest")
    nodes.kill(victim)
    assert nodes.db["batches"].count_documents({"owner": victim}), "the dead node must hold something"
    return victim


def check_no_overlap(nodes: Nodes, target: Slow) -> None:
    """One run at a time; every other occurrence was skipped with the reason. The run whose node was killed is sent again,
    and its target may be at work on the first request still."""
    runs = sorted(target.runs)
    for (_, ended, name), (began, _, following) in pairwise(runs):
        assert began >= ended or name == following, f"{following} began while {name} ran"
    assert target.most <= 2
    states = {h["_id"]: h for h in nodes.db["history"].find({"job_id": "solo", "state": {"$ne": "cancelled"}})}
    for _, _, name in runs:
        assert states[name]["state"] == "succeeded"
    skipped = [h for h in states.values() if h["state"] == "skipped"]
    assert len(skipped) >= len(runs)
    assert {h["reason"] for h in skipped} == {"the run before it had not ended"}
    due = sorted(int(name.split(":")[1]) for name in states)
    assert due == list(range(due[0], due[-1] + 1000, 1000)), "an occurrence has neither run nor been skipped"


def check_concurrency(nodes: Nodes, target: Slow) -> None:
    """Never four at once; each request belongs to an execution that succeeded."""
    assert target.most <= 3
    history = nodes.db["history"]
    succeeded = {h["_id"] for h in history.find({"job_id": {"$regex": "^q"}, "state": "succeeded"})}
    assert {name for _, _, name in target.runs} == succeeded
    assert history.count_documents({"state": {"$in": ["failed", "dead", "missed"]}}) == 0


def check_rate(nodes: Nodes, target: Slow) -> None:
    """No second has more than twenty, give or take the tenth of a second within which a permit is used.

    On a busy machine requests on their way may come to the target together with those that follow; that is still less
    than the permits of a dead node would add.
    """
    left = [
        a["sent_at"].timestamp() for h in nodes.db["history"].find({"job_id": {"$regex": "^r"}}) for a in h["attempts"]
    ]
    assert len(left) >= 120
    assert most_within_a_second(left) <= 24
    assert most_within_a_second(target.begun) <= 36
    assert len({name for _, _, name in target.runs}) == 120
