"""`/executions/retry`: replaying many executions."""

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
