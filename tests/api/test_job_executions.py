"""What the API tells of executions: owed ones, final ones, missed ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest_asyncio
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Attempt, Ending
from cluster.core.instants import format_instant, parse_instant
from cluster.core.lifecycle import State
from cluster.node import Node, NodeSettings
from cluster.outbound.sender import Sender
from cluster.store import executions, history, missed_ranges
from cluster.store.missed_ranges import MissedRange
from tests.support.execution_values import attempt, execution
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api_client import Api


async def final(api: Api, due: int, state: State, *attempts: Attempt, reason: str | None = None) -> None:
    x = execution("a", due)
    await history.record(api.db, [Ending(x, state, due + 500, attempts, reason, 12)], 7)


async def test_executions_of_a_job_are_listed_latest_first(api: Api) -> None:
    """Five by default, with the documented fields; future ones only on request."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    for i in range(7):
        await final(api, now - 60_000 + i, State.SUCCEEDED, attempt(1, now - 60_000 + i))
    await executions.insert(api.db, [execution("a", now + 60_000)])
    await executions.insert(
        api.db, [execution("a", now - 10, state=State.RETRYING, attempts=(attempt(1, now - 9, 503),))]
    )
    listed = await api.call("GET", "/jobs/a/executions")
    assert [e["state"] for e in listed.json] == ["retrying"] + ["succeeded"] * 4
    assert listed.json[0]["error"] == "the target answered 503"
    assert listed.json[1] == {
        "timestamp": format_instant(now - 60_000 + 6),
        "status": 200,
        "duration": "120ms",
        "executionId": f"a:{now - 60_000 + 6:013d}",
        "scheduledAt": format_instant(now - 60_000 + 6),
        "state": "succeeded",
        "attempt": 1,
        "driftMs": 12,
        "error": None,
        "node": "node-1",
    }
    ahead = (await api.call("GET", "/jobs/a/executions?state=pending")).json
    assert [e["scheduledAt"] for e in ahead] == [format_instant(now + 60_000)]
    shown = (await api.call("GET", "/jobs/a")).json
    assert shown["lastExecution"]["state"] == "retrying"


async def test_link_next_leads_through_all_executions(api: Api) -> None:
    """Each one once; `before` also takes a time."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    for i in range(7):
        await final(api, now - 60_000 + i, State.SUCCEEDED)
    seen: list[str] = []
    path = "/jobs/a/executions?limit=3"
    while path:
        page = await api.call("GET", path)
        seen += [e["executionId"] for e in page.json]
        link = page.headers.get("Link", "")
        path = link.partition("<")[2].partition(">")[0]
    assert seen == [f"a:{now - 60_000 + i:013d}" for i in range(6, -1, -1)]
    older = (await api.call("GET", f"/jobs/a/executions?before={format_instant(now - 60_000 + 2)}")).json
    assert [e["executionId"] for e in older] == seen[-2:]
    for before in ("x", "b:0000000000001", "a:1"):
        assert (await api.call("GET", f"/jobs/a/executions?before={before}")).status_code == 422


async def test_each_state_can_be_filtered(api: Api) -> None:
    """Alone and together, wherever the execution is stored; the reason is shown."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    await final(api, now - 9, State.DEAD, attempt(1, now - 9, None, "timeout"), reason="5 attempts used up")
    await final(api, now - 8, State.CANCELLED, reason="the job was paused")
    await executions.insert(api.db, [execution("a", now - 7, state=State.LEASED, owner="n", token=1)])
    await executions.insert(api.db, [execution("a", now + 90_000, state=State.LEASED, owner="n", token=1)])
    await missed_ranges.record(api.db, [MissedRange("a", "v", now - 6, now - 2, 3, "nobody was there")], now, 7)
    for states, expected in (
        ("dead", ["dead"]),
        ("running", ["running"]),
        ("pending", ["pending"]),
        ("missed", ["missed"]),
        ("dead,running", ["running", "dead"]),
        ("failed", []),
    ):
        found = (await api.call("GET", f"/jobs/a/executions?state={states}")).json
        assert [e["state"] for e in found] == expected
    dead = (await api.call("GET", "/jobs/a/executions?state=dead")).json[0]
    assert (dead["error"], dead["reason"]) == ("timeout: the reason", "5 attempts used up")
    missed = (await api.call("GET", "/jobs/a/executions?state=missed")).json[0]
    assert (missed["missedCount"], missed["missedUntil"]) == (3, format_instant(now - 2))
    assert (await api.call("GET", f"/executions/{missed['executionId']}")).json["reason"] == "nobody was there"


async def test_an_execution_shows_every_attempt(api: Api) -> None:
    """With time, node, token, status and response; unknown ids are 404."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    await final(api, now, State.SUCCEEDED, attempt(1, now, 503), attempt(2, now + 1000))
    shown = (await api.call("GET", f"/executions/a:{now:013d}")).json
    assert [(a["attempt"], a["status"], a["token"]) for a in shown["attempts"]] == [(1, 503, 7), (2, 200, 7)]
    assert shown["attempts"][0]["responseExcerpt"] == "ok"
    for name in ("a:1", "nope", f"a:{now + 1:013d}", f"b:{now:013d}", "a:0000000000001:missed"):
        assert (await api.call("GET", f"/executions/{name}")).status_code == 404, name


async def test_a_replayed_execution_is_not_final(api: Api) -> None:
    """It is shown as owed, not with its earlier result."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    await final(api, now - 5, State.DEAD)
    await api.db.api["history"].update_one({"job_id": "a"}, {"$set": {"state": history.REOPENED}})
    await executions.insert(api.db, [execution("a", now - 5, state=State.RETRYING)])
    assert [e["state"] for e in (await api.call("GET", "/jobs/a/executions")).json] == ["retrying"]
    assert (await api.call("GET", f"/executions/a:{now - 5:013d}")).json["state"] == "retrying"


async def test_each_trigger_gets_its_own_execution(api: Api) -> None:
    """Also within the same ms: ids of their own, off the whole second, each with its batch."""
    await api.make(jobId="a")
    now = api.clock.now_ms() // 1000 * 1000 + 5000
    api.clock.now_ms = lambda: now  # type: ignore[method-assign]
    await final(api, now + 1, State.SUCCEEDED)
    made = [await api.call("POST", "/jobs/a/trigger") for _ in range(3)]
    assert [m.status_code for m in made] == [202] * 3
    assert [m.json["executionId"] for m in made] == [f"a:{now + i:013d}" for i in (2, 3, 4)]
    for m in made:
        owed = await api.db.api["executions"].find_one({"_id": m.json["executionId"]})
        assert owed is not None
        batch = await api.db.api["batches"].find_one({"_id": owed["batch"]})
        assert batch is not None
        assert batch["ids"] == [owed["_id"]]
        assert owed["due_at"] == DatetimeMS(parse_instant(format_instant(int(owed["due_at"]))))


@pytest_asyncio.fixture
async def node(mongodb_uri: str, db_name: str, api: Api) -> AsyncIterator[Node]:  # noqa: ARG001 - the schema first
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="ok"))
    found = Node(NodeSettings(mongodb_uri, db_name), Sender(transport))
    await found.start()
    yield found
    await found.shutdown()


async def test_a_running_node_delivers_jobs_of_the_api(api: Api, node: Node) -> None:
    """On the second; a paused job only when it is triggered."""
    await api.make(jobId="a", schedule="* * * * * *")

    async def runs(path: str) -> list[dict[str, Any]]:
        return (await api.call("GET", path)).json  # type: ignore[no-any-return]

    async def two() -> bool:
        return len(await runs("/jobs/a/executions?state=succeeded")) >= 2

    await eventually(two, 20)
    await api.call("POST", "/jobs/a/pause")
    execution_id = (await api.call("POST", "/jobs/a/trigger")).json["executionId"]

    async def done() -> bool:
        shown = (await api.call("GET", f"/executions/{execution_id}")).json
        return shown["state"] == "succeeded" and shown["trigger"] is True

    await eventually(done, 10)

    async def leading() -> dict[str, Any] | None:
        """The heartbeat says it from its next turn on."""
        found = (await api.call("GET", "/cluster")).json
        return found if any(n["leading"] for n in found["nodes"]) else None

    shown = await eventually(leading, 10)
    assert shown["leader"]["nodeId"] == node.id
    assert shown["leader"]["term"] == 1
    assert [(n["nodeId"], n["leading"]) for n in shown["nodes"]] == [(node.id, True)]
    assert {"ready", "leased", "oldestDueAt"} <= set(shown["backlog"])
