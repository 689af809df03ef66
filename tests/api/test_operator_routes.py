"""Keys, nodes and tests of targets through the API; the herd and how crowded a schedule is."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from api.app import build_app
from api.http.context import ApiSettings, Services
from cluster.core.instants import format_instant
from cluster.outbound.sender import Sender
from cluster.outbound.transport import HttpTransport
from cluster.store import nodes
from cluster.usecases.verifications import VerificationFailed, Verifications
from config.settings import ApiKey
from tests.support.api_client import RULES, Api, Shifted, paths, serve
from tests.support.engine import T0
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster.store.mongo.client import Database
    from cluster.store.verifications import Verification

NOW = T0 - T0 % 3_600_000
KEYS = tuple(ApiKey(s, SecretStr(f"{s}-key-0123456789"), s) for s in ("read", "write", "admin"))
SIGNING = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/keys"),
        ("POST", "/keys"),
        ("DELETE", "/keys/x"),
        ("POST", "/nodes/x/drain"),
        ("POST", "/nodes/x/undrain"),
        ("POST", "/keys/"),
        ("GET", "/verifications"),
        ("GET", "/verifications/x"),
        ("POST", "/verifications"),
    ],
)
async def test_operators_routes_need_the_scope_admin(database: Database, method: str, path: str) -> None:
    """Reading too: names of keys are not for all."""
    async for api in serve(database, ApiSettings(KEYS, RULES)):
        for scope, allowed in (("read", False), ("write", False), ("admin", True)):
            answer = await api.call(method, path, Authorization=f"Bearer {scope}-key-0123456789")
            assert (answer.status_code != 403) is allowed, scope


async def test_a_key_is_created_used_listed_and_revoked(database: Database) -> None:
    """Its value is in one answer only."""
    boss = {"Authorization": "Bearer admin-key-0123456789"}
    async for api in serve(database, ApiSettings(KEYS, RULES)):
        made = await api.call("POST", "/keys", {"name": "ci", "scope": "read", "expires": "90d"}, **boss)
        assert (made.status_code, made.headers["location"]) == (201, "/keys/ci")
        value = made.json["key"]
        api.clock.shift = 0
        again = await api.call("POST", "/keys", {"name": "ci"}, **boss)
        taken = await api.call("POST", "/keys", {"name": "admin"}, **boss)
        assert (again.status_code, taken.status_code) == (409, 409)
        listed = await api.call("GET", "/keys", **boss)
        assert [(k["name"], k["scope"], k["state"]) for k in listed.json["items"]] == [("ci", "read", "live")]
        assert value not in listed.text
        wrong = await api.call("POST", "/keys", {"name": "a b", "scope": "root", "expires": "soon", "x": 1}, **boss)
        assert set(paths(wrong)) == {"name", "scope", "expires", "x"}
        assert (await api.call("DELETE", "/keys/ci", **boss)).status_code == 204
        assert (await api.call("DELETE", "/keys/ci", **boss)).status_code == 404
        assert (await api.call("GET", "/keys", **boss)).json["items"][0]["state"] == "revoked"


async def test_a_node_is_asked_to_drain(api: Api) -> None:
    """As `horae nodes drain` does; one that does not exist is 404."""
    await nodes.write_heartbeat(api.db, "n1", {"host": "h", "pid": 1, "version": "1"})
    asked = await api.call("POST", "/nodes/n1/drain")
    assert (asked.status_code, asked.json) == (202, {"nodeId": "n1", "draining": True, "otherNodes": 0})
    assert (await nodes.heartbeats(api.db))[0].drain_requested
    assert (await api.call("POST", "/nodes/n1/undrain")).status_code == 202
    assert not (await nodes.heartbeats(api.db))[0].drain_requested
    assert (await api.call("POST", "/nodes/n2/drain")).status_code == 404


async def test_a_verification_runs_in_the_background_and_its_findings_are_kept(database: Database) -> None:
    """One at a time; findings are bounded; a run whose node ended is failed, and hinders nobody."""
    from falcon.testing import ASGIConductor

    go = asyncio.Event()
    failing = False

    async def run(v: Verification) -> dict[str, Any]:
        await go.wait()
        if failing:
            raise VerificationFailed("no process")
        return {"clean": False, "since": format_instant(v.since_ms), "findings": [{"kind": "missing"}] * 300}

    clock = Shifted()
    runs = Verifications(database, clock, "n1", run)
    services = Services(database, clock, ApiSettings(rules=RULES), lambda: True, verifications=runs)
    async with ASGIConductor(build_app(services)) as conductor:
        api = Api(conductor, database, clock)

        async def ended(name: str) -> dict[str, Any] | None:
            found = (await api.call("GET", f"/verifications/{name}")).json
            return None if found["state"] == "running" else dict(found)

        begun = await api.call("POST", "/verifications", {"since": "2026-01-01T00:00:00Z"})
        assert begun.status_code == 202, begun.text
        name = begun.json["verificationId"]
        assert await ended(name) is None
        assert (await api.call("POST", "/verifications", {})).status_code == 409
        go.set()
        report = (await eventually(lambda: ended(name)))["report"]
        assert (len(report["findings"]), report["findingsLeftOut"]) == (200, 100)
        listed = (await api.call("GET", "/verifications")).json["items"]
        assert [(v["state"], v["report"]) for v in listed] == [
            ("done", {"clean": False, "since": "2026-01-01T00:00:00.000Z"})
        ]
        failing = True
        name = (await api.call("POST", "/verifications", {})).json["verificationId"]
        assert (await eventually(lambda: ended(name)))["error"] == "no process"
        go.clear()
        name = (await api.call("POST", "/verifications", {})).json["verificationId"]
        await runs.close()
        assert (await eventually(lambda: ended(name)))["error"] == "its node stopped"
        lost = {
            "since": "2026-01-02T00:00:00Z",
            "until": "2026-01-01T00:00:00Z",
            "lateSeconds": 0,
            "jobId": "a b",
            "x": 1,
        }
        assert set(paths(await api.call("POST", "/verifications", lost))) == {"lateSeconds", "jobId", "x"}
        assert (await api.call("POST", "/verifications", {"jobId": "nobody"})).status_code == 404
        assert (await api.call("GET", "/verifications/v-1")).status_code == 404


class _Recorder(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.status = 200

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, text="echo canary-token")


async def _with_sender(db: Database, transport: Any) -> AsyncIterator[Api]:
    from falcon.testing import ASGIConductor

    clock = Shifted()
    services = Services(db, clock, ApiSettings(rules=RULES), lambda: True, sender=Sender(transport))
    async with ASGIConductor(build_app(services)) as conductor:
        yield Api(conductor, db, clock)


async def test_a_test_request_is_what_a_job_would_send(database: Database) -> None:
    """The same headers, authorization, body and signature, marked as a test; nothing is recorded."""
    transport = _Recorder()
    async for api in _with_sender(database, transport):
        body = {
            "api": "http://127.0.0.1:5001/hook",
            "headers": {"X-A": "1"},
            "body": {"id": "{{executionId}}"},
            "auth": {"type": "bearer", "token": "canary-token"},
            "signingSecret": SIGNING,
        }
        answer = await api.call("POST", "/targets/test", body)
        assert answer.status_code == 200, answer.text
        assert (answer.json["verdict"], answer.json["status"], answer.json["error"]) == ("success", 200, None)
        assert "canary-token" not in answer.text
        sent = transport.requests[0]
        content = sent.read()
        name = answer.json["executionId"]
        assert name.startswith("test:")
        assert sent.headers["horae-test"] == "true"
        assert sent.headers["authorization"] == "Bearer canary-token"
        assert (sent.headers["x-a"], sent.headers["idempotency-key"]) == ("1", name)
        assert sent.headers["webhook-signature"].startswith("v1,")
        assert json.loads(content) == {"id": name}
        transport.status = 404
        refused = await api.call("POST", "/targets/test", body)
        assert (refused.json["verdict"], refused.json["status"]) == ("refused", 404)
        assert await database.api["history"].count_documents({}) == 0
        assert await database.api["jobs"].count_documents({}) == 0


async def test_kept_secrets_go_to_the_host_of_their_job_only(database: Database) -> None:
    """They are not sent elsewhere by naming another address."""
    transport = _Recorder()
    async for api in _with_sender(database, transport):
        auth = {"type": "bearer", "token": "canary-token"}
        await api.make(jobId="a", auth=auth)
        stored = (await api.call("GET", "/jobs/a")).json["auth"]
        kept = {"jobId": "a", "api": "http://127.0.0.1:5001/other", "auth": stored}
        assert (await api.call("POST", "/targets/test", kept)).status_code == 200
        assert transport.requests[0].headers["authorization"] == "Bearer canary-token"
        elsewhere = await api.call("POST", "/targets/test", {**kept, "api": "http://127.0.0.2:5001/"})
        assert paths(elsewhere) == ["api"]
        assert len(transport.requests) == 1


async def test_tests_of_targets_are_guarded_and_bounded(database: Database) -> None:
    """An address that jobs may not reach is denied; faults are named; a caller has five, and then one every two seconds."""
    async for api in _with_sender(database, HttpTransport(())):
        denied = await api.call("POST", "/targets/test", {"api": "http://127.0.0.1:9/"})
        assert (denied.json["verdict"], denied.json["error"]) == ("refused", "denied")
        assert set(paths(await api.call("POST", "/targets/test", {"api": "ftp://x", "tag": 1}))) == {"api", "tag"}
        answers = [await api.call("POST", "/targets/test", {"api": "http://127.0.0.1:9/"}) for _ in range(6)]
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) >= 1


async def test_the_herd_is_counted_per_second(api: Api) -> None:
    """Spread jobs are shared out; jobs that have ended are not counted."""
    api.clock.now_ms = lambda: NOW  # type: ignore[method-assign]
    for i in range(3):
        await api.make(jobId=f"m{i}", schedule="0 * * * * *")
    await api.make(jobId="s", schedule="30 * * * * *", spreadSeconds=10)
    await api.make(jobId="e", schedule="0 * * * * *", endAt=format_instant(NOW + 60_000))
    herd = (await api.call("GET", f"/herd?from={format_instant(NOW + 3_600_000)}&seconds=120")).json
    assert len(herd["perSecond"]) == 120
    assert (herd["perSecond"][60], herd["perSecond"][95]) == (3, 0.1)
    assert [round(n, 1) for n in herd["perMinute"]] == [4, 4]
    assert herd["worst"][0]["sends"] == 3
    assert set(paths(await api.call("GET", "/herd?seconds=3601&from=x&by=job"))) == {"seconds", "from", "by"}


async def test_how_crowded_a_schedule_would_be(api: Api) -> None:
    """What else is due in its seconds, and in those that a spread would use."""
    for i in range(4):
        await api.make(jobId=f"m{i}", schedule="0 0 9 * * *")
    await api.make(jobId="n", schedule="5 0 9 * * *")
    answer = await api.call("POST", "/schedules/crowd", {"schedule": "0 0 9 * * *", "count": 2})
    assert answer.status_code == 200, answer.text
    first = answer.json["occurrences"][0]
    assert (len(answer.json["occurrences"]), first["others"]) == (2, 4)
    assert first["ifSpread"][0] == {"spreadSeconds": 10, "worstSecond": 4, "meanSecond": 0.5}
    assert set(paths(await api.call("POST", "/schedules/crowd", {"schedule": "x", "count": 0}))) == {
        "schedule",
        "count",
    }
