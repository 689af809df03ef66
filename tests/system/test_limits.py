"""Overlap and limits kept by three real nodes together, also when the one that held them is killed."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.cluster_progress import next_second, settle, wait_past
from tests.support.ears import Listening
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler

    from tests.support.processes import Nodes

pytestmark = pytest.mark.timeout(150)


@dataclass
class Slow(Listening):
    """A target that takes its time and remembers from when to when each request ran, by its own clock."""

    seconds: float
    runs: list[tuple[float, float, str]] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    now: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def heard(self, request: BaseHTTPRequestHandler, _: bytes, /) -> None:
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


def holder(nodes: Nodes, job: str) -> str | None:
    """The node that has a run of this job in its hands."""
    found = nodes.db["executions"].find_one({"job_id": job, "state": "leased", "send_at": {"$lte": _now(nodes)}})
    return None if found is None else found["owner"]


def _now(nodes: Nodes) -> Any:
    return nodes.client.admin.command("hello")["localTime"]


def test_never_two_at_once_whoever_dies(cluster: Callable[..., Nodes], slow: Callable[[float], Slow]) -> None:
    """A job every second, a target that takes 2.5 s: one run at a time, the others skipped with the reason; the death
    of the node that holds the running one delays the next by a lease and breaks nothing."""
    target = slow(2.5)
    nodes = cluster(3)
    nodes.put("/jobs/solo", {"schedule": "* * * * * *", "api": target.url, "overlap": "skip"})
    settle(nodes)
    wait_until(lambda: len(target.runs) >= 3, 30, "the first runs")
    victim = wait_until(lambda: holder(nodes, "solo") if target.now else None, 20, "a run under way")
    begun = len(target.begun)
    nodes.kill(victim)
    wait_until(lambda: len(target.begun) >= begun + 3, 60, "runs after the death")
    assert httpx.post(f"{nodes.url}/jobs/solo/pause", timeout=10).status_code == 200
    wait_until(lambda: target.now == 0 and not holder(nodes, "solo"), 30, "the last run to end")
    wait_past(nodes, next_second(nodes) + 1000)
    runs = sorted(target.runs)
    for (_, ended, name), (began, _, following) in pairwise(runs):
        assert began >= ended, f"{following} began while {name} ran"
    assert target.most == 1
    states = {h["_id"]: h for h in nodes.db["history"].find({"job_id": "solo", "state": {"$ne": "cancelled"}})}
    for _, _, name in runs:
        assert states[name]["state"] == "succeeded"
    skipped = [h for h in states.values() if h["state"] == "skipped"]
    assert len(skipped) >= len(runs)
    assert {h["reason"] for h in skipped} == {"the run before it had not ended"}
    due = sorted(int(name.split(":")[1]) for name in states)
    assert due == list(range(due[0], due[-1] + 1000, 1000)), "an occurrence has neither run nor been skipped"


def test_a_queue_holds_over_all_nodes_whoever_dies(
    cluster: Callable[..., Nodes], slow: Callable[[float], Slow]
) -> None:
    """Ten jobs every two seconds through a queue of three at once: never four, none lost, and the permits of a killed
    node come back."""
    target = slow(0.3)
    nodes = cluster(3)
    nodes.put("/queues/three", {"maxConcurrent": 3})
    for i in range(10):
        nodes.put(f"/jobs/q{i}", {"schedule": "*/2 * * * * *", "api": target.url, "queue": "three"})
    settle(nodes)
    wait_until(lambda: len(target.runs) >= 20, 40, "the first runs")
    victim = wait_until(lambda: next((n for i in range(10) if (n := holder(nodes, f"q{i}"))), None), 20, "a holder")
    nodes.kill(victim)
    before = len(target.runs)
    wait_until(lambda: len(target.runs) >= before + 30, 60, "runs after the death")
    # What it had in its hands is sent again when its lease has ended; a pause before that would cancel it.
    wait_until(lambda: nodes.db["executions"].count_documents({"owner": victim}) == 0, 30, "its leases to end")
    wait_until(lambda: nodes.db["executions"].count_documents({"token": {"$gt": 1}}) == 0, 30, "its work to be done")
    for i in range(10):
        assert httpx.post(f"{nodes.url}/jobs/q{i}/pause", timeout=10).status_code == 200
    wait_until(lambda: nodes.db["executions"].count_documents({}) == 0, 60, "what was owed to end")
    assert target.most <= 3
    succeeded = {h["_id"] for h in nodes.db["history"].find({"state": "succeeded"})}
    assert {name for _, _, name in target.runs} == succeeded
    assert nodes.db["history"].count_documents({"state": {"$in": ["failed", "dead", "missed"]}}) == 0


def test_a_rate_is_kept_by_all_nodes_together(cluster: Callable[..., Nodes], slow: Callable[[float], Slow]) -> None:
    """Sixty jobs due at one instant through a queue of twenty a second: it takes three seconds, evenly, none lost."""
    target = slow(0.0)
    nodes = cluster(3)
    nodes.put("/queues/twenty", {"maxPerSecond": 20})
    at = next_second(nodes) + 6000
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at / 1000))
    jobs = [{"jobId": f"r{i}", "schedule": f"@at {stamp}", "api": target.url, "queue": "twenty"} for i in range(60)]
    nodes.load(jobs)
    wait_until(lambda: len(target.runs) >= 60, 40, "all of them")
    begun = sorted(target.begun)
    assert begun[-1] - begun[0] >= 2.5
    assert most_within_a_second(begun) <= 24  # permits are used up to a tenth of a second late
    assert len(target.runs) == 60


def most_within_a_second(instants: list[float]) -> int:
    ordered = sorted(instants)
    return max(bisect_left(ordered, first + 1.0) - i for i, first in enumerate(ordered))


def test_a_rate_is_kept_when_a_node_is_killed(cluster: Callable[..., Nodes], slow: Callable[[float], Slow]) -> None:
    """A hundred and twenty through twenty a second, and the node that holds most of them is killed: what it had asked
    permits for waits for its lease, asks again, and no second has more of them than before."""
    target = slow(0.0)
    nodes = cluster(3)
    nodes.put("/queues/twenty", {"maxPerSecond": 20})
    at = next_second(nodes) + 6000
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at / 1000))
    jobs = [{"jobId": f"r{i}", "schedule": f"@at {stamp}", "api": target.url, "queue": "twenty"} for i in range(120)]
    nodes.load(jobs)
    wait_until(lambda: len(target.runs) >= 20, 40, "the first ones")
    owners = [b["owner"] for b in nodes.db["batches"].find({"owner": {"$ne": None}})]
    victim = max(set(owners), key=owners.count)
    nodes.kill(victim)
    held = nodes.db["executions"].count_documents({"owner": victim})
    assert held, "the dead node must have something in its hands"
    wait_until(lambda: nodes.db["history"].count_documents({"state": "succeeded"}) == 120, 60, "all of them")
    # A permit may be used 100 ms after its instant. What is on its way when a busy machine stands still for half a second
    # comes to the target together with what follows, and is still less than the permits of a dead node would add.
    left = [a["sent_at"].timestamp() for h in nodes.db["history"].find() for a in h["attempts"]]
    assert len(left) >= 120
    assert most_within_a_second(left) <= 24
    assert most_within_a_second(target.begun) <= 36
    assert len({name for _, _, name in target.runs}) == 120
    wait_until(lambda: nodes.db["executions"].count_documents({}) == 0, 10, "what was owed to be removed")
