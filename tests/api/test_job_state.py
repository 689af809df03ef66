"""`state` in a definition: a job is made, replaced, patched and imported as active or paused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from cluster.core.instants import format_instant
from tests.support.api_client import job

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def put(api: Api, way: str, **fields: Any) -> None:
    if way == "import":
        answer = await api.call(
            "POST", "/jobs/import", orjson.dumps(job(jobId="j", **fields)), Content_Type="application/x-ndjson"
        )
        assert answer.json["failed"] == 0, answer.json
    else:
        answer = await api.call("PUT", "/jobs/j", job(**fields))
    assert answer.status_code in (200, 201), answer.text


async def stored(api: Api) -> dict[str, Any]:
    document = await api.db.api["jobs"].find_one({"_id": "j"})
    assert document is not None
    return document


async def test_a_job_can_be_created_paused(api: Api) -> None:
    """It owes nothing, has no next run, and begins with its resume."""
    made = await api.call("POST", "/jobs", job(jobId="j", schedule="* * * * * *", state="paused"))
    assert made.status_code == 201
    shown = (await api.call("GET", "/jobs/j")).json
    assert (shown["state"], shown["nextRuns"], shown["revision"]) == ("paused", [], 1)
    assert (await stored(api))["past"] == []
    resumed = (await api.call("POST", "/jobs/j/resume")).json
    assert (resumed["state"], len(resumed["nextRuns"])) == ("active", 5)


@pytest.mark.parametrize("way", ["PUT", "import"])
async def test_a_definition_pauses_and_resumes_in_one_revision(api: Api, way: str) -> None:
    """With and without another change; a definition without a state leaves it as it is."""
    await put(api, way)
    steps: list[tuple[dict[str, Any], str, bool]] = [
        ({"state": "active"}, "active", False),
        ({"state": "paused"}, "paused", True),
        ({"state": "paused"}, "paused", False),
        ({}, "paused", False),
        ({"schedule": "0 0 4 * * *", "state": "active"}, "active", True),
        ({"schedule": "0 0 5 * * *", "name": "n", "state": "paused"}, "paused", True),
        ({"schedule": "0 0 5 * * *"}, "paused", True),
        ({"schedule": "0 0 5 * * *", "state": "active"}, "active", True),
    ]
    for number, (fields, state, changed) in enumerate(steps):
        before = await stored(api)
        await put(api, way, **fields)
        after = await stored(api)
        assert (after["state"], after["revision"] - before["revision"]) == (state, int(changed)), number
        if before["state"] != state:
            assert after["unsettled"] != before.get("unsettled"), "the leader works the change in"
        if before["state"] == "active" and state == "paused":
            assert after["past"][-1]["schedule_version"] == before["schedule_version"], "its period is kept"
        if before["state"] == "paused" and state == "active":
            assert after["schedule_version"] != before["schedule_version"]
            assert after["active_from"] > before["updated_at"], "it owes nothing for the pause"


async def test_a_patch_may_change_the_state(api: Api) -> None:
    """Alone or with other fields; null means as it is."""
    await put(api, "PUT")
    for change, state in (({"state": "paused"}, "paused"), ({"state": None, "name": "n"}, "paused"), ({"state": "active"}, "active")):  # fmt: skip
        shown = (await api.call("PATCH", "/jobs/j", change)).json
        assert shown["state"] == state


async def test_a_deleted_job_can_come_back_paused(api: Api) -> None:
    """As a new one."""
    await put(api, "PUT")
    await api.call("DELETE", "/jobs/j")
    await put(api, "PUT", state="paused")
    assert (await api.call("GET", "/jobs/j")).json["state"] == "paused"


async def test_a_completed_job_stays_completed_until_its_schedule_changes(api: Api) -> None:
    """Then it may come back paused."""
    await put(api, "PUT", schedule=f"@at {format_instant(api.clock.now_ms() // 1000 * 1000 + 60_000)}")
    text = (await stored(api))["schedule"]
    await api.db.api["jobs"].update_one({"_id": "j"}, {"$set": {"state": "completed"}})
    for state in ("active", "paused"):
        await put(api, "PUT", schedule=text, state=state)
        assert (await stored(api))["state"] == "completed"
    await put(api, "PUT", schedule="@daily", state="paused")
    assert (await stored(api))["state"] == "paused"


async def test_other_states_are_refused(api: Api) -> None:
    """Only the two that a user may ask for."""
    for wrong in ("completed", "deleted", "PAUSED", 1, True):
        refused = await api.call("POST", "/jobs", job(state=wrong))
        assert [e["path"] for e in refused.json["errors"]] == ["state"]
        assert "paused" in refused.json["errors"][0]["message"]
