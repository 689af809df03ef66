"""`/jobs/actions`: one change of many jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster.usecases import actions
from tests.support.actions import act_until_done
from tests.support.api_client import RULES, TARGET, paths
from tests.support.engine import Crank, lead

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def begin(api: Api, action: str, where: dict[str, Any], **more: Any) -> str:
    answer = await api.call("POST", "/jobs/actions", {"action": action, "filter": where, **more})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/actions/{answer.json['actionId']}"
    return str(answer.json["actionId"])


async def ended(api: Api, action_id: str) -> dict[str, Any]:
    """The action after a leader has done its work."""
    await act_until_done(await lead(api.db, Crank(api.clock.now_ms()), document_limits=RULES))
    answer = await api.call("GET", f"/jobs/actions/{action_id}")
    assert answer.status_code == 200
    return dict(answer.json)


async def state_of(api: Api, job_id: str) -> str:
    answer = await api.call("GET", f"/jobs/{job_id}")
    return str(answer.json["state"]) if answer.status_code == 200 else "deleted"


async def test_a_dry_run_counts_the_jobs_and_shows_the_first_ten_by_name(api: Api) -> None:
    """It changes nothing."""
    for i in range(12):
        await api.make(jobId=f"j{i:02d}", name=f"name {11 - i:02d}", tags=["billing"])
    await api.make(jobId="other")
    asked = {"action": "pause", "filter": {"tag": "billing"}, "dryRun": True}
    answer = await api.call("POST", "/jobs/actions", asked)
    assert answer.status_code == 200
    assert answer.json["matched"] == 12
    assert [s["name"] for s in answer.json["sample"]] == [f"name {i:02d}" for i in range(10)]
    assert answer.json["sample"][0] == {"jobId": "j11", "name": "name 00", "state": "active"}
    assert await api.db.api["actions"].count_documents({}) == 0
    assert await state_of(api, "j00") == "active"


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"tag": "billing"}, {"a", "b"}),
    ({"tag": ["billing", "eu"]}, {"b"}),
    ({"anyTag": ["eu", "us"]}, {"b", "c"}),
    ({"state": "paused"}, {"c"}),
    ({"state": ["active", "paused"], "tag": "us"}, {"c"}),
    ({"q": "invoice"}, {"a"}),
    ({"q": "!"}, set()),
    ({"host": "127.0.0.1"}, {"a", "b", "c"}),
    ({"host": "127.0.0.1:5002"}, {"b"}),
    ({"schedule": "@hourly"}, {"c"}),
    ({"failing": True}, set()),
    ({"failing": False, "tag": "us"}, {"c"}),
    ({"nextRunBefore": "2000-01-01T00:00:00Z"}, set()),
    ({"nextRunBefore": "2100-01-01T00:00:00Z"}, {"a", "b"}),
    ({"all": True}, {"a", "b", "c"}),
]


@pytest.mark.parametrize(("where", "matching"), FILTERS)
async def test_a_filter_matches_what_the_list_of_jobs_does(api: Api, where: dict[str, Any], matching: set[str]) -> None:
    """The words are those of `GET /jobs`; the dry run, the count and the jobs that change are the same."""
    await api.make(jobId="a", tags=["billing"], name="Invoices")
    await api.make(jobId="b", tags=["billing", "eu"], api="http://127.0.0.1:5002/x")
    await api.make(jobId="c", tags=["us"], schedule="@hourly", state="paused")
    asked = {"action": "delete", "filter": where}
    dry = await api.call("POST", "/jobs/actions", {**asked, "dryRun": True})
    assert (dry.status_code, dry.json["matched"]) == (200, len(matching)), dry.text
    assert {s["jobId"] for s in dry.json["sample"]} == matching
    done = await ended(api, await begin(api, "delete", where))
    assert {k: done[k] for k in ("state", "matched", "done", "failed", "leftOut")} == {
        "state": "done", "matched": len(matching), "done": len(matching), "failed": 0, "leftOut": 0
    }  # fmt: skip
    assert {j for j in "abc" if await state_of(api, j) == "deleted"} == matching


INVALID: list[tuple[Any, list[str]]] = [
    ({}, ["action", "filter"]),
    ({"action": "pause"}, ["filter"]),
    ({"action": "pause", "filter": {}}, ["filter"]),
    ({"action": "pause", "filter": {"tag": None}}, ["filter"]),
    ({"action": "pause", "filter": {"all": False}}, ["filter.all"]),
    ({"action": "pause", "filter": {"all": True, "tag": "a"}}, ["filter.all"]),
    ({"action": "stop", "filter": {"tag": "a"}}, ["action"]),
    ({"action": "pause", "filter": {"tags": "a"}}, ["filter.tags"]),
    ({"action": "pause", "filter": {"state": "deleted"}}, ["filter.state.0"]),
    ({"action": "pause", "filter": {"schedule": "never"}}, ["filter.schedule"]),
    ({"action": "pause", "filter": {"tag": "a"}, "maxPerSecond": 0}, ["maxPerSecond"]),
    ({"action": "patch", "filter": {"tag": "a"}}, ["patch"]),
    ({"action": "pause", "filter": {"tag": "a"}, "patch": {"tags": []}}, ["patch"]),
    ({"action": "patch", "filter": {"tag": "billing"}, "patch": {"retry": {"maxAttempts": 0}}}, ["patch.retry.maxAttempts"]),
    ({"action": "patch", "filter": {"tag": "billing"}, "patch": {"tipe": 1}}, ["patch.tipe"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "where"), INVALID)
async def test_an_invalid_action_names_its_fields(api: Api, body: Any, where: list[str]) -> None:
    """422; an empty filter is refused, and the fault says what to write instead."""
    await api.make(jobId="a", tags=["billing"])
    answer = await api.call("POST", "/jobs/actions", body)
    assert answer.status_code == 422
    assert paths(answer) == where
    if where == ["filter"] and "filter" in body:
        assert '{"all": true}' in answer.json["errors"][0]["message"]


async def test_a_patch_changes_each_job_and_keeps_the_bytes_of_a_body(api: Api) -> None:
    """A merge patch, as `PATCH` of each job; what one job refuses is told with the reason."""
    await api.make(jobId="a", tags=["t"], retry={"maxAttempts": 7})
    await api.make(jobId="b", tags=["t"], schedule="@every 90s", startAt="2100-01-01T00:00:00Z")
    raw = b'{"action":"patch","filter":{"tag":"t"},"patch":{"body":{"n":1.10},"endAt":"2099-01-01T00:00:00Z"}}'
    answer = await api.call("POST", "/jobs/actions", raw)
    assert answer.status_code == 202, answer.text
    done = await ended(api, answer.json["actionId"])
    assert (done["done"], done["failed"], done["fields"]) == (1, 1, ["body", "endAt"])
    assert done["failures"][0]["jobId"] == "b"
    assert "endAt" in done["failures"][0]["reason"]
    shown = await api.call("GET", "/jobs/a")
    assert b'"body":{"n":1.10}' in shown.content
    assert shown.json["retry"]["maxAttempts"] == 7
    assert "patch" not in (await api.db.api["actions"].find_one({}) or {})


async def test_what_fails_is_listed_with_its_reason(api: Api) -> None:
    """A completed job cannot be paused."""
    await api.make(jobId="a", tags=["t"])
    await api.make(jobId="b", tags=["t"])
    await api.db.api["jobs"].update_one({"_id": "b"}, {"$set": {"state": "completed"}})
    done = await ended(api, await begin(api, "pause", {"tag": "t"}))
    assert (done["done"], done["failed"]) == (1, 1)
    assert done["failures"] == [{"jobId": "b", "reason": "the job is completed and cannot be paused"}]


async def test_a_repeated_request_makes_one_action(api: Api) -> None:
    """The same `Idempotency-Key` gets the same answer; another body is refused."""
    await api.make(jobId="a", tags=["t"])
    asked = {"action": "trigger", "filter": {"tag": "t"}}
    first, second = [await api.call("POST", "/jobs/actions", asked, Idempotency_Key="k") for _ in range(2)]
    assert first.json == second.json
    assert second.headers["idempotent-replayed"] == "true"
    assert await api.db.api["actions"].count_documents({}) == 1
    other = await api.call("POST", "/jobs/actions", {**asked, "action": "pause"}, Idempotency_Key="k")
    assert other.status_code == 422


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "12345678901234567.89", "1e999"])
async def test_a_repeated_patch_is_compared_by_its_digits(api: Api, number: str) -> None:
    """A number of any size in a body, also with an `Idempotency-Key`; one digit more is another request, blanks are not."""
    await api.make(jobId="a", tags=["t"], body={"n": 1})
    asked = '{"action":"patch","filter":{"tag":"t"},"patch":{"body":{"n":%s}}}'
    first, second = [
        await api.call("POST", "/jobs/actions", (asked % number).encode(), Idempotency_Key="k") for _ in range(2)
    ]
    assert (first.status_code, second.json) == (202, first.json), first.text
    spaced = asked.replace(":", " : ").replace("{", "{\n ") % number
    third = await api.call("POST", "/jobs/actions", spaced.encode(), Idempotency_Key="k")
    assert (third.status_code, third.json) == (202, first.json), third.text
    other = await api.call("POST", "/jobs/actions", (asked % f"{number}1").encode(), Idempotency_Key="k")
    assert other.status_code == 422
    assert (await ended(api, first.json["actionId"]))["done"] == 1
    assert f'"body":{{"n":{number}}}' in (await api.call("GET", "/jobs/a")).text


async def test_an_action_is_stopped_listed_and_forgotten_by_no_one(api: Api) -> None:
    """After the stop no further page is begun; a stopped one stays stopped, one that is done cannot be stopped."""
    for i in range(3):
        await api.make(jobId=f"j{i}", tags=["t"])
    stopped = await begin(api, "pause", {"tag": "t"}, maxPerSecond=1)
    leader = await lead(api.db, Crank(api.clock.now_ms()))
    await leader.job_actions.step()
    for _ in range(2):
        assert (await api.call("DELETE", f"/jobs/actions/{stopped}")).status_code == 204
    await act_until_done(leader)
    shown = (await api.call("GET", f"/jobs/actions/{stopped}")).json
    assert (shown["state"], shown["matched"], shown["done"]) == ("stopped", 3, 1)
    assert shown["endedAt"] is not None
    done = await begin(api, "resume", {"tag": "t"})
    assert (await ended(api, done))["done"] == 3
    assert (await api.call("DELETE", f"/jobs/actions/{done}")).status_code == 409
    assert (await api.call("GET", "/jobs/actions/nope")).status_code == 404
    assert (await api.call("DELETE", "/jobs/actions/nope")).status_code == 404
    page = (await api.call("GET", "/jobs/actions?limit=1")).json
    rest = (await api.call("GET", f"/jobs/actions?limit=1&cursor={page['nextCursor']}")).json
    assert [page["items"][0]["actionId"], rest["items"][0]["actionId"]] == [done, stopped]
    assert rest["nextCursor"] is None


async def test_too_many_jobs_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids of an action are stored within one request."""
    monkeypatch.setattr(actions, "MOST_JOBS", 1)
    for i in range(2):
        await api.make(jobId=f"j{i}", tags=["t"])
    for more in ({}, {"dryRun": True}):
        answer = await api.call("POST", "/jobs/actions", {"action": "pause", "filter": {"tag": "t"}, **more})
        assert (answer.status_code, paths(answer)) == (422, ["filter"])


async def test_a_job_cannot_have_the_name_of_the_path(api: Api) -> None:
    """`/jobs/actions` is not a job."""
    answer = await api.call("PUT", "/jobs/actions", {"schedule": "@hourly", "api": TARGET})
    assert answer.status_code in (405, 422)
    answer = await api.call("POST", "/jobs", {"jobId": "actions", "schedule": "@hourly", "api": TARGET})
    assert (answer.status_code, paths(answer)) == (422, ["jobId"])


async def test_one_audit_entry_stands_for_the_action(api: Api) -> None:
    """With its counts, by who asked; the jobs' revisions name it, and have no entries of their own."""
    for i in range(3):
        await api.make(jobId=f"j{i}", tags=["t"])
    begun = await begin(api, "pause", {"tag": "t"})
    await ended(api, begun)
    entries = (await api.call("GET", f"/audit?object=action:{begun}")).json["items"]
    assert [(e["action"], e["counts"]) for e in entries] == [
        ("pause", {"matched": 3, "done": 3, "leftOut": 0, "failed": 0})
    ]
    everything = (await api.call("GET", "/audit")).json["items"]
    assert [e["action"] for e in everything if e["object"].startswith("job:")] == ["create"] * 3


async def test_a_patch_of_many_jobs_keeps_and_takes_the_days_of_calendars(api: Api) -> None:
    """A patch of something else changes no schedule; one of the calendar counts with its days from the same write on."""
    assert (await api.call("PUT", "/calendars/c", {"weekdays": ["SUN"]})).status_code == 201
    calendar = {"name": "c", "onExcluded": "skip"}
    await api.make(jobId="a", tags=["t"], calendar=calendar, schedule="0 0 9 * * *")
    await api.make(jobId="b", tags=["t"], schedule="0 0 9 * * *")
    fields = {"schedule_version": 1, "schedule_key": 1, "calendar": 1}

    async def stored(job_id: str) -> Any:
        return await api.db.api["jobs"].find_one({"_id": job_id}, fields)

    before = await stored("a")
    asked = {"action": "patch", "filter": {"tag": "t"}}
    refused = await api.call("POST", "/jobs/actions", {**asked, "patch": {"calendar": {"name": "none"}}})
    assert refused.status_code == 422
    assert [e["path"] for e in refused.json["errors"]] == ["patch.calendar.name"]
    done = await ended(api, await begin(api, "patch", {"tag": "t"}, patch={"description": "new"}))
    assert (done["done"], done["failed"]) == (2, 0)
    assert await stored("a") == before
    done = await ended(api, await begin(api, "patch", {"tag": "t"}, patch={"calendar": calendar}))
    assert (done["done"], done["failed"]) == (2, 0)
    assert (await stored("b"))["calendar"] == before["calendar"]
    assert (await stored("b"))["schedule_key"] == before["schedule_key"]
    done = await ended(api, await begin(api, "patch", {"tag": "t"}, patch={"calendar": None}))
    assert (done["done"], done["failed"]) == (2, 0)
    assert (await stored("a"))["calendar"] is None


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"alerts": {"channels": ["nope"], "onDead": True}}, "patch.alerts.channels.0"),
        ({"onSuccess": {"channel": "nope"}}, "patch.onSuccess.channel"),
        ({"onFailure": {"channel": "nope"}}, "patch.onFailure.channel"),
    ],
)
async def test_a_channel_that_does_not_exist_is_refused_before_any_job_is_tried(
    api: Api, patch: dict[str, Any], path: str
) -> None:
    """By the path in the request, also in a dry run."""
    await api.make(jobId="a", tags=["t"])
    for more in ({}, {"dryRun": True}):
        body = {"action": "patch", "filter": {"tag": "t"}, "patch": patch, **more}
        answer = await api.call("POST", "/jobs/actions", body)
        assert answer.status_code == 422
        assert [(e["path"], "there is no channel 'nope'" in e["message"]) for e in answer.json["errors"]] == [
            (path, True)
        ]
