"""The API as a caller meets it, in this process, on a real MongoDB."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import orjson
from falcon.testing import ASGIConductor

from api.app import build_app
from api.http.context import ApiSettings, Services
from cluster.clock import Clock
from cluster.core.documents.job_json import DocumentLimits
from tests.support.shared_paths import SharedPaths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from falcon.testing import Result

    from cluster.store.mongo.client import Database


RULES = DocumentLimits((ipaddress.ip_network("127.0.0.0/8"),))
TARGET = "http://127.0.0.1:5001/ok"


class Shifted(Clock):
    """Cluster time that a test can move."""

    shift = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.shift


class Api:
    """Requests as curl would send them."""

    def __init__(self, conductor: ASGIConductor, db: Database, clock: Shifted) -> None:
        self._conductor = conductor
        self.db = db
        self.clock = clock
        self.headers: dict[str, str] = {}

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Result:
        sent = self.headers | {k.replace("_", "-"): v for k, v in headers.items()}
        if body is not None and "Content-Type" not in sent:
            sent["Content-Type"] = "application/json"
        raw = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        path, _, query = path.partition("?")
        host, _, port = sent.pop("Host", "localhost").partition(":")
        return await self._conductor.simulate_request(
            method, path, query_string=query, body=raw, headers=sent, host=host, port=int(port or 80)
        )

    async def make(self, **fields: Any) -> str:
        """A job; its id."""
        made = await self.call("POST", "/jobs", job(**fields))
        assert made.status_code == 201, made.text
        return str(made.json["jobId"])


def job(**fields: Any) -> dict[str, Any]:
    return {"schedule": "0 0 3 * * *", "api": TARGET, **fields}


def paths(result: Result) -> list[str]:
    """Where the faults of an answer are."""
    return [e["path"] for e in result.json["errors"]]


async def walk(api: Api, query: str) -> list[str]:
    """The ids of all jobs that match, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = (await api.call("GET", f"/jobs?{query}{cursor}")).json
        found += [j["jobId"] for j in page["items"]]
        if page["nextCursor"] is None:
            return found
        cursor = f"&cursor={page['nextCursor']}"


async def serve(db: Database, settings: ApiSettings | None = None, *, ready: bool = True) -> AsyncIterator[Api]:
    clock = Shifted()
    with patch("falcon.routing.DefaultRouter", SharedPaths):
        app = build_app(Services(db, clock, settings or ApiSettings(rules=RULES), lambda: ready))
    async with ASGIConductor(app) as conductor:
        yield Api(conductor, db, clock)
