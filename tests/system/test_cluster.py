"""Whole clusters from outside: what was owed arrives, on time, and twice only where a node died."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.support import plain_http
from tests.support.cluster_progress import every_second, next_second, recorded_until, settle, wait_past
from tests.support.processes import end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.processes import Nodes, Receiver

pytestmark = pytest.mark.timeout(180)

SHORT_LEASES = {
    "HORAE_LEADER_LEASE_SECONDS": "3",
    "HORAE_LOOKAHEAD_SECONDS": "8",
    "HORAE_BATCH_LEASE_SECONDS": "5",
}
"""Failures are noticed in half the time."""


def check_arrivals(nodes: Nodes, receiver: Receiver, jobs: int, start_ms: int, end_ms: int) -> tuple[int, int]:
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


def wait_for_successor(nodes: Nodes, name: str, count: int) -> None:
    """Wait until a node has ended and as many run as before."""
    wait_until(lambda: name not in nodes.alive() and len(nodes.alive()) == count, 30, "the node's successor")


@pytest.mark.long
@pytest.mark.takes(20)
def test_four_thousand_executions_arrive_once_through_three_nodes(
    cluster: Callable[..., Nodes], receiver: Receiver
) -> None:
    """All due at one instant: none lost, none doubled, every node takes part, no error in the log."""
    nodes = cluster(3)
    count = 4000
    at = next_second(nodes) + 20_000  # an import of so many takes long on a busy machine
    when = datetime.fromtimestamp(at / 1000, UTC).isoformat().replace("+00:00", "Z")
    nodes.load(
        [
            {"jobId": f"j{i}", "schedule": f"@at {when}", "api": f"{receiver.url}/ok/{i}", "type": "ATLEAST_ONCE"}
            for i in range(count)
        ]
    )
    wait_until(lambda: nodes.db["history"].estimated_document_count() >= count, 60, "all in history")
    came = wait_until(lambda: found if len(found := receiver.by_execution()) == count else None, 10, "all arrivals")
    assert all(len(arrivals) == 1 for arrivals in came.values())
    assert nodes.db["executions"].count_documents({}) == 0
    wait_until(lambda: nodes.db["batches"].count_documents({}) == 0, 15, "batches to be deleted")
    took_part = nodes.db["history"].distinct("attempts.node")
    assert len(took_part) == 3
    assert "error" not in nodes.log().lower()


@pytest.mark.takes(22)
def test_a_frozen_leader_loses_nothing_and_sends_nothing_again(
    cluster: Callable[..., Nodes], receiver: Receiver
) -> None:
    """Under load the leader is frozen for longer than its lease. Every occurrence arrives within a lease and a second.

    It wakes up as a stale leader and a stale owner, and sends nothing that it held again. (Nodes that are killed:
    `test_siblings.py`, `test_limits.py`, and `tests/chaos/test_faults.py`.)
    """
    nodes = cluster(2, **SHORT_LEASES)
    jobs = 60
    nodes.load(every_second(receiver, jobs))
    settle(nodes)
    start = next_second(nodes) + 2000
    wait_past(nodes, start + 2000)
    leader = living_leader(nodes)
    pid = nodes.alive()[leader]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: nodes.leader() != leader, 30, "another leader")
        wait_past(nodes, nodes.now_ms() + 6000)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_past(nodes, nodes.now_ms() + 3000)
    finish = next_second(nodes)
    wait_past(nodes, finish)
    late, twice = check_arrivals(nodes, receiver, jobs, start, finish)
    assert late <= 8000
    # A second arrival of an attempt is a reclaim: another token, and the first one was the frozen node's.
    for arrivals in receiver.by_execution().values():
        seen = [(a.attempt, a.token) for a in arrivals]
        assert len(seen) == len(set(seen)), f"sent twice under one token: {arrivals}"
    assert twice <= jobs
    assert nodes.db["leases"].find_one({"_id": "leader"})["term"] >= 2  # type: ignore[index]


@pytest.mark.takes(15)
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
        wait_for_successor(nodes, name, 2)
    began = time.monotonic()
    finish = next_second(nodes) + 2000
    wait_past(nodes, finish)
    late, twice = check_arrivals(nodes, receiver, jobs, start, finish)
    assert twice == 0
    assert late <= 6000  # what is not handed back waits for its lease, which lasts 10 s
    assert nodes.stop() == 0
    assert time.monotonic() - began < 30
    assert nodes.db["batches"].count_documents({"owner": {"$ne": None}}) == 0


@pytest.mark.takes(35)
@pytest.mark.parametrize(
    "away_s", [pytest.param(10, marks=pytest.mark.long), pytest.param(90, marks=pytest.mark.chaos)]
)
def test_what_was_missed_while_all_nodes_were_dead_is_sent_once_behind_what_is_due_now(
    cluster: Callable[..., Nodes], receiver: Receiver, away_s: int
) -> None:
    """kill -9 of all nodes for longer than the look-ahead; each missed occurrence is sent once."""
    nodes = cluster(2, **SHORT_LEASES)
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
    # No node resigned, so the dead leader's lease has to end first; only then can anything be scheduled.
    living_leader(nodes)
    back = next_second(nodes)
    finish = back + 6000
    wait_past(nodes, finish)
    wait_until(lambda: nodes.db["backfills"].count_documents({}) == 0, 30, "catching up")
    check_arrivals(nodes, receiver, jobs, start, finish)
    came = receiver.by_execution()
    present = [came[f"j{i}:{t}"][0].at_ms - t for i in range(jobs) for t in range(back + 1000, finish, 1000)]
    assert max(present) <= 5000, "what is due now waited for what was missed"
    doubled = [e for e, arrivals in came.items() if len({a.token for a in arrivals}) < len(arrivals)]
    assert not doubled


@pytest.mark.takes(27)
def test_changes_of_jobs_take_effect_at_once_and_ctrl_c_ends_every_process(
    cluster: Callable[..., Nodes], receiver: Receiver
) -> None:
    """Pause, resume, delete and create, although 15 s are scheduled ahead; then SIGINT to the whole group."""
    nodes = cluster(2)
    nodes.load(every_second(receiver, 3))
    wait_until(lambda: len(receiver.arrivals()) >= 6, 20, "the first runs")
    check_pause_resume_and_delete_of_j0(nodes, receiver)
    check_a_new_job_runs_a_second_later(nodes, receiver)
    began = time.monotonic()
    os.killpg(nodes.process.pid, signal.SIGINT)  # as a terminal sends it
    assert nodes.process.wait(15) == 0
    assert time.monotonic() - began < 15
    with pytest.raises(ProcessLookupError):
        os.killpg(nodes.process.pid, 0)
    assert nodes.db["batches"].count_documents({"owner": {"$ne": None}}) == 0
    assert nodes.leader() is None
    end(nodes.process)


def check_pause_resume_and_delete_of_j0(nodes: Nodes, receiver: Receiver) -> None:
    """No request leaves a second after a pause or a deletion; after a resume requests leave again."""
    for verb, method in (("pause", "POST"), ("resume", "POST"), ("delete", "DELETE")):
        path = "/jobs/j0" if verb == "delete" else f"/jobs/j0/{verb}"
        assert plain_http.request(method, nodes.url + path).status_code in (200, 204)
        changed = nodes.now_ms()
        wait_past(nodes, changed + 3500)
        after = [a for a in receiver.arrivals() if a.path == "/ok/0" and a.at_ms > changed + 1100]
        assert bool(after) is (verb == "resume"), f"after {verb}: {after[:3]}"
    reasons = nodes.db["history"].distinct("reason", {"job_id": "j0", "state": "cancelled"})
    assert any("paused" in r or "changed" in r or "resumed" in r for r in reasons)


def check_a_new_job_runs_a_second_later(nodes: Nodes, receiver: Receiver) -> None:
    """Although the leader has scheduled that second for other jobs already."""
    wait_past(nodes, next_second(nodes))
    due = nodes.now_ms() // 1000 * 1000 + 2000
    wait_past(nodes, due - 1000)
    job = {"schedule": f"{due // 1000 % 60} * * * * *", "api": f"{receiver.url}/ok/new", "type": "ATLEAST_ONCE"}
    answer = nodes.post("/jobs", job)
    assert answer.status_code == 201
    execution = f"{answer.json()['jobId']}:{due}"
    arrival = wait_until(lambda: receiver.by_execution().get(execution), 5, "its first run")
    assert -20 <= arrival[0].at_ms - due < 500
