"""Whole clusters from outside: what was owed arrives, on time, and twice only where a node died."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.cluster_progress import every_second, next_second, recorded_until, settle, wait_past
from tests.support.processes import end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.processes import Nodes, Receiver

pytestmark = pytest.mark.timeout(180)


def audit(nodes: Nodes, receiver: Receiver, jobs: int, start_ms: int, end_ms: int) -> tuple[int, int]:
    """Every second of every job between two whole seconds has arrived and is in history as succeeded.

    Returns the longest lateness (ms, the receiver's clock) and how many executions came more than once.
    """
    wait_until(lambda: recorded_until(nodes, end_ms), 60, "everything due is recorded")
    expected = [f"j{i}:{t}" for i in range(jobs) for t in range(start_ms, end_ms, 1000)]
    came = receiver.by_execution()
    if any(e not in came for e in expected):  # its log is flushed a few times a second
        wait_until(lambda: set(expected) <= set(receiver.by_execution()) or None, 5, "the last arrivals")
        came = receiver.by_execution()
    missing = [e for e in expected if e not in came]
    assert not missing, f"{len(missing)} of {len(expected)} never arrived, such as {missing[:5]}"
    final = {
        h["_id"]: h["state"]
        for h in nodes.db["history"].find({"due_at": {"$gte": _date(start_ms), "$lt": _date(end_ms)}}, {"state": 1})
    }
    assert all(final.get(e) == "succeeded" for e in expected)
    assert set(final) == set(expected), "history has what nobody owed"
    late = max(came[e][0].at_ms - int(e.split(":")[1]) for e in expected)
    early = min(came[e][0].at_ms - int(e.split(":")[1]) for e in expected)
    assert early >= -20, f"something was {-early} ms early"
    return late, sum(len(came[e]) > 1 for e in expected)


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def living_leader(nodes: Nodes) -> str:
    """The leader, once there is one whose process lives."""

    def look() -> str | None:
        leader = nodes.leader()
        return leader if leader in nodes.alive() else None

    return wait_until(look, 30, "a living leader")


def succeeded(nodes: Nodes, name: str, count: int) -> None:
    """Wait until a node is gone and its successor is there."""
    wait_until(lambda: name not in nodes.alive() and len(nodes.alive()) == count, 30, "the node's successor")


def test_ten_thousand_executions_on_three_nodes(cluster: Callable[..., Nodes], receiver: Receiver) -> None:
    """None lost, none doubled, every node takes part, nobody is surprised."""
    nodes = cluster(3)
    at = next_second(nodes) + 20_000  # an import of so many takes long on a busy machine
    when = datetime.fromtimestamp(at / 1000, UTC).isoformat().replace("+00:00", "Z")
    nodes.load(
        [
            {"jobId": f"j{i}", "schedule": f"@at {when}", "api": f"{receiver.url}/ok/{i}", "type": "ATLEAST_ONCE"}
            for i in range(10_000)
        ]
    )
    wait_until(lambda: nodes.db["history"].estimated_document_count() >= 10_000, 60, "10,000 in history")
    came = wait_until(lambda: found if len(found := receiver.by_execution()) == 10_000 else None, 10, "10,000 arrivals")
    assert all(len(arrivals) == 1 for arrivals in came.values())
    assert nodes.db["executions"].count_documents({}) == 0
    wait_until(lambda: nodes.db["batches"].count_documents({}) == 0, 15, "batches to be gone")
    took_part = nodes.db["history"].distinct("attempts.node")
    assert len(took_part) == 3
    assert "error" not in nodes.log().lower()


def test_kill_the_leader_then_a_node_then_the_leader(cluster: Callable[..., Nodes], receiver: Receiver) -> None:
    """Under load every occurrence arrives within a lease and a second; twice comes only what a dead node held."""
    nodes = cluster(3)
    jobs = 300
    nodes.load(every_second(receiver, jobs))
    settle(nodes)
    start = next_second(nodes) + 2000
    wait_past(nodes, start + 2000)
    killed = []
    for victim in ("leader", "other", "leader"):
        leader = living_leader(nodes)
        name = leader if victim == "leader" else next(n for n in nodes.alive() if n != leader)
        killed.append(name)
        nodes.kill(name)
        succeeded(nodes, name, 3)
        wait_past(nodes, nodes.now_ms() + 4000)
    living_leader(nodes)
    finish = next_second(nodes) + 1000
    wait_past(nodes, finish)
    late, twice = audit(nodes, receiver, jobs, start, finish)
    assert late <= 11_000
    # A second arrival of an attempt is a reclaim: another token, and the first one can only have been a dead node's.
    for arrivals in receiver.by_execution().values():
        seen = [(a.attempt, a.token) for a in arrivals]
        assert len(seen) == len(set(seen)), f"sent twice under one token: {arrivals}"
    assert twice <= 3 * jobs
    assert nodes.db["leases"].find_one({"_id": "leader"})["term"] >= 3  # type: ignore[index]


def test_a_leader_frozen_for_longer_than_its_lease(cluster: Callable[..., Nodes], receiver: Receiver) -> None:
    """It wakes up as a stale leader and a stale owner; nothing it had in its hands is sent again or lost."""
    nodes = cluster(2)
    jobs = 40
    nodes.load(every_second(receiver, jobs))
    settle(nodes)
    start = next_second(nodes) + 2000
    wait_past(nodes, start + 3000)
    leader = nodes.leader()
    assert leader is not None
    pid = nodes.alive()[leader]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: nodes.leader() != leader, 30, "another leader")
        wait_past(nodes, nodes.now_ms() + 13_000)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_past(nodes, nodes.now_ms() + 4000)
    finish = next_second(nodes)
    wait_past(nodes, finish)
    late, _ = audit(nodes, receiver, jobs, start, finish)
    assert late <= 12_000
    for arrivals in receiver.by_execution().values():
        seen = [(a.attempt, a.token) for a in arrivals]
        assert len(seen) == len(set(seen))


def test_a_rolling_stop_loses_and_doubles_nothing(cluster: Callable[..., Nodes], receiver: Receiver) -> None:
    """SIGTERM under load: in flight is finished, unsent is handed back, a successor goes on."""
    nodes = cluster(2)
    jobs = 100
    nodes.load(every_second(receiver, jobs))
    settle(nodes)
    start = next_second(nodes) + 2000
    wait_past(nodes, start + 2000)
    for name, pid in list(nodes.alive().items()):
        os.kill(pid, signal.SIGTERM)
        succeeded(nodes, name, 2)
    began = time.monotonic()
    finish = next_second(nodes) + 2000
    wait_past(nodes, finish)
    late, twice = audit(nodes, receiver, jobs, start, finish)
    assert twice == 0
    assert late <= 3000
    assert nodes.stop() == 0
    assert time.monotonic() - began < 30
    assert nodes.db["batches"].count_documents({"owner": {"$ne": None}}) == 0


@pytest.mark.parametrize("away_s", [15, pytest.param(90, marks=pytest.mark.chaos)])
def test_everything_stopped_and_started_again(cluster: Callable[..., Nodes], receiver: Receiver, away_s: int) -> None:
    """kill -9 of all nodes; what was missed meanwhile is sent once per occurrence, behind what is due now."""
    nodes = cluster(2)
    jobs = 30
    nodes.load(every_second(receiver, jobs))
    settle(nodes)
    start = next_second(nodes) + 2000
    wait_past(nodes, start + 2000)
    os.killpg(nodes.process.pid, signal.SIGKILL)
    nodes.process.wait(5)
    back_at = nodes.now_ms() + away_s * 1000
    wait_until(lambda: nodes.now_ms() >= back_at, away_s + 30, "time to pass")
    nodes.start()
    # Nobody resigned, so the dead leader's lease has to end first; only then can anything be written down.
    living_leader(nodes)
    back = next_second(nodes)
    finish = back + 8000
    wait_past(nodes, finish)
    wait_until(lambda: nodes.db["backfills"].count_documents({}) == 0, 30, "catching up")
    audit(nodes, receiver, jobs, start, finish)
    came = receiver.by_execution()
    present = [came[f"j{i}:{t}"][0].at_ms - t for i in range(jobs) for t in range(back + 1000, finish, 1000)]
    assert max(present) <= 2000, "what is due now waited for what was missed"
    doubled = [e for e, arrivals in came.items() if len({a.token for a in arrivals}) < len(arrivals)]
    assert not doubled


def test_a_job_created_a_second_before_runs_then(cluster: Callable[..., Nodes], receiver: Receiver) -> None:
    """The next occurrence of a new job is not lost because its second is written down already."""
    nodes = cluster(2)
    nodes.load(every_second(receiver, 3))
    wait_past(nodes, next_second(nodes) + 3000)
    wait_past(nodes, next_second(nodes))
    due = nodes.now_ms() // 1000 * 1000 + 2000
    wait_past(nodes, due - 1000)
    second = due // 1000 % 60
    answer = nodes.post(
        "/jobs", {"schedule": f"{second} * * * * *", "api": f"{receiver.url}/ok/new", "type": "ATLEAST_ONCE"}
    )
    assert answer.status_code == 201
    job = answer.json()["jobId"]
    arrival = wait_until(lambda: receiver.by_execution().get(f"{job}:{due}"), 5, "its first run")
    assert -20 <= arrival[0].at_ms - due < 500


def test_pause_resume_and_delete_take_effect_at_once(cluster: Callable[..., Nodes], receiver: Receiver) -> None:
    """Nothing leaves a second after a pause although 15 s are written ahead; after a resume it goes on."""
    nodes = cluster(2)
    nodes.load(every_second(receiver, 2))
    wait_until(lambda: len(receiver.arrivals()) >= 4, 20, "the first runs")
    for verb, method in (("pause", "POST"), ("resume", "POST"), ("delete", "DELETE")):
        path = "/jobs/j0" if verb == "delete" else f"/jobs/j0/{verb}"
        assert httpx.request(method, nodes.url + path).status_code in (200, 204)
        changed = nodes.now_ms()
        wait_past(nodes, changed + 3500)
        after = [a for a in receiver.arrivals() if a.path == "/ok/0" and a.at_ms > changed + 1100]
        assert bool(after) is (verb == "resume"), f"after {verb}: {after[:3]}"
    states = nodes.db["history"].distinct("reason", {"job_id": "j0", "state": "cancelled"})
    assert any("paused" in s or "changed" in s or "resumed" in s for s in states)


def test_ctrl_c_ends_everything(cluster: Callable[..., Nodes], receiver: Receiver) -> None:
    """SIGINT to the whole group, as a terminal sends it, drains and leaves no process."""
    nodes = cluster(2)
    nodes.load(every_second(receiver, 20))
    wait_until(lambda: len(receiver.arrivals()) >= 40, 20, "the first runs")
    began = time.monotonic()
    os.killpg(nodes.process.pid, signal.SIGINT)
    assert nodes.process.wait(15) == 0
    assert time.monotonic() - began < 15
    with pytest.raises(ProcessLookupError):
        os.killpg(nodes.process.pid, 0)
    assert nodes.db["batches"].count_documents({"owner": {"$ne": None}}) == 0
    assert nodes.leader() is None
    end(nodes.process)
