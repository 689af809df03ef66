"""`/cluster` and circuit breakers in responses."""

from __future__ import annotations

import asyncio
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


async def test_work_in_hand_names_leases_and_who_waits(api: Api) -> None:
    """A leased batch; a queue with one running and two that wait; a range that is to be caught up."""
    from dataclasses import replace

    from cluster.core.execution.batching import BatchOptions, make_batch
    from cluster.core.limits.permits import Permits
    from cluster.store import backfills, batches, executions, permits

    now = api.clock.now_ms()
    await api.call("PUT", "/queues/mail", {"maxConcurrent": 1})
    members = [replace(execution("a", now - 3000 + i), batch="b1", limit_key="q:mail") for i in range(3)]
    await batches.insert(api.db, [make_batch(members, BatchOptions(prefetch_ms=0))])
    await permits.write(api.db, "q:mail", Permits(), Permits(0.0, {members[0].id: "p"}, 0))
    claimed = await batches.claim(api.db, "node-1", 10, batches.ClaimFilter(), 2)
    assert claimed is not None
    await backfills.open_ranges(
        api.db, backfills.Backfill("r", "0 * * * * * UTC", None, now - 9000, now, now, now - 5000)
    )
    shown = (await api.call("GET", "/cluster/work")).json
    (lease,) = shown["leases"]
    assert (lease["batch"], lease["nodeId"], lease["token"], lease["executions"]) == ("b1", "node-1", claimed.token, 3)
    (limit,) = shown["limits"]
    assert (limit["queue"], limit["jobId"], limit["maxConcurrent"]) == ("mail", None, 1)
    assert (limit["running"], limit["runningExecutions"]) == (1, [members[0].id])
    assert (limit["waiting"], limit["nextExecutions"]) == (2, [members[1].id, members[2].id])
    (behind,) = shown["catchUp"]
    assert (behind["schedule"], behind["jobId"]) == ("0 * * * * * UTC", None)
    assert [shown[n] for n in ("leasesInAll", "limitsInAll", "catchUpInAll")] == [1, 1, 1]
    other = replace(execution("b", now - 2000), batch="b2")
    await executions.insert(api.db, [*members, other])
    for query in ("batch=b1", "node=node-1", "queue=mail"):
        listed = (await api.call("GET", f"/executions?{query}")).json["items"]
        assert {e["executionId"] for e in listed} == {m.id for m in members}, query
    assert (await api.call("GET", "/executions?node=node-2")).json["items"] == []


async def test_the_replica_set_is_shown(api: Api) -> None:
    shown = (await api.call("GET", "/cluster/database")).json
    (member,) = shown["members"]
    assert (member["state"], member["healthy"]) == ("PRIMARY", True)
    assert shown["schemaVersion"] >= 4
    assert shown["replicaSet"]


async def test_active_jobs_are_counted_once_for_all_who_ask(api: Api) -> None:
    """Without those of the engine; a count is kept for some seconds, however many ask."""
    from cluster.store.queries.active_jobs import ActiveJobs

    for name in ("a", "b", "c"):
        await api.make(jobId=name)
    await api.call("POST", "/jobs/c/pause", None)
    await api.call("PUT", "/channels/ops", {"type": "webhook", "url": "http://127.0.0.1:5999/x"})
    await api.call("POST", "/channels/ops/test", None)
    assert (await api.call("GET", "/cluster")).json["activeJobs"] == 2
    seconds = 0.0
    jobs = ActiveJobs(api.db, lambda: seconds)
    assert await asyncio.gather(*(jobs.number() for _ in range(20))) == [2] * 20
    await api.make(jobId="d")
    assert await jobs.number() == 2
    seconds = 6.0
    assert await jobs.number() == 3
