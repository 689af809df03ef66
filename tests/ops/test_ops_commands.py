"""Operators' commands on a live database: what they print, what they change, and their exit status."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import httpx
import pytest
from click.testing import CliRunner

from cluster.core.instants import format_instant, parse_instant
from cluster.store.mongo import schema
from cluster.store.mongo.client import Database
from ops.cli import cli
from ops.support.output import print_table
from tests.support import live
from tests.support.engine import job_document, put_jobs
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from click.testing import Result


class Ops:
    """Commands, and the database behind them."""

    def __init__(self, uri: str, name: str) -> None:
        self.uri = uri
        self.name = name

    def __call__(self, *arguments: str, text: str | None = None) -> Result:
        environment = {"MONGODB_URI": self.uri, "DB_NAME": self.name}
        return CliRunner().invoke(cli, list(arguments), env=environment, input=text)

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def on(self, use: Callable[[Database], Awaitable[Any]]) -> Any:
        """Use the database."""

        async def once() -> Any:
            db = Database.open(self.uri, self.name, "test")
            try:
                return await use(db)
            finally:
                await db.close()

        return asyncio.run(once())


@pytest.fixture
def ops(mongodb_uri: str, db_name: str) -> Iterator[Ops]:
    found = Ops(mongodb_uri, db_name)
    found.on(schema.ensure)
    yield found
    found.on(lambda db: db.api.client.drop_database(db_name))


def test_explain(ops: Ops) -> None:
    """Sentences for people, JSON for programs; exit 1 if it did not run, 2 for a time that is none."""
    midnight = int(time.time()) // 86_400 * 86_400_000
    ops.on(lambda db: put_jobs(db, job_document("a", "0 0 3 * * *", active_from=midnight - 2 * 86_400_000)))
    at = format_instant(midnight - 86_400_000 + 3 * 3_600_000)
    told = ops("explain", "a", at[:16])
    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, "a is active.")
    assert "The leader has not looked at the job's last change yet" in told.stdout
    assert f"{at}  it was due by `0 0 3 * * *`" in told.stdout
    found = ops.json("explain", "a", "2023-11-14T12:00:00+01:00")
    assert [e["state"] for e in found["explanations"]] == ["absent"]
    last, following = ops.json("explain", "a")["explanations"]
    assert (last["state"], following["state"]) == ("waiting", "ahead")
    assert ops("explain", "a", "2023-11-14T00:00:00Z").exit_code == 1
    assert ops("explain", "nobody").exit_code == 1
    wrong = ops("explain", "a", "yesterday")
    assert wrong.exit_code == 2
    assert "03:00" in wrong.output


@pytest.fixture
def two(ops: Ops) -> Iterator[tuple[Ops, str, str]]:
    """Two live nodes, and where they answer."""
    with live.process(ops.uri, ops.name) as (first, _), live.process(ops.uri, ops.name) as (second, _):
        yield ops, first, second


def test_drain_resign_release(two: tuple[Ops, str, str]) -> None:
    """A drained node claims and leads nothing, stays up and says why it is not ready; undrained it works again. A
    leader that resigns is followed by the other. A released batch is claimable, and its token fences the release.
    """
    ops, *urls = two
    wait_until(lambda: (ops.json("leader") or {}).get("nodeId"), 15, "a leader")
    job = {"schedule": "* * * * * *", "api": "http://127.0.0.1:1/x", "retry": {"maxAttempts": 1}}
    httpx.put(f"{urls[0]}/jobs/a", json=job).raise_for_status()
    leader = ops.json("leader")["nodeId"]
    other = next(n["nodeId"] for n in ops.json("nodes") if n["nodeId"] != leader)
    drained = ops("nodes", "drain", leader, "--json")
    assert drained.exit_code == 0, drained.output
    assert json.loads(drained.stdout) == {
        "nodeId": leader, "done": True, "draining": True, "inFlight": 0, "waiting": 0, "leading": False
    }  # fmt: skip
    wait_until(lambda: ops.json("leader")["nodeId"] == other, 15, "the other leads")
    answers = [httpx.get(f"{url}/readyz") for url in urls]
    assert sorted(a.status_code for a in answers) == [200, 503]
    assert any("horae nodes undrain" in a.text for a in answers)
    assert [httpx.get(f"{url}/healthz").status_code for url in urls] == [200, 200]
    since = int(time.time() * 1000)

    def delivered() -> set[str]:
        found = json.loads(ops("executions", "--url", urls[0], "list", "--job", "a", "--limit", "20", "--json").stdout)
        return {r["node"] for r in found if r["state"] == "dead" and parse_instant(r["scheduledAt"]) > since}

    wait_until(delivered, 15, "something is sent meanwhile")
    assert delivered() == {other}
    assert ops("nodes", "undrain", leader).exit_code == 0
    wait_until(lambda: all(httpx.get(f"{url}/readyz").status_code == 200 for url in urls), 10, "both are ready")
    resigned = ops("leader", "resign", "--yes", "--json")
    assert resigned.exit_code == 0, resigned.output
    told = json.loads(resigned.stdout)
    assert (told["nodeId"], told["leader"], told["resigned"]) == (other, leader, True)
    assert ops("nodes", "drain", "nobody").exit_code == 1
    check_executions(ops, urls[1])


def test_release(ops: Ops) -> None:
    """It asks first, names what may happen, and does nothing if the lease has changed since."""
    lease = {"ids": ["a:1"], "lane": 1, "attempt": 0, "late": False, "owner": "gone", "token": 3, "claims": 3}
    times = dict.fromkeys(("send_at", "claimable_at", "claimed_at"), datetime(2040, 1, 1, tzinfo=UTC))
    ops.on(lambda db: db.api["batches"].insert_one({"_id": "b123", **lease, **times}))
    asked = ops("leases", "release", "b1", text="n\n")
    assert asked.exit_code == 1
    assert "may reach the target twice" in asked.output
    assert ops.json("leases")["batches"][0]["owner"] == "gone"
    done = ops("leases", "release", "b1", "--yes")
    assert (done.exit_code, done.stdout) == (0, "released b123\n")
    assert ops.json("leases")["batches"] == []
    again = ops("leases", "release", "b1", "--yes")
    assert again.exit_code == 1
    assert "no leased batch 'b1'" in again.output


def test_whoever_cannot_be_asked_has_to_say_yes(ops: Ops) -> None:
    """From a script, without --yes: nothing is done, a sentence, exit 2. A time to wait is a sensible number."""
    ops.on(lambda db: db.api["leases"].update_one({"_id": "leader"}, {"$set": {"holder": "x", "node": "x", "term": 4}}))
    silent = ops("leader", "resign", text="")
    assert silent.exit_code == 2
    assert "say --yes" in silent.output
    for wrong in ("-5", "soon", "1e9"):
        assert ops("leader", "resign", "--yes", "--wait", wrong).exit_code == 2
    assert ops.json("leader")["term"] == 4


def test_names_of_others_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Answers of targets and names of jobs are shown as they are: brackets stay, control characters do not."""
    print_table("t", ["a"], [("closing [/b] and [ssl: x]",), ("\x1b]0;owned\x07 \x1b[31mred",), (None,)])
    shown = capsys.readouterr().out
    assert "closing [/b] and [ssl: x]" in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown)


def test_backlog(ops: Ops) -> None:
    """From the database; exit 1 when the oldest waits too long."""
    assert ops("backlog").exit_code == 0
    waiting = {"ids": ["a:1", "a:2"], "lane": 1, "attempt": 0, "late": True, "owner": None, "token": 0, "claims": 0}
    times = dict.fromkeys(("send_at", "claimable_at"), datetime(2024, 1, 1, tzinfo=UTC))
    ops.on(lambda db: db.api["batches"].insert_one({"_id": "b", **waiting, **times, "claimed_at": None}))
    late = ops("backlog", "--json")
    assert late.exit_code == 1
    told = json.loads(late.stdout)
    assert (told["ready"], told["late"], told["oldestDueAt"]) == (2, 2, "2024-01-01T00:00:00.000Z")
    assert "2 due and not claimed" in ops("backlog").stdout


def check_executions(ops: Ops, node_url: str) -> None:
    """Listed, shown, retried through the API."""
    body = {"schedule": "@daily", "api": "http://127.0.0.1:1/x", "retry": {"maxAttempts": 1}}
    httpx.put(f"{node_url}/jobs/ops-runs", json=body).raise_for_status()
    name: str = httpx.post(f"{node_url}/jobs/ops-runs/trigger").json()["executionId"]
    run = ("executions", "--url", node_url)
    wait_until(lambda: json.loads(ops(*run, "show", name, "--json").stdout)["state"] == "dead", 15, "it is dead")
    assert "1 attempt(s)" in ops(*run, "show", name).stdout
    assert ops(*run, "list", "--state", "dead").exit_code == 0
    assert [r["executionId"] for r in json.loads(ops(*run, "list", "--job", "ops-runs", "--json").stdout)] == [name]
    again: str = httpx.post(f"{node_url}/jobs/ops-runs/trigger").json()["executionId"]
    with patch("ops.commands.executions.PAGE", 1):  # more than a page of one job
        found = json.loads(ops(*run, "list", "--job", "ops-runs", "--limit", "5", "--json").stdout)
        assert [r["executionId"] for r in found] == [again, name]
        assert len(json.loads(ops(*run, "list", "--job", "ops-runs", "--limit", "1", "--json").stdout)) == 1
    assert ops(*run, "list", "--job", "x", "--since", "2026-01-01T00:00:00Z").exit_code == 2
    for wrong in (["--state", "bogus"], ["--since", "yesterday"], ["--until", "soon"], ["--limit", "0"]):
        refused = ops(*run, "list", *wrong)
        assert (refused.exit_code, "Traceback" in refused.output) == (2, False), refused.output
    assert ops(*run, "retry", name).stdout == f"{name}: owed again\n"
    assert ops(*run, "retry", "a:1").exit_code == 1


def test_herd(ops: Ops) -> None:
    """Per distinct schedule, in the next hour; the worst second is named, and what spreading would make of it."""
    jobs = [job_document(f"m{i}", "0 * * * * *") for i in range(30)] + [job_document("s", "30 * * * * *")]
    ops.on(lambda db: put_jobs(db, *jobs, job_document("p", "0 * * * * *", state="paused")))
    told = ops.json("herd")
    assert (told["jobs"], told["distinctSchedules"], told["sends"]) == (31, 2, 1860)
    assert told["worst"][0]["sends"] == 30
    assert told["worst"][0]["at"].endswith(":00.000Z")
    assert told["worstSecondIfSpread"]["10"] == 3
    assert "the worst seconds" in ops("herd").stdout


def test_top(ops: Ops) -> None:
    """One look: rates, backlog, nodes, hosts that fail. Exit 1 while nobody leads."""
    ops.on(lambda db: put_jobs(db, {**job_document("a"), "host": "bad.example.com:443"}))
    now = datetime.now(UTC)
    bad = {"job_id": "a", "state": "dead", "ended_at": now, "expire_at": now + timedelta(days=1)}
    ops.on(lambda db: db.api["history"].insert_one({"_id": "a:1", **bad}))
    seen = ops("top", "--json")
    assert seen.exit_code == 1
    told = json.loads(seen.stdout)
    assert told["failingHosts"] == [
        {"host": "bad.example.com:443", "endedBadly": 1, "waitForRetry": 0, "breaker": None}
    ]
    drawn = ops("top", "--once")
    assert "NOBODY LEADS" in drawn.stdout
    assert "bad.example.com" in drawn.stdout
