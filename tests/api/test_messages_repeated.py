"""A request that is repeated after its times have passed has the answer of the first one; a new one has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from cluster.core.instants import format_instant
from tests.support.api_client import TARGET, paths
from tests.support.engine import rows

if TYPE_CHECKING:
    from falcon.testing import Result

    from tests.support.api_client import Api

LATER_MS = 60_000


async def post(api: Api, fields: dict[str, Any], **headers: str) -> Result:
    return await api.call("POST", "/messages", {"api": TARGET, **fields}, **headers)


def times(api: Api) -> list[tuple[dict[str, Any], str]]:
    """Fields that will have passed, and the one that is at fault then."""
    now = api.clock.now_ms()
    return [
        ({"at": format_instant(now + 30_000)}, "at"),
        ({"expiresAt": format_instant(now + 30_000)}, "expiresAt"),
        ({"delay": "20s", "expiresAt": format_instant(now + 30_000)}, "expiresAt"),
    ]


@pytest.mark.parametrize("case", range(3))
async def test_a_dedup_id_answers_the_same_message_after_its_times_have_passed(api: Api, case: int) -> None:
    fields, path = times(api)[case]
    fields["dedupId"] = "d"
    first = await post(api, fields)
    assert first.status_code == 202, first.text
    api.clock.shift = LATER_MS
    again = await post(api, fields)
    assert (again.status_code, again.json) == (202, first.json)
    line = {"api": TARGET, **fields}
    counts = (await api.call("POST", "/messages/batch", orjson.dumps(line), Content_Type="application/x-ndjson")).json
    assert (counts["accepted"], counts["duplicates"], counts["failed"]) == (0, 1, 0)
    other = await post(api, {**fields, "body": 1})
    assert (other.status_code, paths(other)) == (422, ["dedupId"])
    new = await post(api, {**fields, "dedupId": "e"})
    assert (new.status_code, paths(new)) == (422, [path])
    assert len(await rows(api.db, "messages") + await rows(api.db, "executions")) == 1
    assert len(await rows(api.db, "dedups")) == 1


@pytest.mark.parametrize("case", range(3))
async def test_an_idempotency_key_answers_the_same_message_after_its_times_have_passed(api: Api, case: int) -> None:
    fields, path = times(api)[case]
    first = await post(api, fields, Idempotency_Key="k")
    assert first.status_code == 202, first.text
    api.clock.shift = LATER_MS
    again = await post(api, fields, Idempotency_Key="k")
    assert (again.status_code, again.json) == (202, first.json)
    new = await post(api, fields, Idempotency_Key="n")
    assert (new.status_code, paths(new)) == (422, [path])
    assert len(await rows(api.db, "messages") + await rows(api.db, "executions")) == 1


async def test_a_dedup_id_completes_in_the_second_try_what_came_too_late_for_a_new_message(api: Api) -> None:
    """The node of the first request died between the choice of the id and the message. Its caller asks again, later."""
    fields = {"at": format_instant(api.clock.now_ms() + 30_000), "dedupId": "d"}
    first = (await post(api, fields)).json
    await api.db.api["messages"].delete_many({})
    api.clock.shift = LATER_MS
    again = await post(api, fields)
    assert (again.status_code, again.json) == (202, first)
    (owed,) = await rows(api.db, "executions")
    assert owed["_id"] == first["executionId"]


async def test_a_dedup_id_counts_for_a_day_and_no_longer(api: Api) -> None:
    fields = {"dedupId": "d", "body": 1}
    first = (await post(api, fields)).json
    api.clock.shift = 86_400_000 - 5000
    assert (await post(api, fields)).json == first
    api.clock.shift = 86_400_000 + 5000
    other = await post(api, {**fields, "body": 2})
    assert other.status_code == 202
    assert other.json != first


async def test_a_delay_is_a_year_at_most(api: Api) -> None:
    assert (await post(api, {"delay": "365d"})).status_code == 202
    for delay in ("365d1s", "8760h1s", "366d"):
        refused = await post(api, {"delay": delay})
        assert (refused.status_code, paths(refused)) == (422, ["delay"])


async def test_a_batch_with_an_idempotency_key_says_what_to_use_instead(api: Api) -> None:
    """To ignore it would send every message of a repeated batch twice."""
    line = orjson.dumps({"api": TARGET})
    headers = {"Content_Type": "application/x-ndjson", "Idempotency_Key": "k"}
    refused = await api.call("POST", "/messages/batch", line, **headers)
    assert (refused.status_code, paths(refused)) == (422, ["Idempotency-Key"])
    assert "dedupId" in refused.text
    assert await rows(api.db, "executions") == []


async def test_a_dedup_id_compares_what_is_meant(api: Api) -> None:
    """As an Idempotency-Key does: two clients that write one request in two ways have sent one message."""
    texts = (
        b'{"api": "%b", "dedupId": "d", "body": {"a": "\xc3\xa9/", "b": [1.10]}, "headers": {"X-A": "1", "X-B": "2"}}',
        b'{"dedupId":"d","api":"%b","headers":{"X-B":"2","X-A":"1"},"body":{"b":[ 1.10 ],"a":"\\u00e9\\/"}}',
    )
    first, second = [await api.call("POST", "/messages", text % TARGET.encode()) for text in texts]
    assert (first.status_code, second.status_code) == (202, 202), second.text
    assert first.json == second.json
    batch = await api.call("POST", "/messages/batch", texts[1] % TARGET.encode(), Content_Type="application/x-ndjson")
    assert (batch.json["accepted"], batch.json["duplicates"]) == (0, 1)
    for other in (b"[1.1]", b"[1.10, null]", b"1.10"):
        meant_otherwise = texts[0].replace(b"[1.10]", other) % TARGET.encode()
        refused = await api.call("POST", "/messages", meant_otherwise)
        assert (refused.status_code, paths(refused)) == (422, ["dedupId"])
