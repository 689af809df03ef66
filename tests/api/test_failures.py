"""`/executions/failures`: what failed, by host and error; and a replay of one host's failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.core.execution.model import Ending, Term
from cluster.core.instants import format_instant
from cluster.core.lifecycle import State
from cluster.leader.replay import Replayer
from cluster.outbound.errors import ERROR_KINDS
from cluster.store import history
from cluster.store.queries import failure_groups
from cluster.store.queries.narrowed_executions import ENDED_WITH
from tests.support.api_client import paths
from tests.support.engine import leader_context
from tests.support.execution_values import attempt, execution

if TYPE_CHECKING:
    from tests.support.api_client import Api

FIRST, SECOND = "http://127.0.0.1:5001", "http://127.0.0.1:5002"


async def fill(api: Api, now: int) -> None:
    """Six failures of `a` and two of `b` at one host (503), one of `a` by a timeout; two of `c` at another host."""
    for name, host in (("a", FIRST), ("b", FIRST), ("c", SECOND)):
        await api.make(jobId=name, api=f"{host}/ok")

    def ended(
        name: str, i: int, state: State = State.DEAD, status: int | None = 503, error: str | None = None
    ) -> Ending:
        sent = now - 60_000 + i
        return Ending(execution(name, sent), state, sent + 1000, (attempt(1, sent, status, error),))

    of_a = [ended("a", i) for i in range(6)]
    others = [ended("b", 10), ended("b", 11), ended("c", 20), ended("c", 21)]
    rest = [ended("a", 30, State.FAILED, None, "timeout"), ended("a", 40, State.SUCCEEDED, 200)]
    await history.record(api.db, [*of_a, *others, *rest], 7)


async def test_failures_are_grouped_by_host_and_error(api: Api) -> None:
    """The largest group first, each with its jobs and its latest executions; what succeeded is none of them."""
    now = api.clock.now_ms()
    await fill(api, now)
    await api.db.api["history"].update_one(
        {"job_id": "a", "attempts.status": 503}, {"$set": {"attempts.0.error": None}}
    )
    answer = (await api.call("GET", "/executions/failures")).json
    assert (answer["executions"], answer["groupsInAll"], answer["complete"]) == (11, 3, True)
    seen = [(g["host"], g["status"], g["error"], g["executions"], g["jobIds"]) for g in answer["groups"]]
    assert seen == [
        ("127.0.0.1:5001", 503, None, 8, ["a", "b"]),
        ("127.0.0.1:5002", 503, None, 2, ["c"]),
        ("127.0.0.1:5001", None, "timeout", 1, ["a"]),
    ]
    largest = answer["groups"][0]
    assert [e["executionId"].split(":")[0] for e in largest["latest"]] == ["b", "b", "a", "a", "a"]
    assert largest["latestAt"] == format_instant(now - 60_000 + 11 + 1000)
    only = (await api.call("GET", "/executions/failures?state=failed&limit=1")).json
    assert [(g["error"], g["executions"]) for g in only["groups"]] == [("timeout", 1)]
    since = format_instant(now - 60_000 + 20 + 1000)
    assert (await api.call("GET", f"/executions/failures?since={since}")).json["executions"] == 3
    assert (await api.call("GET", f"/executions/failures?until={since}")).json["executions"] == 8


async def test_failures_of_a_deleted_job_and_of_messages_have_a_group(api: Api) -> None:
    """A job without a trace has no host; a message has that of its URL, and is no job."""
    now = api.clock.now_ms()
    await history.record(
        api.db, [Ending(execution("gone", now - 5000), State.DEAD, now, (attempt(1, now - 5000, 500),))], 7
    )
    sent = now - 4000
    message = execution("msg.m", sent, message={"url": f"{SECOND}/x", "body_kind": "none"})
    await history.record(api.db, [Ending(message, State.FAILED, now - 1, (attempt(1, sent, 400),))], 7)
    never = Ending(execution("gone", now - 3000), State.DEAD, now - 2, (), "no time was left")
    await history.record(api.db, [never], 7)
    answer = (await api.call("GET", "/executions/failures")).json
    seen = {(g["host"], g["status"], g["error"], g["jobs"]) for g in answer["groups"]}
    assert seen == {(None, 500, None, 1), ("127.0.0.1:5002", 400, None, 0), (None, None, None, 1)}


async def test_counts_that_are_bounds_say_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are counted at most, the latest ones, and the answer says how far back they go."""
    now = api.clock.now_ms()
    await fill(api, now)
    monkeypatch.setattr(failure_groups, "COUNTED", 5)
    answer = (await api.call("GET", "/executions/failures")).json
    assert (answer["executions"], answer["complete"]) == (5, False)
    assert [(g["status"], g["error"], g["executions"]) for g in answer["groups"]] == [
        (503, None, 2),
        (503, None, 2),
        (None, "timeout", 1),
    ]
    assert answer["countedSince"] == format_instant(now - 60_000 + 10 + 1000)
    monkeypatch.setattr(failure_groups, "COUNTED", 12)
    answer = (await api.call("GET", "/executions/failures")).json
    assert (answer["executions"], answer["complete"], answer["countedSince"]) == (11, True, None)


@pytest.mark.parametrize(
    ("query", "where"), [("state=succeeded", ["state"]), ("since=never&limit=0", ["since", "limit"]), ("x=1", ["x"])]
)
async def test_wrong_parameters_are_named(api: Api, query: str, where: list[str]) -> None:
    answer = await api.call("GET", f"/executions/failures?{query}")
    assert answer.status_code == 422
    assert sorted(paths(answer)) == sorted(where)


@pytest.mark.parametrize(("host", "matched"), [("127.0.0.1:5001", 9), ("127.0.0.1", 11), ("127.0.0.1:500", 0)])
async def test_a_replay_is_narrowed_to_a_host(api: Api, host: str, matched: int) -> None:
    """With its port or without; the filter is shown with the replay."""
    await fill(api, api.clock.now_ms())
    asked = {"filter": {"host": host}}
    counted = await api.call("POST", "/executions/retry", {**asked, "dryRun": True})
    assert counted.json["matched"] == matched
    made = await api.call("POST", "/executions/retry", asked)
    assert (made.json["matched"], made.json["filter"]["host"]) == (matched, host)


async def all_of(api: Api, query: str) -> list[str]:
    """The ids of a list, a page of two after the other."""
    found: list[str] = []
    cursor = ""
    while True:
        answer = await api.call("GET", f"/executions?{query}&limit=2{cursor}")
        assert answer.status_code == 200, answer.text
        found += [e["executionId"] for e in answer.json["items"]]
        if answer.json["nextCursor"] is None:
            return found
        cursor = f"&cursor={answer.json['nextCursor']}"


async def test_a_group_is_listed_and_sent_again_by_one_filter(api: Api) -> None:
    """What a group counts is what its filter lists and what a replay by it matches, also where nothing was sent."""
    now = api.clock.now_ms()
    await fill(api, now)
    never = [
        Ending(execution("b", now - 5000 + i), State.DEAD, now - 100 + i, (), "no time was left") for i in range(3)
    ]
    sent = now - 4000
    message = execution("msg.01", sent, message={"url": f"{SECOND}/x", "body_kind": "none"})
    refused = Ending(message, State.FAILED, now - 1, (attempt(1, sent, 400),))
    await history.record(api.db, [*never, refused], 7)
    groups = (await api.call("GET", "/executions/failures")).json["groups"]
    assert sorted(g["executions"] for g in groups) == [1, 1, 2, 3, 8]
    for group in groups:
        how = {"error": group["error"] or (None if group["status"] else "not_sent"), "status": group["status"]}
        narrowed = {"host": group["host"], **{name: value for name, value in how.items() if value}}
        counted = await api.call("POST", "/executions/retry", {"filter": narrowed, "dryRun": True})
        assert counted.json["matched"] == group["executions"], narrowed
        query = "&".join(f"{name}={value}" for name, value in narrowed.items())
        listed = await all_of(api, f"state=failed,dead&{query}")
        assert (len(listed), len(set(listed))) == (group["executions"], group["executions"]), narrowed
    assert len(await all_of(api, "state=failed,dead&host=127.0.0.1")) == 15
    assert await all_of(api, "state=succeeded&host=127.0.0.1") == []
    assert len(await all_of(api, "status=503")) == 10


async def test_what_was_never_sent_is_sent_again_as_a_group(api: Api) -> None:
    """And nothing else is: what has an attempt stays as it is."""
    now = api.clock.now_ms()
    await fill(api, now)
    never = Ending(execution("b", now - 5000), State.DEAD, now - 100, (), "no time was left")
    await history.record(api.db, [never], 7)
    made = await api.call("POST", "/executions/retry", {"filter": {"error": "not_sent"}})
    assert (made.json["matched"], made.json["filter"]["error"]) == (1, "not_sent")
    replayer = Replayer(leader_context(api.db, api.clock, lambda: Term(1, "a", float("inf"))))
    assert (await replayer.step(now)).executions == 1
    assert (await api.call("GET", f"/executions/{never.execution.id}")).json["state"] == "retrying"
    assert (await api.call("GET", "/executions/failures")).json["executions"] == 11


@pytest.mark.parametrize(
    ("query", "where"), [("error=bad&status=600", ["error", "status"]), ("host=&node=", ["host", "node"])]
)
async def test_wrong_words_of_a_narrowed_list_are_named(api: Api, query: str, where: list[str]) -> None:
    answer = await api.call("GET", f"/executions?{query}")
    assert answer.status_code == 422
    assert sorted(paths(answer)) == where


def test_every_error_of_an_attempt_can_be_asked_for() -> None:
    assert {*ERROR_KINDS, "not_sent"} == set(ENDED_WITH)
