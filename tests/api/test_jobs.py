"""Creating, reading, changing and deleting jobs through the API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from cluster.core.instants import format_instant, parse_instant
from cluster.core.job.wanted import NO_STORED_SECRET
from tests.support.api_client import job, paths

if TYPE_CHECKING:
    from tests.support.api_client import Api

DAY = 86_400_000


async def test_the_smallest_body_creates_a_job(api: Api) -> None:
    """201 with an id and its location; GET shows all defaults."""
    body = {
        "schedule": "31 10-15 1 * * MON-FRI",
        "api": "https://api.example.com/webhook",
        "type": "ATLEAST_ONCE",
    }
    made = await api.call("POST", "/jobs", body)
    assert made.status_code == 201
    assert list(made.json) == ["jobId"]
    assert made.headers["Location"] == f"/jobs/{made.json['jobId']}"
    read = await api.call("GET", made.headers["Location"])
    assert read.status_code == 200
    assert read.headers["ETag"] == '"1"'
    shown = read.json
    assert body.items() <= shown.items()
    assert (shown["state"], shown["revision"], shown["timezone"]) == ("active", 1, "UTC")
    assert (shown["timeoutSeconds"], shown["catchUp"], shown["overlap"]) == (30, "all", "allow")
    assert shown["retry"]["maxAttempts"] == 5
    assert len(shown["nextRuns"]) == 5
    more = (await api.call("GET", f"/jobs/{shown['jobId']}?nextRuns=10")).json["nextRuns"]
    assert (len(more), more[:5]) == (10, shown["nextRuns"])
    refused = await api.call("GET", f"/jobs/{shown['jobId']}?nextRuns=21")
    assert (refused.status_code, paths(refused)) == (422, ["nextRuns"])
    assert shown["lastExecution"] is None


async def test_a_job_is_returned_as_it_was_sent(api: Api) -> None:
    """Body, tags and headers with $, dots, NUL and unusual Unicode."""
    fields = {
        "name": "a.b $set \0 \u202e \U0001f600",
        "tags": ["$where", "a.b", "\0"],
        "headers": {"X-A.b": "$1", "x-uml": "\u00e4"},
        "body": {"$set": {"a.b": 1, "": None, "\0": "\u2028"}, "n": [1.5, -0.0, 2**63, True]},
    }
    job_id = await api.make(**fields)
    shown = (await api.call("GET", f"/jobs/{job_id}")).json
    assert {name: shown[name] for name in fields} == fields
    stored = await api.db.api["jobs"].find_one({"_id": job_id})
    assert stored is not None
    assert stored["body_kind"] == "json"


async def test_a_string_is_a_text_body(api: Api) -> None:
    """The empty string too; null is no body."""
    for body, kind in (("a=1&b=2", "text"), ("", "text"), (None, "none"), (0, "json"), ([], "json")):
        job_id = await api.make(body=body)
        stored = await api.db.api["jobs"].find_one({"_id": job_id})
        assert stored is not None
        assert stored["body_kind"] == kind
        assert (await api.call("GET", f"/jobs/{job_id}")).json["body"] == body


async def test_all_errors_of_a_job_are_reported_together(api: Api) -> None:
    """By path, and nothing is stored."""
    bad = {
        "schedule": "61 * * * * *",
        "timezone": "Mars/Olympus",
        "api": "ftp://example.com",
        "type": "EXACTLY_ONCE",
        "tags": ["a", 3],
        "headers": {"Host": "x", "X": 1, "Y": "a\nb"},
        "retry": {"maxAttempts": "3", "nope": 1},
        "timeoutSeconds": True,
        "spreadSeconds": 1.5,
        "startAt": "tomorrow",
        "signingSecret": "short",
        "jobId": "a b",
        "shcedule": "x",
        "revision": 3,
    }
    refused = await api.call("POST", "/jobs", bad)
    assert refused.status_code == 422
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert set(paths(refused)) == {
        "schedule",
        "timezone",
        "api",
        "type",
        "tags.1",
        "headers.Host",
        "headers.X",
        "headers.Y",
        "retry.maxAttempts",
        "retry.nope",
        "timeoutSeconds",
        "spreadSeconds",
        "startAt",
        "signingSecret",
        "jobId",
        "shcedule",
        "revision",
    }
    messages = {e["path"]: e["message"] for e in refused.json["errors"]}
    assert "did you mean schedule" in messages["shcedule"]
    assert "second" in messages["schedule"]
    assert await api.db.api["jobs"].count_documents({}) == 0


async def test_a_schedule_without_occurrences_is_refused(api: Api) -> None:
    """One that never fires, or has no occurrence in the future."""
    now = api.clock.now_ms()
    for fields, path in (
        ({"schedule": "0 0 0 30 2 *"}, "schedule"),
        ({"schedule": "@at 2020-01-01T00:00:00Z"}, "schedule"),
        ({"endAt": format_instant(now - 1000)}, "endAt"),
        (
            {"schedule": "0 0 0 1 1 *", "startAt": format_instant(now + 60_000), "endAt": format_instant(now + 61_000)},
            "schedule",
        ),
        ({"startAt": format_instant(now + DAY), "endAt": format_instant(now)}, "endAt"),
    ):
        refused = await api.call("POST", "/jobs", job(**fields))
        assert refused.status_code == 422, fields
        assert paths(refused) == [path], fields


async def test_post_never_overwrites_a_job(api: Api) -> None:
    """409; the id of a deleted job can be used again and gets a higher revision."""
    await api.make(jobId="a")
    assert (await api.call("POST", "/jobs", job(jobId="a"))).status_code == 409
    assert (await api.call("DELETE", "/jobs/a")).status_code == 204
    await api.make(jobId="a")
    assert (await api.call("GET", "/jobs/a")).json["revision"] == 3


async def test_put_creates_then_replaces_and_is_idempotent(api: Api) -> None:
    """The first PUT is 201, the same PUT 200 without a new revision, another one 200 with a new one."""
    first = await api.call("PUT", "/jobs/a", job(name="x"))
    again = await api.call("PUT", "/jobs/a", job(name="x"))
    other = await api.call("PUT", "/jobs/a", job())
    assert [r.status_code for r in (first, again, other)] == [201, 200, 200]
    assert [r.json["revision"] for r in (first, again, other)] == [1, 1, 2]
    assert other.json["name"] is None


async def test_only_changes_of_the_schedule_make_a_new_version(api: Api) -> None:
    """A new schedule, time zone, startAt or endAt, and a resume; not a new name."""

    async def stored() -> tuple[str, int, str | None, int]:
        d = await api.db.api["jobs"].find_one({"_id": "a"})
        assert d is not None
        return d["schedule_version"], int(d["active_from"]), d.get("unsettled"), len(d["past"])

    await api.make(jobId="a")
    version, since, mark, _ = await stored()
    await api.call("PATCH", "/jobs/a", {"name": "new", "body": {"a": 1}})
    assert await stored() == (version, since, mark, 0)
    await api.call("PATCH", "/jobs/a", {"api": "http://127.0.0.1:5002/elsewhere"})
    assert (await stored())[:2] == (version, since)
    assert (await stored())[2] == mark
    past = 0
    for change in (
        {"schedule": "0 0 4 * * *"},
        {"timezone": "Europe/Berlin"},
        {"startAt": format_instant(api.clock.now_ms() + DAY)},
        {"endAt": format_instant(api.clock.now_ms() + 9 * DAY)},
    ):
        before = await stored()
        assert (await api.call("PATCH", "/jobs/a", change)).status_code == 200
        after = await stored()
        past += 1
        assert after[0] != before[0]
        assert after[1] > before[1]
        assert after[2] != before[2]
        assert after[3] == past
    await api.call("POST", "/jobs/a/pause")
    paused = await stored()
    assert paused[3] == past + 1
    await api.call("POST", "/jobs/a/resume")
    resumed = await stored()
    assert resumed[0] != paused[0]
    assert resumed[3] == past + 1


async def test_pause_and_resume_may_be_repeated(api: Api) -> None:
    """Repeating them changes nothing; a paused job has no next runs."""
    await api.make(jobId="a")
    first = await api.call("POST", "/jobs/a/pause")
    again = await api.call("POST", "/jobs/a/pause")
    assert (first.json["state"], first.json["revision"], again.json["revision"]) == ("paused", 2, 2)
    assert first.json["nextRuns"] == []
    resumed = await api.call("POST", "/jobs/a/resume")
    again = await api.call("POST", "/jobs/a/resume")
    assert (resumed.json["state"], resumed.json["revision"], again.json["revision"]) == ("active", 3, 3)


async def test_a_job_past_its_end_is_not_resumed(api: Api) -> None:
    """If endAt passed during the pause, 409 says what to do."""
    await api.make(jobId="a", endAt=format_instant(api.clock.now_ms() + 2 * DAY))
    await api.call("POST", "/jobs/a/pause")
    api.clock.shift = 3 * DAY
    refused = await api.call("POST", "/jobs/a/resume")
    assert refused.status_code == 409
    assert "endAt" in refused.json["detail"]


async def test_patch_is_a_merge_patch(api: Api) -> None:
    """Objects merge, null removes, arrays replace; the result is checked as a whole."""
    await api.make(jobId="a", body={"a": 1, "b": {"c": 1, "d": 2}}, tags=["x", "y"], retry={"maxAttempts": 2})
    patched = await api.call(
        "PATCH", "/jobs/a", {"body": {"a": None, "b": {"c": 3}}, "tags": ["z"], "retry": {"jitter": 0}}
    )
    assert patched.json["body"] == {"b": {"c": 3, "d": 2}}
    assert patched.json["tags"] == ["z"]
    assert (patched.json["retry"]["maxAttempts"], patched.json["retry"]["jitter"]) == (2, 0)
    refused = await api.call("PATCH", "/jobs/a", {"schedule": None, "nope": 1})
    assert paths(refused) == ["schedule", "nope"]
    assert (await api.call("GET", "/jobs/a")).json["revision"] == 2


async def test_a_signing_secret_is_write_only(api: Api) -> None:
    """It is never shown, only that there is one; a PUT without it, or with the placeholder, keeps it; null removes it."""
    secret = "whsec_" + "QUJD" * 10
    await api.make(jobId="a", signingSecret=secret)

    async def kept() -> str | None:
        d = await api.db.api["jobs"].find_one({"_id": "a"})
        assert d is not None
        return api.db.keyring.decrypt_optional(d["signing_secret"], "a", "signingSecret")

    shown = await api.call("GET", "/jobs/a")
    assert secret not in shown.text
    assert (shown.json["signingSecret"], "previousSigningSecret" in shown.json) == ({"secret": True}, False)
    assert (await api.call("GET", "/jobs")).json["items"][0]["signingSecret"] == {"secret": True}
    await api.call("PUT", "/jobs/a", job(name="n"))
    await api.call("PUT", "/jobs/a", job(name="o", signingSecret={"secret": True}))
    await api.call("PATCH", "/jobs/a", {"name": "m"})
    assert await kept() == secret
    await api.call("PATCH", "/jobs/a", {"signingSecret": None})
    assert await kept() is None
    assert "signingSecret" not in (await api.call("GET", "/jobs/a")).json


async def test_every_secret_that_is_not_stored_is_named_at_once(api: Api) -> None:
    """A job whose placeholders stand for nothing is refused as a whole: by POST, PUT, PATCH, and as a line of an import."""
    kept = {"secret": True}
    callback = {"api": job()["api"], "headers": {"X-K": kept}, "signingSecret": kept}
    wanted = job(
        headers={"X-A": kept, "X-B": kept},
        auth={"type": "basic", "username": "u", "password": kept},
        signingSecret=kept,
        previousSigningSecret=kept,
        onSuccess=callback,
        onFailure={"api": job()["api"], "signingSecret": kept},
    )
    fields = [
        *("headers.X-A", "headers.X-B", "auth.password", "signingSecret", "previousSigningSecret"),
        *("onSuccess.headers.X-K", "onSuccess.signingSecret", "onFailure.signingSecret"),
    ]
    await api.make(jobId="plain")
    for refused in (
        await api.call("POST", "/jobs", wanted),
        await api.call("PUT", "/jobs/new", wanted),
        await api.call("PUT", "/jobs/plain", wanted),
        await api.call("PATCH", "/jobs/plain", {n: v for n, v in wanted.items() if n not in ("schedule", "api")}),
    ):
        assert (refused.status_code, paths(refused)) == (422, fields)
        assert {e["message"] for e in refused.json["errors"]} == {NO_STORED_SECRET}
    line = orjson.dumps({"jobId": "new", **wanted})
    imported = await api.call("POST", "/jobs/import", line, Content_Type="application/x-ndjson")
    assert [e["path"] for e in imported.json["errors"][0]["errors"]] == fields
    assert (await api.call("GET", "/jobs/new")).status_code == 404
    shown = (await api.call("GET", "/jobs/plain")).json
    assert (shown["revision"], shown["onSuccess"], shown["auth"]) == (1, None, None)


async def test_a_lost_update_is_refused(api: Api) -> None:
    """With If-Match a change on an old revision is 412 and changes nothing; If-None-Match: * only creates."""
    await api.make(jobId="a")
    await api.call("PATCH", "/jobs/a", {"name": "first"})
    for method, path, body in (
        ("PATCH", "/jobs/a", {"name": "second"}),
        ("PUT", "/jobs/a", job()),
        ("DELETE", "/jobs/a", None),
        ("POST", "/jobs/a/pause", None),
    ):
        assert (await api.call(method, path, body, If_Match='"1"')).status_code == 412
    assert (await api.call("PUT", "/jobs/a", job(), If_None_Match="*")).status_code == 412
    assert (await api.call("PATCH", "/jobs/a", {"name": "x"}, If_Match="W/1")).status_code == 422
    shown = (await api.call("GET", "/jobs/a")).json
    assert (shown["name"], shown["state"], shown["revision"]) == ("first", "active", 2)
    assert (await api.call("PATCH", "/jobs/a", {"name": "third"}, If_Match='"2"')).status_code == 200


async def test_concurrent_patches_are_all_applied(api: Api) -> None:
    """Five patches of different fields."""
    await api.make(jobId="a")
    changes: list[dict[str, object]] = [
        {"name": "n"},
        {"description": "d"},
        {"tags": ["t"]},
        {"spreadSeconds": 3},
        {"body": 1},
    ]
    done = await asyncio.gather(*(api.call("PATCH", "/jobs/a", c) for c in changes))
    assert [r.status_code for r in done] == [200] * 5
    shown = (await api.call("GET", "/jobs/a")).json
    assert all(shown[name] == value for c in changes for name, value in c.items())
    assert shown["revision"] == 6


async def test_a_deleted_job_is_404_everywhere(api: Api) -> None:
    """As an unknown job. Only its history can still be listed."""
    await api.make(jobId="a")
    assert (await api.call("DELETE", "/jobs/a")).status_code == 204
    assert (await api.call("GET", "/jobs/a/executions")).status_code == 200
    for name in ("a", "never", "x" * 65, "a.b"):
        for method, path, body in (
            ("GET", "", None),
            ("PATCH", "", {"name": "x"}),
            ("DELETE", "", None),
            ("POST", "/pause", None),
            ("POST", "/resume", None),
            ("POST", "/trigger", None),
            *([] if name == "a" else [("GET", "/executions", None)]),
        ):
            assert (await api.call(method, f"/jobs/{name}{path}", body)).status_code == 404, (name, method, path)
    assert (await api.call("GET", "/jobs")).json["items"] == []


async def test_intervals_keep_their_grid(api: Api) -> None:
    """`@every` counts from startAt or creation; renaming and pausing do not shift it."""
    await api.make(jobId="a", schedule="@every 1h")
    before = (await api.call("GET", "/jobs/a")).json["nextRuns"]
    await api.call("PATCH", "/jobs/a", {"name": "x"})
    await api.call("POST", "/jobs/a/pause")
    await api.call("POST", "/jobs/a/resume")
    after = (await api.call("GET", "/jobs/a")).json["nextRuns"]
    assert parse_instant(after[-1]) % 3_600_000 == parse_instant(before[-1]) % 3_600_000
    start = format_instant(api.clock.now_ms() // 1000 * 1000 + 7_000)
    patched = (await api.call("PATCH", "/jobs/a", {"startAt": start})).json
    assert patched["nextRuns"][0] == start


async def test_limits_and_success_codes_are_returned(api: Api) -> None:
    """As they were sent; `queue` excludes limits of the job's own."""
    await api.make(jobId="a", maxPerSecond=1.5, maxConcurrent=2, successCodes=[200, "3xx"], retry={"maxAgeSeconds": 60})
    shown = (await api.call("GET", "/jobs/a")).json
    assert (shown["maxPerSecond"], shown["maxConcurrent"], shown["queue"]) == (1.5, 2, None)
    assert (shown["successCodes"], shown["retry"]["maxAgeSeconds"]) == ([200, "3xx"], 60)
    changed = await api.call("PATCH", "/jobs/a", {"queue": "mail"}, Content_Type="application/merge-patch+json")
    assert paths(changed) == ["queue"]
    patch = {"queue": "mail", "maxPerSecond": None, "maxConcurrent": None}
    changed = await api.call("PATCH", "/jobs/a", patch, Content_Type="application/merge-patch+json")
    assert changed.json["queue"] == "mail"
