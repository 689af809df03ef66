"""`horae nodes drain`, `leader resign`, `leases release` and `executions` on a running cluster."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

import httpx
import pytest

from cluster.core.instants import parse_instant
from tests.support import live
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.commands import Commands


@pytest.fixture
def two(horae: Commands) -> Iterator[tuple[Commands, str, str]]:
    """Two live nodes, and where they answer."""
    with live.process(horae.uri, horae.name) as (first, _), live.process(horae.uri, horae.name) as (second, _):
        yield horae, first, second


@pytest.mark.long
@pytest.mark.takes(12)
def test_drain_undrain_and_resign_on_a_running_cluster(two: tuple[Commands, str, str]) -> None:
    """A drained node does not claim or lead, keeps running and says why it is not ready; undrained it works again. After
    the leader resigns, the other node leads.
    """
    horae, *urls = two
    wait_until(lambda: (horae.json("leader") or {}).get("nodeId"), 15, "a leader")
    job = {"schedule": "* * * * * *", "api": "http://127.0.0.1:1/x", "retry": {"maxAttempts": 1}}
    httpx.put(f"{urls[0]}/jobs/a", json=job).raise_for_status()
    leader = horae.json("leader")["nodeId"]
    other = next(n["nodeId"] for n in horae.json("nodes") if n["nodeId"] != leader)
    drained = horae("nodes", "drain", leader, "--json")
    assert drained.exit_code == 0, drained.output
    assert json.loads(drained.stdout) == {
        "nodeId": leader, "done": True, "draining": True, "inFlight": 0, "waiting": 0, "leading": False
    }  # fmt: skip
    wait_until(lambda: horae.json("leader")["nodeId"] == other, 15, "the other leads")
    answers = [httpx.get(f"{url}/readyz") for url in urls]
    assert sorted(a.status_code for a in answers) == [200, 503]
    assert any("horae nodes undrain" in a.text for a in answers)
    assert [httpx.get(f"{url}/healthz").status_code for url in urls] == [200, 200]
    since = int(time.time() * 1000)

    def delivered() -> set[str]:
        found = json.loads(
            horae("executions", "--url", urls[0], "list", "--job", "a", "--limit", "20", "--json").stdout
        )
        return {r["node"] for r in found if r["state"] == "dead" and parse_instant(r["scheduledAt"]) > since}

    wait_until(delivered, 15, "something is sent meanwhile")
    assert delivered() == {other}
    assert horae("nodes", "undrain", leader).exit_code == 0
    wait_until(lambda: all(httpx.get(f"{url}/readyz").status_code == 200 for url in urls), 10, "both are ready")
    resigned = horae("leader", "resign", "--yes", "--json")
    assert resigned.exit_code == 0, resigned.output
    told = json.loads(resigned.stdout)
    assert (told["nodeId"], told["leader"], told["resigned"]) == (other, leader, True)
    assert horae("nodes", "drain", "nobody").exit_code == 1
    check_executions(horae, urls[1])


def test_release_asks_first_and_is_fenced(horae: Commands) -> None:
    """It names the consequences, and does nothing if the lease has changed."""
    lease = {"ids": ["a:1"], "lane": 1, "attempt": 0, "late": False, "owner": "gone", "token": 3, "claims": 3}
    times = dict.fromkeys(("send_at", "claimable_at", "claimed_at"), datetime(2040, 1, 1, tzinfo=UTC))
    horae.on(lambda db: db.api["batches"].insert_one({"_id": "b123", **lease, **times}))
    asked = horae("leases", "release", "b1", text="n\n")
    assert asked.exit_code == 1
    assert "may reach their target twice" in asked.output
    assert horae.json("leases")["batches"][0]["owner"] == "gone"
    done = horae("leases", "release", "b1", "--yes")
    assert (done.exit_code, done.stdout) == (0, "released b123\n")
    assert horae.json("leases")["batches"] == []
    again = horae("leases", "release", "b1", "--yes")
    assert again.exit_code == 1
    assert "no leased batch 'b1'" in again.output


def test_without_a_terminal_yes_is_needed(horae: Commands) -> None:
    """In a script without --yes: a sentence and exit status 2, nothing is done. The time to wait must be a sensible number."""
    horae.on(
        lambda db: db.api["leases"].update_one({"_id": "leader"}, {"$set": {"holder": "x", "node": "x", "term": 4}})
    )
    silent = horae("leader", "resign", text="")
    assert silent.exit_code == 2
    assert "confirm with --yes" in silent.output
    for wrong in ("-5", "soon", "1e9"):
        assert horae("leader", "resign", "--yes", "--wait", wrong).exit_code == 2
    assert horae.json("leader")["term"] == 4


def check_executions(horae: Commands, node_url: str) -> None:
    """Listed, shown, retried through the API."""
    body = {"schedule": "@daily", "api": "http://127.0.0.1:1/x", "retry": {"maxAttempts": 1}}
    httpx.put(f"{node_url}/jobs/ops-runs", json=body).raise_for_status()
    name: str = httpx.post(f"{node_url}/jobs/ops-runs/trigger").json()["executionId"]
    run = ("executions", "--url", node_url)
    wait_until(lambda: json.loads(horae(*run, "show", name, "--json").stdout)["state"] == "dead", 15, "it is dead")
    assert "1 attempt(s)" in horae(*run, "show", name).stdout
    assert horae(*run, "list", "--state", "dead").exit_code == 0
    assert [r["executionId"] for r in json.loads(horae(*run, "list", "--job", "ops-runs", "--json").stdout)] == [name]
    again: str = httpx.post(f"{node_url}/jobs/ops-runs/trigger").json()["executionId"]
    with patch("ops.commands.executions.PAGE", 1):  # more than a page of one job
        found = json.loads(horae(*run, "list", "--job", "ops-runs", "--limit", "5", "--json").stdout)
        assert [r["executionId"] for r in found] == [again, name]
        assert len(json.loads(horae(*run, "list", "--job", "ops-runs", "--limit", "1", "--json").stdout)) == 1
    assert horae(*run, "list", "--job", "x", "--since", "2026-01-01T00:00:00Z").exit_code == 2
    for wrong in (["--state", "bogus"], ["--since", "yesterday"], ["--until", "soon"], ["--limit", "0"]):
        refused = horae(*run, "list", *wrong)
        assert (refused.exit_code, "Traceback" in refused.output) == (2, False), refused.output
    assert horae(*run, "retry", name).stdout == f"{name}: will be sent again\n"
    assert horae(*run, "retry", "a:1").exit_code == 1
