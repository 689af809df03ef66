"""Callbacks and chains by the API: bad input is named, secrets stay inside, and what follows is shown beside its parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api_client import TARGET, paths
from tests.support.engine import noting, worker
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from tests.support.api_client import Api

JOB = {"schedule": "@yearly", "api": TARGET}
PRIVATE = "http://10.1.2.3/x"
CALLBACK_FAULTS: list[tuple[Any, str]] = [
    ({"api": PRIVATE}, "onSuccess.api"),
    ({"api": "ftp://a.example.com"}, "onSuccess.api"),
    ({}, "onSuccess"),
    ({"api": TARGET, "channel": "c"}, "onSuccess"),
    ({"channel": "nowhere"}, "onSuccess.channel"),
    ({"channel": "a b"}, "onSuccess.channel"),
    ({"api": TARGET, "onSuccess": {"api": TARGET}}, "onSuccess.onSuccess"),
    ({"api": TARGET, "headers": {"Host": "x"}}, "onSuccess.headers.Host"),
    ({"api": TARGET, "signingSecret": "short"}, "onSuccess.signingSecret"),
    ("http://a.example.com", "onSuccess"),
]


@pytest.mark.parametrize(("callback", "path"), CALLBACK_FAULTS)
async def test_a_bad_callback_is_named(api: Api, callback: Any, path: str) -> None:
    """Of a job, of a message, and of a patch."""
    for method, place, body in (
        ("PUT", "/jobs/a", {**JOB, "onSuccess": callback}),
        ("POST", "/messages", {"api": TARGET, "onSuccess": callback}),
    ):
        answer = await api.call(method, place, body)
        assert answer.status_code == 422, answer.text
        assert path in paths(answer), (place, answer.text)
    await api.call("PUT", "/jobs/b", JOB)
    assert path in paths(await api.call("PATCH", "/jobs/b", {"onSuccess": callback}))


AFTER_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"after": {"jobId": "p"}, "schedule": "@hourly"}, "schedule"),
    ({}, "schedule"),
    ({"after": {"jobId": "nobody"}}, "after.jobId"),
    ({"after": {"jobId": "c"}}, "after.jobId"),
    ({"after": {"jobId": "a b"}}, "after.jobId"),
    ({"after": {"on": "any"}}, "after.jobId"),
    ({"after": {"jobId": "p", "on": "never"}}, "after.on"),
    ({"after": {"jobId": "p"}, "startAt": "2031-01-01T00:00:00Z"}, "startAt"),
    ({"after": {"jobId": "p"}, "calendar": {"name": "x"}}, "calendar"),
    ({"after": {"jobId": "p"}, "spreadSeconds": 5}, "spreadSeconds"),
    ({"after": {"jobId": "p"}, "deleteAfterRun": True}, "deleteAfterRun"),
]


@pytest.mark.parametrize(("fields", "path"), AFTER_FAULTS)
async def test_a_bad_chain_is_named(api: Api, fields: dict[str, Any], path: str) -> None:
    await api.call("PUT", "/jobs/p", JOB)
    answer = await api.call("PUT", "/jobs/c", {"api": TARGET, **fields})
    assert (answer.status_code, paths(answer)) == (422, [path]), answer.text


async def test_a_cycle_is_refused_by_every_way_to_change_a_job(api: Api) -> None:
    """PUT, PATCH and import; an action cannot change `after` at all."""
    await api.call("PUT", "/jobs/p", JOB)
    assert (await api.call("PUT", "/jobs/c", {"api": TARGET, "after": {"jobId": "p"}})).status_code == 201
    turned = {"schedule": None, "after": {"jobId": "c"}}
    assert paths(await api.call("PATCH", "/jobs/p", turned)) == ["after.jobId"]
    assert paths(await api.call("PUT", "/jobs/p", {"api": TARGET, "after": {"jobId": "c"}})) == ["after.jobId"]
    line = b'{"jobId":"p","api":"http://127.0.0.1:5001/ok","after":{"jobId":"c"}}\n'
    imported = await api.call("POST", "/jobs/import", line, Content_Type="application/x-ndjson")
    assert imported.json["errors"][0]["errors"][0]["path"] == "after.jobId"
    action = {"action": "patch", "filter": {"all": True}, "patch": {"after": {"jobId": "c"}}}
    assert paths(await api.call("POST", "/jobs/actions", action)) == ["patch.after"]
    assert (await api.call("GET", "/jobs/p")).json["after"] is None


async def test_a_chained_job_reads_as_it_was_written(api: Api) -> None:
    await api.call("PUT", "/jobs/p", JOB)
    made = await api.call("PUT", "/jobs/c", {"api": TARGET, "after": {"jobId": "p", "on": "any"}})
    assert made.status_code == 201, made.text
    shown = (await api.call("GET", "/jobs/c")).json
    assert (shown["schedule"], shown["after"], shown["nextRuns"]) == (None, {"jobId": "p", "on": "any"}, [])
    again = await api.call("PUT", "/jobs/c", {"api": TARGET, "after": {"jobId": "p", "on": "any"}})
    assert (again.status_code, again.json["revision"]) == (200, 1)
    paused = await api.call("POST", "/jobs/c/pause")
    assert paused.json["state"] == "paused"
    assert (await api.call("POST", "/jobs/c/resume")).json["state"] == "active"
    listed = {j["jobId"]: j["nextRunAt"] for j in (await api.call("GET", "/jobs")).json["items"]}
    assert listed.keys() == {"p", "c"}
    assert listed["c"] is None
    patched = await api.call("PATCH", "/jobs/c", {"after": {"on": "failed"}})
    assert patched.json["after"] == {"jobId": "p", "on": "failed"}


async def test_secrets_of_callbacks_are_kept_hidden_and_part_of_revisions_without_them(api: Api) -> None:
    """A placeholder keeps a secret; differences and revisions show none."""
    secret = "whsec_" + "A" * 32
    callback = {"api": TARGET, "headers": {"X-Key": {"secret": "s3cretvalue"}}, "signingSecret": secret}
    assert (await api.call("PUT", "/jobs/a", {**JOB, "onFailure": callback})).status_code == 201
    shown = (await api.call("GET", "/jobs/a")).json
    hidden = {"api": TARGET, "headers": {"X-Key": {"secret": True}}, "signingSecret": {"secret": True}}
    assert shown["onFailure"] == hidden
    kept = await api.call("PUT", "/jobs/a", {**JOB, "onFailure": shown["onFailure"], "name": "n"})
    assert kept.status_code == 200, kept.text
    other = {**callback, "headers": {"X-Key": {"secret": "another1"}}}
    assert (await api.call("PATCH", "/jobs/a", {"onFailure": other})).status_code == 200
    revisions = await api.call("GET", "/jobs/a/revisions")
    audit = await api.call("GET", "/audit?object=job:a")
    stored = [d async for d in api.db.api["jobs"].find()] + [d async for d in api.db.api["revisions"].find()]
    for text in (revisions.text, audit.text, repr(stored)):
        assert not any(value in text for value in ("s3cretvalue", "another1", secret))
    assert "/onFailure/headers/X-Key" in audit.text
    reverted = await api.call("POST", "/jobs/a/revisions/2/revert")
    assert reverted.status_code == 200, reverted.text


async def test_what_follows_an_execution_is_shown_beside_it(api: Api) -> None:
    came: list[str] = []
    await api.call("PUT", "/jobs/p", {**JOB, "onSuccess": {"api": f"{TARGET}/told"}})
    await api.call("PUT", "/jobs/c", {"api": TARGET, "after": {"jobId": "p"}})
    name = (await api.call("POST", "/jobs/p/trigger")).json["executionId"]
    for _ in range(2):
        await run_dry(worker(api.db, noting(came)))
    assert len(came) == 3
    shown = (await api.call("GET", f"/executions/{name}")).json
    assert [(f["kind"], f["state"]) for f in shown["followUps"]] == [("callback", "succeeded"), ("run", "succeeded")]
    for follow_up in shown["followUps"]:
        its = (await api.call("GET", f"/executions/{follow_up['executionId']}")).json
        assert (its["follows"], its["followUps"]) == (name, [])
    listed = (await api.call("GET", "/executions?limit=10")).json["items"]
    assert {e["executionId"] for e in listed} == {name, *(f["executionId"] for f in shown["followUps"])}


async def test_a_channel_that_a_callback_names_is_not_deleted(api: Api) -> None:
    await api.call("PUT", "/channels/ops", {"type": "webhook", "url": "http://127.0.0.1:5001/a"})
    assert (await api.call("PUT", "/jobs/a", {**JOB, "onFailure": {"channel": "ops"}})).status_code == 201
    assert (await api.call("DELETE", "/channels/ops")).status_code == 409
    sent = await api.call("POST", "/messages", {"api": TARGET, "delay": "1h", "onFailure": {"channel": "ops"}})
    assert sent.status_code == 202, sent.text
    shown = (await api.call("GET", f"/messages/{sent.json['messageId']}")).json
    assert (shown["onSuccess"], shown["onFailure"]) == (None, {"channel": "ops"})


async def test_a_failed_callback_can_be_replayed(api: Api) -> None:
    """It carries its request, so nothing else is needed."""
    came: list[str] = []
    await api.call("PUT", "/jobs/p", {**JOB, "onSuccess": {"api": f"{TARGET}/told"}})
    await api.call("POST", "/jobs/p/trigger")
    await run_dry(worker(api.db, noting(came)))
    await run_dry(worker(api.db, noting(came, status=404)))
    callback = came[-1]
    assert (await api.call("GET", f"/executions/{callback}")).json["state"] == "failed"
    assert (await api.call("POST", f"/executions/{callback}/retry")).status_code == 202
    await run_dry(worker(api.db, noting(came)))
    assert (await api.call("GET", f"/executions/{callback}")).json["state"] == "succeeded"
