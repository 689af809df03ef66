"""`Idempotency-Key`: asking again is safe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from api.openapi.document import openapi_document
from cluster.core.errors import OutcomeUnknown
from cluster.store import batches, executions, jobs
from tests.support.api_client import job, paths

if TYPE_CHECKING:
    from tests.support.api_client import Api

KEY = {"Idempotency_Key": "order 7"}


async def count(api: Api, collection: str) -> int:
    return await api.db.api[collection].count_documents({})


async def test_the_same_request_gets_the_same_response(api: Api) -> None:
    """Same key and body: the same response and one job; another body is 422; another key makes another job."""
    first = await api.call("POST", "/jobs", job(name="a", tags=["x"]), **KEY)
    again = await api.call("POST", "/jobs", dict(reversed(job(name="a", tags=["x"]).items())), **KEY)
    assert (again.status_code, again.json, again.headers["Location"], again.headers["ETag"]) == (
        201,
        first.json,
        first.headers["Location"],
        '"1"',
    )
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert paths(await api.call("POST", "/jobs", job(name="b"), **KEY)) == ["Idempotency-Key"]
    assert (await api.call("POST", "/jobs", job(name="a"), Idempotency_Key="other")).json != first.json
    assert await count(api, "jobs") == 2
    assert paths(await api.call("POST", "/jobs", job(), Idempotency_Key="x" * 256)) == ["Idempotency-Key"]


async def test_every_operation_with_a_key_refuses_a_wrong_one(api: Api) -> None:
    """Also a dry run, which needs none."""
    await api.call("PUT", "/jobs/a", job(jobId="a"))
    past = {"from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "again": True}
    action = {"action": "pause", "filter": {"all": True}}
    asked: dict[str, list[Any]] = {
        "/jobs": [job()],
        "/jobs/{jobId}/trigger": [None],
        "/jobs/{jobId}/backfill": [past, past | {"dryRun": True}],
        "/jobs/{jobId}/revisions/{revision}/revert": [None],
        "/jobs/actions": [action, action | {"dryRun": True}],
        "/messages": [{"api": "https://api.example.com/x"}],
    }
    taken = [
        path
        for path, methods in openapi_document()["paths"].items()
        for operation in methods.values()
        if any(p["name"] == "Idempotency-Key" for p in operation.get("parameters", []))
    ]
    assert sorted(taken) == sorted(asked)
    for path, bodies in asked.items():
        target = path.replace("{jobId}", "a").replace("{revision}", "1")
        for body in bodies:
            for key in ("", "\xe9", "x\x7f", "x" * 256):
                answer = await api.call("POST", target, body, Idempotency_Key=key)
                assert (answer.status_code, paths(answer)) == (422, ["Idempotency-Key"]), (path, body, key)
    assert [await count(api, c) for c in ("jobs", "executions", "actions", "backfills")] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{ "b": [1.50, "\\u00e9"],\n "a": null }', 201),
        ('{"a":null,"b":[1.50,"é"]}', 201),
        ('{"a":null,"b":[1.5000000000000000001,"é"]}', 422),
        ('{"a":null,"b":["1.50","é"]}', 422),
        ('{"a":"null","b":[1.50,"é"]}', 422),
    ],
)
async def test_bodies_that_mean_the_same_are_the_same_request(api: Api, body: str, status: int) -> None:
    """Blanks, escapes and the order of names do not count; each digit does."""
    asked = '{"jobId": "a", "schedule": "@daily", "api": "http://h/", "body": %s}'
    first = await api.call("POST", "/jobs", (asked % '{"a": null, "b": [1.50, "é"]}').encode(), **KEY)
    again = await api.call("POST", "/jobs", (asked % body).encode(), **KEY)
    assert (first.status_code, again.status_code) == (201, status), again.text


async def test_a_key_triggers_once(api: Api) -> None:
    """Per job; after a day the request counts as new."""
    await api.make(jobId="a")
    await api.make(jobId="b")
    made = [await api.call("POST", "/jobs/a/trigger", **KEY) for _ in range(3)]
    assert len({m.json["executionId"] for m in made}) == 1
    assert {m.status_code for m in made} == {202}
    other = await api.call("POST", "/jobs/b/trigger", **KEY)
    assert other.json["executionId"].startswith("b:")
    assert (await count(api, "executions"), await count(api, "batches")) == (2, 2)


async def test_a_refused_request_frees_its_key(api: Api) -> None:
    """After 409, 404 or 422 the key can be used for the corrected request."""
    await api.make(jobId="a")
    assert (await api.call("POST", "/jobs", job(jobId="a"), **KEY)).status_code == 409
    assert (await api.call("POST", "/jobs/nope/trigger", **KEY)).status_code == 404
    assert (await api.call("POST", "/jobs", job(schedule="@at 2020-01-01T00:00:00Z"), **KEY)).status_code == 422
    assert (await api.call("POST", "/jobs", job(jobId="b"), **KEY)).status_code == 201


async def test_concurrent_requests_with_one_key_work_once(api: Api) -> None:
    """Of ten requests one does the work; the others get its response or 409 with Retry-After."""
    done = await asyncio.gather(*(api.call("POST", "/jobs", job(), **KEY) for _ in range(10)))
    assert {d.status_code for d in done} <= {201, 409}
    assert len({d.json["jobId"] for d in done if d.status_code == 201}) == 1
    assert all(d.headers["Retry-After"] == "1" for d in done if d.status_code == 409)
    assert (await api.call("POST", "/jobs", job(), **KEY)).status_code == 201
    assert await count(api, "jobs") == 1


@pytest.mark.parametrize("body", [job(), job(jobId="a")])
async def test_a_creation_with_unknown_outcome_is_taken_over(
    api: Api, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    """503 after the write was applied: the same request again answers 201, and there is one job."""
    insert = jobs.insert

    async def applied(*args: Any) -> bool:
        await insert(*args)
        monkeypatch.setattr(jobs, "insert", insert)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(jobs, "insert", applied)
    assert (await api.call("POST", "/jobs", body, **KEY)).status_code == 503
    made = await api.call("POST", "/jobs", body, **KEY)
    assert made.status_code == 201
    assert await count(api, "jobs") == 1
    assert (await api.call("GET", made.headers["Location"])).status_code == 200


async def test_a_trigger_with_unknown_outcome_is_taken_over(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between execution and batch: the same request again completes it, under the same id."""
    await api.make(jobId="a")
    now = api.clock.now_ms() // 1000 * 1000 + 5
    monkeypatch.setattr(api.clock, "now_ms", lambda: now)
    await api.call("POST", "/jobs/a/trigger")
    insert = batches.insert

    async def broken(*_: Any) -> None:
        monkeypatch.setattr(batches, "insert", insert)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(batches, "insert", broken)
    assert (await api.call("POST", "/jobs/a/trigger", **KEY)).status_code == 503
    made = await api.call("POST", "/jobs/a/trigger", **KEY)
    assert made.json == {"executionId": f"a:{now + 1:013d}"}
    owed = await executions.owed(api.db, [made.json["executionId"]])
    assert await batches.existing_ids(api.db, [e.batch for e in owed.values()])
    assert await count(api, "executions") == 2


async def test_an_abandoned_request_is_taken_over_after_10_s(api: Api) -> None:
    """Until then, its record blocks the key."""
    first = await api.call("POST", "/jobs", job(), **KEY)
    await api.db.api["idempotency"].update_many({}, {"$set": {"answer": None}})
    assert (await api.call("POST", "/jobs", job(), **KEY)).status_code == 409
    api.clock.shift = 11_000
    assert (await api.call("POST", "/jobs", job(), **KEY)).json == first.json
    assert await count(api, "jobs") == 1
