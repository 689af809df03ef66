"""What changes or sends much in the background, on three real nodes whose leader is killed in the middle of all of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.instants import format_instant
from tests.support import plain_http
from tests.support.cluster_progress import settle
from tests.support.half_import import AT_ONCE, HalfImport
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.processes import Nodes, Receiver

pytestmark = pytest.mark.timeout(120)
KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
EACH = 30
PER_SECOND = 4
"""So the last of them takes some seconds: time to kill the leader, however busy the machine is."""
FOLLOWING = 1500
IMPORTS = 3
ACTIONS = ("pause", "resume", "trigger", "delete", "patch")
YEARLY = "0 0 3 1 1 *"


def load(nodes: Nodes, receiver: Receiver) -> None:
    """Jobs for each action by tag, some that fail, many that name a calendar, and some that are due each second."""
    nodes.put("/calendars/days", {"timezone": "UTC", "weekdays": ["SAT"]})
    named = {"calendar": {"name": "days"}, "schedule": "0 0 3 * * *", "api": f"{receiver.url}/ok"}
    yearly = {"schedule": YEARLY, "api": f"{receiver.url}/ok"}
    failing = {"schedule": YEARLY, "api": f"{receiver.url}/status/404", "tags": ["bad"]}
    busy = {"schedule": "* * * * * *", "api": f"{receiver.url}/busy", "tags": ["busy"]}
    nodes.load(
        [
            *({**busy, "jobId": f"busy-{i}"} for i in range(30)),
            *({**failing, "jobId": f"bad-{i}"} for i in range(EACH)),
            *({**yearly, "jobId": f"{a}-{i}", "tags": [a]} for a in ACTIONS if a != "resume" for i in range(EACH)),
            *({**yearly, "jobId": f"resume-{i}", "tags": ["resume"], "state": "paused"} for i in range(EACH)),
            *({**named, "jobId": f"named-{i}"} for i in range(FOLLOWING)),
            {**yearly, "jobId": "filled", "schedule": "0 * * * * *", "state": "paused"},
        ]
    )
    settle(nodes)


def begin_all(nodes: Nodes) -> dict[str, str]:
    """Each action, a backfill and a replay, slowly; the address of each by its name."""
    begun = {}
    for action in ACTIONS:
        asked: dict[str, Any] = {"action": action, "filter": {"tag": action}, "maxPerSecond": PER_SECOND}
        if action == "patch":
            asked["patch"] = {"description": "new"}
        begun[action] = "/jobs/actions/" + nodes.post("/jobs/actions", asked).json()["actionId"]
    until = nodes.now_ms() // 60_000 * 60_000 - 3_600_000
    span = {"from": format_instant(until - EACH * 60_000), "until": format_instant(until), "maxPerSecond": PER_SECOND}
    begun["backfill"] = "/jobs/filled/backfill/" + nodes.post("/jobs/filled/backfill", span).json()["backfillId"]
    bad = {"filter": {"tag": "bad", "state": ["failed"]}, "maxPerSecond": PER_SECOND}
    begun["replay"] = "/executions/retry/" + nodes.post("/executions/retry", bad).json()["retryId"]
    return begun


def progress(nodes: Nodes, path: str) -> tuple[str, int]:
    """The state of one, and how much of it is done."""
    said = plain_http.get(f"{nodes.url}{path}").json()
    return said["state"], said["done"] if "done" in said else said["sent"]


def change_calendar(nodes: Nodes) -> int:
    """Exclude another day. Returns how many jobs had not followed yet a moment later."""
    calendar = plain_http.get(f"{nodes.url}/calendars/days").json()
    nodes.put("/calendars/days", {"timezone": "UTC", "weekdays": ["SUN" if calendar["weekdays"] == ["SAT"] else "SAT"]})
    return following(nodes)


def following(nodes: Nodes) -> int:
    return int(plain_http.get(f"{nodes.url}/calendars/days").json()["following"])


def of_jobs(nodes: Nodes, prefix: str) -> list[dict[str, Any]]:
    return list(nodes.db["jobs"].find({"_id": {"$regex": f"^{prefix}-"}}))


def recorded(nodes: Nodes, **which: Any) -> list[dict[str, Any]]:
    return list(nodes.db["history"].find(which))


def hold(nodes: Nodes) -> tuple[int, int]:
    """A window for the jobs of each second; when it was answered, and its end."""
    until = nodes.now_ms() + 6000
    times = {"from": format_instant(until - 60_000), "until": format_instant(until)}
    nodes.put("/windows/works", {"mode": "hold", "tags": ["busy"], "spreadSeconds": 0, **times})
    return nodes.now_ms(), until


def check_the_window(nodes: Nodes, answered: int, until: int) -> None:
    """Nothing left within it, two seconds after its answer; what it held left after its end."""
    wait_until(lambda: not held(nodes, until), 40, "what the window held")
    due = {
        "$gt": datetime.fromtimestamp((answered + 2000) / 1000, UTC),
        "$lt": datetime.fromtimestamp(until / 1000, UTC),
    }
    assert recorded(nodes, job_id={"$regex": "^busy-"}, attempts={"$elemMatch": {"sent_at": due}}) == []
    was_held = recorded(nodes, job_id={"$regex": "^busy-"}, due_at=due)
    assert len(was_held) >= 30 * ((until - answered - 2000) // 1000)
    assert {h["state"] for h in was_held} == {"succeeded"}


def held(nodes: Nodes, until: int) -> int:
    due = {"$lt": datetime.fromtimestamp(until / 1000, UTC)}
    return nodes.db["executions"].count_documents({"job_id": {"$regex": "^busy-"}, "due_at": due})


@pytest.mark.takes(30)
def test_a_leader_that_is_killed_in_the_middle_of_everything_leaves_nothing_half_done(
    cluster: Callable[..., Nodes], receiver: Receiver
) -> None:
    """Pause, resume, trigger, delete and patch by a filter, a backfill, a replay, a change of a calendar, and imports.

    Its successor goes on with each: every job is changed once, every run and occurrence is owed once, and the counts are
    those of one pass. Meanwhile a window is in force on all nodes two seconds after its answer.
    """
    nodes = cluster(3, HORAE_SECRET_KEY=KEY)
    load(nodes, receiver)
    bad = nodes.post("/jobs/actions", {"action": "trigger", "filter": {"tag": "bad"}}).json()["actionId"]
    wait_until(lambda: len(recorded(nodes, state="failed")) == EACH, 30, "the failures")
    wait_until(lambda: progress(nodes, f"/jobs/actions/{bad}") == ("done", EACH), 10, "their count")
    senders = {"job_id": {"$regex": "^busy-"}}
    # Two of three nodes ask first for what comes due (`claim_order.py`): so little need not reach the third one.
    wait_until(lambda: len(nodes.db["history"].distinct("attempts.node", senders)) >= 2, 20, "work on two nodes")
    imports = [HalfImport(nodes, moving(k)) for k in range(IMPORTS)]
    begun = begin_all(nodes)
    answered, until = hold(nodes)
    wait_until(lambda: all(progress(nodes, path)[1] for path in begun.values()), 20, "the middle of everything")
    wait_until(lambda: change_calendar(nodes), 10, "jobs that follow a change")
    leader = nodes.leader()
    assert leader is not None
    nodes.kill(leader)
    assert {name: progress(nodes, path)[0] for name, path in begun.items()} == dict.fromkeys(begun, "running")
    ended = [i.end() for i in imports]
    wait_until(lambda: nodes.leader() not in (None, leader), 30, "another leader")
    check_the_window(nodes, answered, until)
    wait_until(lambda: {progress(nodes, p) for p in begun.values()} == {("done", EACH)}, 40, "the end of all")
    wait_until(lambda: following(nodes) == 0, 30, "the jobs to follow their calendar")
    settle(nodes)
    check_jobs(nodes)
    check_runs(nodes)
    check_imports(nodes, ended)


def moving(number: int) -> list[dict[str, Any]]:
    """The jobs of one import, which takes two writes and more. Connections go to any node."""
    fields = {"schedule": YEARLY, "api": "http://127.0.0.1:1/x"}
    return [{"jobId": f"moved{number}-{i}", **fields} for i in range(AT_ONCE + 10)]


def check_imports(nodes: Nodes, ended: list[bool]) -> None:
    """Each job was written once and is settled, whether its import went on or was sent again after its node had died.

    Each import has one entry in the audit log; that of one that broke off says so.
    """
    for number in range(len(ended)):
        assert [j["revision"] for j in of_jobs(nodes, f"moved{number}")] == [1] * (AT_ONCE + 10)
    counts = [d["counts"] for d in nodes.db["audit"].find({"action": "import"})]
    broken = [c for c in counts if not c["finished"]]
    assert len(broken) == ended.count(False)
    assert sum(c["created"] == AT_ONCE + 10 for c in counts if c["finished"]) == ended.count(True)


def check_jobs(nodes: Nodes) -> None:
    """Each job has one revision more, and is what it was to be."""
    wanted = {"pause": "paused", "resume": "active", "trigger": "active", "delete": "deleted", "patch": "active"}
    for action, state in wanted.items():
        jobs = of_jobs(nodes, action)
        assert {(j["state"], j["revision"]) for j in jobs} == {(state, 1 if action == "trigger" else 2)}, action
        assert len(jobs) == EACH
    assert {j["description"] for j in of_jobs(nodes, "patch")} == {"new"}
    named = of_jobs(nodes, "named")
    assert len({(j["revision"], j["schedule_key"]) for j in named}) == 1
    assert len(named) == FOLLOWING


def check_runs(nodes: Nodes) -> None:
    """One run of each job that was triggered, one execution of each occurrence of the backfill, and each replay sent."""
    asked = {"$regex": "^(trigger-|filled)"}
    wait_until(lambda: len(recorded(nodes, job_id=asked)) >= 2 * EACH, 30, "the runs")
    runs = recorded(nodes, job_id=asked)
    assert len(runs) == 2 * EACH
    assert {r["state"] for r in runs} == {"succeeded"}
    triggered = [r["job_id"] for r in runs if r["job_id"] != "filled"]
    assert len(set(triggered)) == len(triggered) == EACH
    wait_until(lambda: all(len(h["attempts"]) > 1 for h in recorded(nodes, state="failed")), 30, "the replays")
    assert len(recorded(nodes, state="failed")) == EACH
    dead = {"job_id": {"$not": {"$regex": "^busy-"}}}
    wait_until(lambda: nodes.db["executions"].count_documents(dead) == 0, 30, "nothing else to be owed")
