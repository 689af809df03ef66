"""Messages: one request, once, now or later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from cluster.core.ids import MESSAGE_ID
from cluster.store import history
from tests.support.api_client import TARGET, paths
from tests.support.engine import Crank, check_books, lead, noting, rows, worker
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from falcon.testing import Result

    from tests.support.api_client import Api


async def post(api: Api, /, **fields: Any) -> Result:
    return await api.call("POST", "/messages", {"api": TARGET, **fields})


async def accepted(api: Api, /, **fields: Any) -> dict[str, str]:
    made = await post(api, **fields)
    assert made.status_code == 202, made.text
    return dict(made.json)


async def deliver(api: Api, came: list[str], **more: Any) -> None:
    await run_dry(worker(api.db, noting(came, **more)))


async def test_a_message_is_sent_once_and_leaves_nothing_but_history(api: Api) -> None:
    """202 with an id that no job can have, and its execution."""
    came: list[str] = []
    made = await accepted(api, body={"a": 1}, headers={"X-A": "b"})
    assert MESSAGE_ID.match(made["messageId"])
    assert made["executionId"].startswith(made["messageId"] + ":")
    await check_books(api.db)
    await deliver(api, came)
    assert came == [made["executionId"]]
    assert await rows(api.db, "executions") == await rows(api.db, "batches") == await rows(api.db, "messages") == []
    shown = (await api.call("GET", f"/messages/{made['messageId']}")).json
    assert (shown["state"], len(shown["attempts"])) == ("succeeded", 1)
    assert (await api.call("GET", f"/executions/{made['executionId']}")).json["state"] == "succeeded"


async def test_a_target_meets_the_headers_of_a_message(api: Api) -> None:
    """`Horae-Message-Id` stands where a job has `Horae-Job-Id`; names are filled in; a secret signs."""
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        import httpx

        seen.append(request)
        return httpx.Response(200)

    made = await accepted(
        api,
        body={"id": "{{executionId}}"},
        headers={"X-Try": "{{attempt}}", "X-Key": {"secret": "s3cret"}},
        signingSecret="whsec_" + "A" * 32,
    )
    await run_dry(worker(api.db, handler))
    (request,) = seen
    assert request.headers["horae-message-id"] == made["messageId"]
    assert "horae-job-id" not in request.headers
    assert request.headers["idempotency-key"] == request.headers["horae-execution-id"] == made["executionId"]
    assert orjson.loads(request.content) == {"id": made["executionId"]}
    assert (request.headers["x-try"], request.headers["x-key"]) == ("1", "s3cret")
    assert request.headers["webhook-signature"].startswith("v1,")


async def test_a_secret_is_stored_encrypted_and_never_shown(api: Api) -> None:
    made = await accepted(
        api, delay="1h", headers={"X-Key": {"secret": "s3cret"}}, auth={"type": "bearer", "token": "t0ken"}
    )
    (waiting,) = await rows(api.db, "messages")
    shown = (await api.call("GET", f"/messages/{made['messageId']}")).text
    for text in (str(waiting), shown):
        assert "s3cret" not in text
        assert "t0ken" not in text


async def test_a_far_message_waits_by_itself(api: Api) -> None:
    """It is no execution yet, and can be read by both its ids."""
    made = await accepted(api, delay="1h30m", tags=["a"])
    assert await rows(api.db, "executions") == []
    (waiting,) = await rows(api.db, "messages")
    assert waiting["_id"] == made["executionId"]
    shown = (await api.call("GET", f"/messages/{made['messageId']}")).json
    assert (shown["state"], shown["waiting"], shown["tags"]) == ("pending", True, ["a"])
    assert (await api.call("GET", f"/executions/{made['executionId']}")).json["state"] == "pending"
    due = int(made["executionId"].rpartition(":")[2])
    assert abs(due - api.clock.now_ms() - 5_400_000) < 5000


async def test_the_instant_of_a_message_has_milliseconds(api: Api) -> None:
    made = await accepted(api, at="2026-12-31T10:00:00.123Z")
    assert made["executionId"].endswith("123")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"at": "2020-01-01T00:00:00Z"}, "at"),
        ({"at": "2026-12-31T10:00:00Z", "delay": "30s"}, "at"),
        ({"delay": "366d"}, "delay"),
        ({"delay": "30"}, "delay"),
        ({"delay": "1s1s"}, "delay"),
        ({"api": "http://10.0.0.1/x"}, "api"),
        ({"schedule": "* * * * * *"}, "schedule"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"dedupId": ""}, "dedupId"),
        ({"signingSecret": "x"}, "signingSecret"),
        ({"signingSecret": {"secret": True}}, "signingSecret"),
        ({"queue": "a b"}, "queue"),
        ({"messageId": "msg.x"}, "messageId"),
        ({"overlap": "skip"}, "overlap"),
        ({"retry": {"maxAttempts": 0}}, "retry.maxAttempts"),
    ],
)
async def test_a_fault_names_its_field(api: Api, fields: dict[str, Any], path: str) -> None:
    """Nothing of it is accepted."""
    refused = await api.call("POST", "/messages", {"api": TARGET, **fields})
    assert refused.status_code == 422, refused.text
    assert paths(refused) == [path]
    assert await rows(api.db, "messages") == await rows(api.db, "executions") == []


async def test_a_body_of_two_megabytes_is_refused(api: Api) -> None:
    assert (await post(api, body="x" * 2_000_000)).status_code == 413


async def test_a_large_body_travels_to_the_target_and_into_history(api: Api) -> None:
    """It is read when its message has a slot, kept if the message fails, and sent by a replay."""
    seen: list[bytes] = []
    statuses = [400, 200]

    def handler(request: Any) -> Any:
        import httpx

        seen.append(request.content)
        return httpx.Response(statuses.pop(0))

    made = await accepted(api, body="x" * 100_000)
    await run_dry(worker(api.db, handler))
    assert (await api.call("GET", f"/messages/{made['messageId']}")).json["state"] == "failed"
    replayed = await api.call("POST", f"/executions/{made['executionId']}/retry")
    assert replayed.status_code == 202, replayed.text
    await run_dry(worker(api.db, handler))
    assert [len(body) for body in seen] == [100_000, 100_000]
    (record,) = await rows(api.db, "history")
    assert record["state"] == "succeeded"
    assert "message" not in record
    assert "large_body" not in record


async def test_a_dedup_id_makes_one_message_of_many_requests(api: Api) -> None:
    """64 at once answer one id; it is sent once. The same id with another body: 422. Others are not touched."""
    came: list[str] = []
    answers = await asyncio.gather(*(post(api, dedupId="d", body=1) for _ in range(64)))
    assert {a.status_code for a in answers} == {202}
    assert len({a.json["messageId"] for a in answers}) == 1
    await deliver(api, came)
    again = await accepted(api, dedupId="d", body=1)
    assert again["messageId"] == answers[0].json["messageId"]
    await deliver(api, came)
    assert came == [again["executionId"]]
    other = await post(api, dedupId="d", body=2)
    assert (other.status_code, paths(other)) == (422, ["dedupId"])
    assert await rows(api.db, "executions") == []


@pytest.mark.parametrize("in_a_batch", [False, True])
async def test_a_dedup_id_completes_what_a_dead_node_began(api: Api, in_a_batch: bool) -> None:
    """The node inserted the execution and died before it inserted the batch. No sweep is needed: the request is repeated."""
    came: list[str] = []
    wanted = {"dedupId": "d", "body": 1}
    made = await accepted(api, **wanted)
    await api.db.work["batches"].delete_many({})
    if in_a_batch:
        again = await batch(api, {"api": TARGET}, {"api": TARGET, **wanted})
        assert (again.json["accepted"], again.json["duplicates"]) == (1, 1)
    else:
        assert (await accepted(api, **wanted))["messageId"] == made["messageId"]
    await check_books(api.db)
    await deliver(api, came)
    assert came.count(made["executionId"]) == 1


async def test_an_idempotency_key_answers_the_same_message(api: Api) -> None:
    first = await api.call("POST", "/messages", {"api": TARGET}, Idempotency_Key="k")
    second = await api.call("POST", "/messages", {"api": TARGET}, Idempotency_Key="k")
    assert first.json == second.json
    assert len(await rows(api.db, "executions")) == 1
    assert (await api.call("POST", "/messages", {"api": TARGET, "body": 1}, Idempotency_Key="k")).status_code == 422


async def batch(api: Api, *lines: Any) -> Result:
    text = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
    return await api.call("POST", "/messages/batch", text, Content_Type="application/x-ndjson")


async def test_good_lines_of_a_batch_land_and_each_bad_one_is_told(api: Api) -> None:
    came: list[str] = []
    answer = await batch(
        api,
        {"api": TARGET, "dedupId": "a"},
        {"api": TARGET, "dedupId": "a"},
        b"{",
        {"api": TARGET, "at": "2020-01-01T00:00:00Z"},
        b"",
        {"api": TARGET, "delay": "1h"},
        {"api": TARGET, "dedupId": "a", "body": 1},
        b"[]",
    )
    assert answer.status_code == 200, answer.text
    counts = answer.json
    assert (counts["accepted"], counts["duplicates"], counts["failed"]) == (2, 1, 4)
    assert [(e["line"], e["errors"][0]["path"]) for e in counts["errors"]] == [
        (3, ""),
        (4, "at"),
        (7, "dedupId"),
        (8, ""),
    ]
    assert len(await rows(api.db, "messages")) == 1
    await deliver(api, came)
    assert len(came) == 1


async def test_a_batch_of_thousands_is_written_in_few_batches(api: Api) -> None:
    came: list[str] = []
    answer = await batch(api, *({"api": TARGET, "body": n} for n in range(1200)))
    assert answer.json["accepted"] == 1200
    await check_books(api.db)
    assert len(await rows(api.db, "batches")) <= 24
    await deliver(api, came)
    assert len(set(came)) == len(came) == 1200


async def test_a_cancelled_message_is_not_sent(api: Api) -> None:
    """204, as often as it is asked for; it is in history with the reason, and a replay sends it."""
    came: list[str] = []
    for fields in ({"delay": "1h"}, {"delay": "3s"}, {}):
        made = await accepted(api, **fields)
        for _ in range(2):
            assert (await api.call("DELETE", f"/messages/{made['messageId']}")).status_code == 204
        shown = (await api.call("GET", f"/messages/{made['messageId']}")).json
        assert (shown["state"], shown["reason"]) == ("cancelled", "it was cancelled before it was sent")
    await deliver(api, came)
    assert came == []
    assert await rows(api.db, "executions") == await rows(api.db, "messages") == []
    assert (await api.call("POST", f"/executions/{made['executionId']}/retry")).status_code == 202
    await deliver(api, came)
    assert came == [made["executionId"]]


async def test_it_is_too_late_to_cancel_what_a_node_holds_or_has_sent(api: Api) -> None:
    came: list[str] = []
    made = await accepted(api)
    w = worker(api.db, noting(came))
    claimed = await w.claiming.claimer.step(w.claiming._filter(None, late=False))
    assert claimed is not None
    assert (await api.call("DELETE", f"/messages/{made['messageId']}")).status_code == 409
    await w.claiming.take_on(claimed)
    await run_dry(w)
    assert came == [made["executionId"]]
    assert (await api.call("DELETE", f"/messages/{made['messageId']}")).status_code == 409
    assert (await api.call("DELETE", f"/messages/msg.{'0' * 26}")).status_code == 404
    assert (await api.call("GET", "/messages/nonsense")).status_code == 404


async def test_a_message_that_has_expired_is_dead_and_not_sent(api: Api) -> None:
    came: list[str] = []
    at = api.clock.now_ms() + 2000
    from cluster.core.instants import format_instant

    made = await accepted(api, expiresAt=format_instant(at))
    api.clock.shift += 60_000
    w = worker(api.db, noting(came), clock=api.clock)
    await run_dry(w)
    shown = (await api.call("GET", f"/messages/{made['messageId']}")).json
    assert came == []
    assert shown["state"] == "dead"
    assert "expiresAt" in shown["reason"]


async def test_410_ends_a_message_and_pauses_nothing(api: Api) -> None:
    came: list[str] = []
    made = await accepted(api)
    await deliver(api, came, status=410)
    shown = (await api.call("GET", f"/messages/{made['messageId']}")).json
    assert (shown["state"], shown["reason"]) == ("failed", "the target answered 410 (Gone)")


async def test_a_full_node_refuses_before_anything_is_written(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.usecases.message_intake.MAX_WAITING", 0)
    refused = await post(api)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    refused = await batch(api, {"api": TARGET})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert await rows(api.db, "executions") == []


async def test_there_are_no_messages_while_nodes_of_the_release_before_may_run(api: Api) -> None:
    """They would cancel what they do not know."""
    await api.db.api["meta"].update_one({"_id": "schema"}, {"$set": {"version": 3}})
    refused = await post(api)
    assert refused.status_code == 409
    assert "db migrate" in refused.json["detail"]


async def test_a_replay_of_many_sends_messages_again_by_tag(api: Api) -> None:
    """Counted first; and one whose request for a replay died half-way is owed by the leader's repair."""
    came: list[str] = []
    made = [await accepted(api, tags=[tag]) for tag in ("a", "a", "b")]
    await deliver(api, came, status=400)
    wanted: dict[str, dict[str, Any]] = {"filter": {"tag": "a", "state": ["failed"]}}
    counted = await api.call("POST", "/executions/retry", {**wanted, "dryRun": True})
    assert counted.json["matched"] == 2
    for host, matched in (("127.0.0.1", 2), ("127.0.0.1:5001", 2), ("elsewhere.example", 0)):
        narrowed = {"filter": {**wanted["filter"], "host": host}, "dryRun": True}
        assert (await api.call("POST", "/executions/retry", narrowed)).json["matched"] == matched
    wanted["filter"]["host"] = "127.0.0.1"
    assert (await api.call("POST", "/executions/retry", wanted)).status_code == 202
    clock = Crank(api.clock.now_ms())
    replayer = (await lead(api.db, clock)).replayer
    assert (await replayer.step(clock.now_ms())).executions == 2
    await history.reopen(api.db, made[2]["executionId"], clock.now_ms() - 100_000, 7.0)
    assert await replayer.repair(clock.now_ms()) == 1
    came.clear()
    await run_dry(worker(api.db, noting(came)))
    assert sorted(came) == sorted(m["executionId"] for m in made)
