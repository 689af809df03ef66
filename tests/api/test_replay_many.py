"""`/executions/retry`: replaying many executions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cluster.core.execution.model import Ending, Term
from cluster.core.lifecycle import State
from cluster.leader.replay import Replayer
from cluster.store import history, replayable, replays
from tests.support.api_client import paths
from tests.support.engine import leader_context
from tests.support.execution_values import attempt, execution

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def test_a_dry_run_only_counts(api: Api) -> None:
    """Without it, a replay is created and can be read."""
    await api.make(jobId="a", tags=["billing"])
    now = api.clock.now_ms()
    endings = [
        Ending(execution("a", now - 60_000 + i), State.DEAD, now - 30_000, (attempt(1, now - 60_000),))
        for i in range(3)
    ]
    await history.record(api.db, endings, 7)
    asked = {"filter": {"tag": "billing", "state": ["dead"]}}
    counted = await api.call("POST", "/executions/retry", {**asked, "dryRun": True})
    assert (counted.status_code, counted.json) == (200, {"dryRun": True, "matched": 3})
    assert await api.db.api["replays"].count_documents({}) == 0
    made = await api.call("POST", "/executions/retry", {**asked, "maxPerSecond": 5})
    assert made.status_code == 202
    shown = await api.call("GET", made.headers["location"])
    assert shown.json == made.json
    assert {k: shown.json[k] for k in ("state", "matched", "sent", "maxPerSecond")} == {
        "state": "running", "matched": 3, "sent": 0, "maxPerSecond": 5
    }  # fmt: skip
    assert (await api.call("GET", "/executions/retry/" + "0" * 32)).status_code == 404


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ["filter"]),
        ({"filter": {"state": ["succeeded"]}}, ["filter.state.0"]),
        ({"filter": {"state": []}}, ["filter.state"]),
        ({"filter": {"error": "bad luck"}}, ["filter.error"]),
        ({"filter": {"since": "yesterday"}, "maxPerSecond": 0}, ["filter.since", "maxPerSecond"]),
        ({"filter": {"jobs": "a"}}, ["filter.jobs"]),
    ],
)
async def test_invalid_filters_name_their_fields(api: Api, body: object, where: list[str]) -> None:
    """422 with a path for each error."""
    answer = await api.call("POST", "/executions/retry", body)
    assert answer.status_code == 422
    assert paths(answer) == where


def replayer_of(api: Api) -> Replayer:
    return Replayer(leader_context(api.db, api.clock, lambda: Term(1, "a", float("inf"))))


async def test_a_replay_is_listed_and_stopped(api: Api) -> None:
    """Stopped once, it begins no further page; the audit log says who did it. One that is done cannot be stopped."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    endings = [
        Ending(execution("a", now - 60_000 + i), State.DEAD, now - 30_000, (attempt(1, now - 60_000),))
        for i in range(3)
    ]
    await history.record(api.db, endings, 7)
    made = await api.call("POST", "/executions/retry", {"filter": {"jobId": "a"}, "maxPerSecond": 1})
    replayer = replayer_of(api)
    assert (await replayer.step(now)).executions == 1
    stopped = await api.call("DELETE", made.headers["location"])
    assert stopped.status_code == 204
    api.clock.shift = 10_000
    assert (await replayer.step(now + 10_000)).executions == 0
    shown = (await api.call("GET", made.headers["location"])).json
    assert (shown["state"], shown["matched"], shown["sent"]) == ("stopped", 3, 1)
    assert (await api.call("GET", "/executions/retry")).json["items"] == [shown]
    entries = (await api.call("GET", f"/audit?object=replay:{shown['retryId']}")).json["items"]
    assert [e["action"] for e in entries] == ["stop", "replay"]
    assert (await api.call("DELETE", made.headers["location"])).status_code == 204  # as it is already
    other = await api.call("POST", "/executions/retry", {"filter": {"jobId": "none"}})
    await replayer.step(now + 10_000)
    assert (await api.call("DELETE", other.headers["location"])).status_code == 409


async def test_a_stop_in_the_middle_of_a_page_leaves_nothing_half_done(api: Api) -> None:
    """The leader ends the page that it has begun; one that dies with it leaves what the next repair owes."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    due = now - 60_000
    await history.record(api.db, [Ending(execution("a", due), State.DEAD, now - 30_000, (attempt(1, due),))], 7)
    made = await api.call("POST", "/executions/retry", {"filter": {"jobId": "a"}})
    replay = await replays.get(api.db, made.json["retryId"])
    assert replay is not None
    begun = await replays.save(api.db, replace(replay, page=(f"a:{due:013d}",), sent=1))
    assert begun is not None
    await replayable.reopen_page(api.db, begun, now, 7)
    await api.call("DELETE", made.headers["location"])
    assert await replays.save(api.db, replace(begun, page=())) is None
    assert await replays.next_due(api.db) is None
    assert await replayer_of(api).repair(now + 120_000) == 1
    assert (await api.call("GET", f"/executions/a:{due:013d}")).json["state"] in ("pending", "retrying")
