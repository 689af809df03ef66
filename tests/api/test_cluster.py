"""`/cluster` and circuit breakers in responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.execution_values import execution

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def test_open_breakers_are_shown(api: Api) -> None:
    """In the state of the cluster, and as the reason of waiting executions."""
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
