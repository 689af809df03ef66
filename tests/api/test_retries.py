"""Queues and sending many again, as a caller meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.core.execution.model import Ending
from cluster.core.lifecycle import State
from cluster.store import history
from tests.support.api_client import paths
from tests.support.execution_values import attempt, execution

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def test_count_first_then_send(api: Api) -> None:
    """A dry run changes nothing; the request is there to be looked at."""
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
async def test_wrong_requests_are_told(api: Api, body: object, where: list[str]) -> None:
    """Every fault has its path."""
    answer = await api.call("POST", "/executions/retry", body)
    assert answer.status_code == 422
    assert paths(answer) == where


async def test_queues_come_and_go(api: Api) -> None:
    """Made, read, replaced, listed, deleted; wrong ones are told."""
    made = await api.call("PUT", "/queues/mail", {"maxPerSecond": 2})
    assert (made.status_code, made.headers["location"]) == (201, "/queues/mail")
    assert made.json["running"] is None
    again = await api.call("PUT", "/queues/mail", {"maxConcurrent": 3})
    assert (again.status_code, again.json["maxPerSecond"], again.json["maxConcurrent"]) == (200, None, 3)
    assert (await api.call("GET", "/queues/mail")).json["running"] == 0
    assert [q["name"] for q in (await api.call("GET", "/queues")).json["items"]] == ["mail"]
    wrong = await api.call("PUT", "/queues/mail", {"maxConcurrent": 0, "rate": 1})
    assert sorted(paths(wrong)) == ["maxConcurrent", "rate"]
    assert paths(await api.call("PUT", "/queues/a%20b", {})) == ["name"]
    assert (await api.call("DELETE", "/queues/mail")).status_code == 204
    assert (await api.call("DELETE", "/queues/mail")).status_code == 404
    assert (await api.call("GET", "/queues/mail")).status_code == 404


async def test_breakers_are_visible(api: Api) -> None:
    """In the cluster's state, and as the reason of what waits."""
    from bson.datetime_ms import DatetimeMS

    from cluster.store import executions

    now = api.clock.now_ms()
    await api.make(jobId="a", api="http://127.0.0.1:5999/x")
    await api.make(jobId="b", api="http://127.0.0.1:5998/x")
    await executions.insert(api.db, [execution("a", now - 1000), execution("b", now - 1000)])
    await api.db.api["breakers"].insert_one(
        {"_id": "127.0.0.1:5999", "half_open": False, "until": DatetimeMS(now + 5000), "opens": 2, "rev": 1,
         "opened_at": DatetimeMS(now), "why": "20 of 20 attempts failed", "node": "n"}
    )  # fmt: skip
    cluster = (await api.call("GET", "/cluster")).json
    (shown,) = cluster["breakers"]
    assert cluster["breakersInAll"] == 1
    assert (shown["host"], shown["state"], shown["opens"]) == ("127.0.0.1:5999", "open", 2)
    held = await api.call("GET", f"/executions/a:{now - 1000:013d}")
    assert "breaker of 127.0.0.1:5999 is open (20 of 20" in held.json["reason"]
    assert (await api.call("GET", f"/executions/b:{now - 1000:013d}")).json["reason"] is None
    (listed,) = (await api.call("GET", "/jobs/a/executions")).json
    assert "breaker" in listed["reason"]
    reasons = {e["jobId"]: e.get("reason") for e in (await api.call("GET", "/executions")).json["items"]}
    assert reasons["b"] is None
    assert "breaker" in str(reasons["a"])


async def test_what_is_set_is_shown(api: Api) -> None:
    """The fields of this page come back as they were given."""
    await api.make(jobId="a", maxPerSecond=1.5, maxConcurrent=2, successCodes=[200, "3xx"], retry={"maxAgeSeconds": 60})
    shown = (await api.call("GET", "/jobs/a")).json
    assert (shown["maxPerSecond"], shown["maxConcurrent"], shown["queue"]) == (1.5, 2, None)
    assert (shown["successCodes"], shown["retry"]["maxAgeSeconds"]) == ([200, "3xx"], 60)
    changed = await api.call("PATCH", "/jobs/a", {"queue": "mail"}, Content_Type="application/merge-patch+json")
    assert paths(changed) == ["queue"]
    patch = {"queue": "mail", "maxPerSecond": None, "maxConcurrent": None}
    changed = await api.call("PATCH", "/jobs/a", patch, Content_Type="application/merge-patch+json")
    assert changed.json["queue"] == "mail"
