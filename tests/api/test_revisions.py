"""The revisions of a job: what it was, what differs, and the way back."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from cluster.store import engine_jobs
from tests.support.api_client import job, paths

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def listed(api: Api, query: str = "") -> list[dict[str, Any]]:
    answer = await api.call("GET", f"/jobs/j/revisions?{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json["items"])


async def test_a_job_keeps_what_it_was(api: Api) -> None:
    """Each revision with its definition, its state, and who made it when and how."""
    await api.make(jobId="j", name="first")
    await api.call("PATCH", "/jobs/j", {"name": "second"}, User_Agent="Horae-CLI/0.1.0 (jobs edit)")
    await api.call("POST", "/jobs/j/pause")
    found = await listed(api)
    assert [(r["revision"], r["action"], r["definition"]["name"], r["state"]) for r in found] == [
        (3, "pause", "second", "paused"),
        (2, "change", "second", "active"),
        (1, "create", "first", "active"),
    ]
    assert found[1]["by"] == {"key": None, "address": "127.0.0.1", "via": "command", "command": "jobs edit"}
    assert found[2]["at"] <= found[1]["at"]
    one = (await api.call("GET", "/jobs/j/revisions/1")).json
    assert one == found[2]
    shown = (await api.call("GET", "/jobs/j")).json
    assert found[0]["definition"].items() <= shown.items()


async def test_two_revisions_are_compared(api: Api) -> None:
    """Any two, in either direction, by JSON Pointer; a long value by its size and hash."""
    await api.make(jobId="j", headers={"X~A": "1"}, body="x")
    await api.call("PATCH", "/jobs/j", {"headers": {"X~A": "2"}, "retry": {"maxAttempts": 2}, "body": "y" * 2000})
    forth = (await api.call("GET", "/jobs/j/revisions/2?against=1")).json
    assert forth["against"] == 1
    changes = {c["path"]: (c["before"], c["after"]) for c in forth["changes"]}
    assert changes["/headers/X~0A"] == ("1", "2")
    assert changes["/retry/maxAttempts"] == (5, 2)
    assert changes["/body"][0] == "x"
    assert changes["/body"][1]["bytes"] == 2002
    assert changes.keys() == {"/headers/X~0A", "/retry/maxAttempts", "/body"}
    back = (await api.call("GET", "/jobs/j/revisions/1?against=2")).json
    assert {c["path"]: c["after"] for c in back["changes"]}["/retry/maxAttempts"] == 5
    assert (await api.call("GET", "/jobs/j/revisions/2?against=2")).json["changes"] == []


@pytest.mark.parametrize("body", [b'{"a": 1.10, "b": 12345678901234567890123}', b'" text "'])
async def test_a_revert_brings_the_definition_back(api: Api, body: bytes) -> None:
    """Byte for byte, as a new revision; the state stays, and a second time changes nothing."""
    raw = (
        b'{"jobId": "j", "schedule": "0 0 3 * * *", "api": "http://127.0.0.1:5001/ok", "name": "n", "body": '
        + body
        + b"}"
    )
    assert (await api.call("POST", "/jobs", raw)).status_code == 201
    await api.call("PUT", "/jobs/j", job(schedule="0 0 4 * * *"))
    await api.call("POST", "/jobs/j/pause")
    answer = await api.call("POST", "/jobs/j/revisions/1/revert")
    assert (answer.status_code, answer.headers["etag"]) == (200, '"4"')
    assert (answer.json["schedule"], answer.json["name"], answer.json["state"]) == ("0 0 3 * * *", "n", "paused")
    assert (await api.call("GET", "/jobs/j/revisions/4?against=1")).json["changes"] == [
        {"path": "/state", "before": "active", "after": "paused"}
    ]
    again = await api.call("POST", "/jobs/j/revisions/1/revert")
    assert (again.status_code, again.json["revision"]) == (200, 4)
    newest = (await listed(api))[0]
    assert (newest["revision"], newest["action"]) == (4, "revert")
    audited = (await api.call("GET", "/audit?object=job:j")).json["items"][0]
    assert (audited["action"], audited["detail"]) == ("revert", {"revertedTo": 1})


async def test_a_revert_honours_if_match_and_idempotency_key(api: Api) -> None:
    """As its siblings do: 412, and the first answer for a repeated request."""
    await api.make(jobId="j", name="a")
    await api.call("PATCH", "/jobs/j", {"name": "b"})
    assert (await api.call("POST", "/jobs/j/revisions/1/revert", If_Match='"1"')).status_code == 412
    first = await api.call("POST", "/jobs/j/revisions/1/revert", If_Match='"2"', Idempotency_Key="k")
    await api.call("PATCH", "/jobs/j", {"name": "c"})
    repeated = await api.call("POST", "/jobs/j/revisions/1/revert", If_Match='"2"', Idempotency_Key="k")
    assert (repeated.status_code, repeated.json) == (200, first.json)
    assert (await api.call("GET", "/jobs/j")).json["name"] == "c"


async def test_secrets_stay_as_they_are_now(api: Api) -> None:
    """They are not in revisions: a revert keeps those that the job has now, and says which one it has not."""
    first = {"headers": {"X-K": {"secret": "old"}, "X-P": "1"}, "auth": {"type": "bearer", "token": "old-token"}}
    await api.make(jobId="j", **first)
    await api.call("PATCH", "/jobs/j", {"headers": {"X-K": {"secret": "new"}, "X-P": "2"}})
    await api.call("PATCH", "/jobs/j", {"signingSecret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"})
    assert (await api.call("POST", "/jobs/j/revisions/1/revert")).json["headers"] == {
        "X-K": {"secret": True},
        "X-P": "1",
    }
    raw = await api.db.api["jobs"].find_one({"_id": "j"})
    assert raw is not None
    assert api.db.keyring.decrypt(raw["secret_headers"][0][1], "j", "headers.X-K") == "new"
    assert raw["signing_secret"] is not None
    await api.call("PATCH", "/jobs/j", {"headers": {"X-K": None}})
    answer = await api.call("POST", "/jobs/j/revisions/1/revert")
    assert (answer.status_code, paths(answer)) == (422, ["headers.X-K"])
    assert "old" not in str(await api.db.api["revisions"].find().to_list())
    await api.call("PATCH", "/jobs/j", {"signingSecret": None})
    signed = await api.call("POST", "/jobs/j/revisions/4/revert")
    assert (signed.status_code, paths(signed)) == (422, ["headers.X-K", "signingSecret"])


async def test_the_last_fifty_are_kept_and_listed_page_by_page(api: Api) -> None:
    """The present one among them; older ones are gone from the database too."""
    await api.make(jobId="j", name="0")
    for number in range(1, 55):
        await api.call("PATCH", "/jobs/j", {"name": str(number)})
    walked: list[int] = []
    cursor = ""
    while True:
        page = (await api.call("GET", f"/jobs/j/revisions?limit=20{cursor}")).json
        walked += [r["revision"] for r in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert walked == list(range(55, 5, -1))
    assert (await api.call("GET", "/jobs/j/revisions/5")).status_code == 404
    assert (await api.call("GET", "/jobs/j/revisions/6")).status_code == 200
    assert await api.db.api["revisions"].count_documents({}) == 49


async def test_the_completion_by_the_leader_is_a_revision(api: Api) -> None:
    """It has the definition of the one before it, which keeps who made it."""
    await api.make(jobId="j", schedule="@at 2090-01-01T00:00:00Z", name="n")
    await api.db.api["jobs"].update_one({"_id": "j"}, {"$unset": {"unsettled": ""}})
    assert await engine_jobs.complete_ended(api.db, 4_000_000_000_000, 10) == 1
    assert [(r["revision"], r["action"], r["by"]["via"]) for r in await listed(api)] == [
        (2, "complete", "horae"),
        (1, "create", "api"),
    ]
    await api.call("PUT", "/jobs/j", job(name="m"))
    assert [r["revision"] for r in await listed(api)] == [3, 2, 1]
    assert (await api.call("GET", "/jobs/j/revisions/1")).json["definition"]["name"] == "n"


async def test_revisions_go_with_the_tombstone(api: Api) -> None:
    """A job that is created again under the id of a deleted one continues its numbers until then, and begins anew after."""
    await api.make(jobId="j", name="a")
    await api.call("DELETE", "/jobs/j")
    assert (await api.call("GET", "/jobs/j/revisions")).status_code == 404
    await api.make(jobId="j", name="b")
    assert [(r["revision"], r["action"]) for r in await listed(api)] == [(3, "create"), (2, "delete"), (1, "create")]
    await api.call("DELETE", "/jobs/j")
    await api.call("GET", "/audit")
    await api.db.api["jobs"].update_one({"_id": "j"}, {"$unset": {"unsettled": ""}})
    assert await engine_jobs.delete_tombstones(api.db, 4_000_000_000_000, 10, 7.0) == 1
    assert await api.db.api["revisions"].count_documents({}) == 0


async def test_what_is_not_there_is_not_found(api: Api) -> None:
    """Jobs and revisions."""
    assert (await api.call("GET", "/jobs/none/revisions")).status_code == 404
    await api.make(jobId="j")
    for number in ("0", "2", "x", "99999999999"):
        assert (await api.call("GET", f"/jobs/j/revisions/{number}")).status_code == 404, number
        assert (await api.call("POST", f"/jobs/j/revisions/{number}/revert")).status_code == 404, number
    assert (await api.call("GET", "/jobs/j/revisions/1?against=2")).status_code == 404
    assert paths(await api.call("GET", "/jobs/j/revisions/1?against=x")) == ["against"]


async def test_a_revert_takes_the_calendar_as_it_is_now(api: Api) -> None:
    """Its days count at once; and a revision whose calendar was deleted since is refused, and names it."""
    assert (await api.call("PUT", "/calendars/c", {"weekdays": ["SUN"]})).status_code == 201
    await api.make(jobId="j", schedule="0 0 9 * * *", calendar={"name": "c", "onExcluded": "skip"})
    await api.call("PATCH", "/jobs/j", {"calendar": None, "name": "without"})
    weekdays = ["MON", "TUE", "WED", "THU", "FRI", "SAT"]
    assert (await api.call("PUT", "/calendars/c", {"weekdays": weekdays})).status_code == 200
    reverted = await api.call("POST", "/jobs/j/revisions/1/revert")
    assert reverted.status_code == 200, reverted.text
    assert {datetime.fromisoformat(at).isoweekday() for at in reverted.json["nextRuns"]} == {7}
    await api.call("PATCH", "/jobs/j", {"calendar": None})
    assert (await api.call("DELETE", "/calendars/c")).status_code == 204
    refused = await api.call("POST", "/jobs/j/revisions/1/revert")
    assert refused.status_code == 422
    assert [e["path"] for e in refused.json["errors"]] == ["calendar.name"]
    assert (await api.call("GET", "/jobs/j")).json["calendar"] is None
