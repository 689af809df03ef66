"""`GET /events`: what a viewer gets over HTTP, and what it is refused with; `horae tail` on a real node."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from cluster.core.events import Demand
from cluster.live_events import ViewerLimits
from cluster.store.queries.change_feed import ChangeFeed
from tests.support import live
from tests.support.api_client import Api, paths, serve
from tests.support.engine import T0
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.store.mongo.client import Database

SECRET = "canary-0123456789"


def parse(text: str) -> list[dict[str, Any]]:
    """The events of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n") if line and not line.startswith(":"))
        if "event" in fields:
            found.append({"id": fields.get("id"), "event": fields["event"], "data": json.loads(fields["data"])})
    return found


async def test_changes_of_jobs_are_shown_without_their_secrets(api: Api, database: Database) -> None:
    """What changed, with the revision; what the leader notes in a job is no change. A second viewer replays them."""
    begun = parse((await api.call("GET", "/events?seconds=1")).text)
    assert begun[-1]["event"] == "closing"
    feed = await ChangeFeed.open(database, Demand(frozenset({"job"})))
    await feed.close()
    job = {"jobId": "a", "tags": ["x"], "headers": {"X-Key": {"secret": SECRET}}, "body": {"n": SECRET}}
    await api.make(**job)
    await database.api["jobs"].update_one({"_id": "a"}, {"$unset": {"unsettled": ""}, "$set": {"last_state": "dead"}})
    await api.call("POST", "/jobs/a/pause")
    await api.call("POST", "/jobs/a/resume")
    await api.call("PATCH", "/jobs/a", {"name": SECRET}, Content_Type="application/merge-patch+json")
    await api.call("DELETE", "/jobs/a")
    await api.make(**job)
    answer = await api.call("GET", "/events?seconds=1&tag=x&kind=job", Last_Event_ID=feed.position)
    assert answer.headers["content-type"] == "text/event-stream"
    events = parse(answer.text)
    changes = [(e["data"]["change"], e["data"]["revision"]) for e in events if e["event"] == "job"]
    assert changes == [("created", 1), ("paused", 2), ("resumed", 3), ("changed", 4), ("deleted", 5), ("created", 6)]
    assert SECRET not in answer.text
    assert [e["id"] for e in events if e["id"]] == sorted(e["id"] for e in events if e["id"])


async def test_wrong_parameters_of_events_are_reported_together(api: Api) -> None:
    """Each names its parameter; an id of another cluster is one."""
    refused = await api.call("GET", "/events?state=running&kind=x&tag=&job=a,,b&seconds=0&more=1")
    assert set(paths(refused)) == {"state", "kind", "tag", "job", "seconds", "more"}
    assert paths(await api.call("GET", "/events", Last_Event_ID="12")) == ["Last-Event-ID"]
    later = f"82{T0 // 1000:08X}00000001" + "2B0229296E04"
    assert paths(await api.call("GET", f"/events?lastEventId={later}")) == ["lastEventId"]
    assert (await api.call("HEAD", "/events")).status_code == 405


async def test_a_database_without_change_streams_is_said(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """501 with what to do; nothing hangs."""
    real = type(database.api).watch

    async def refused(self: Any, pipeline: Any, **more: Any) -> Any:
        return await real(self, [{"$noSuchStage": {}}, *pipeline], **more)

    monkeypatch.setattr(type(database.api), "watch", refused)
    answer = await api.call("GET", "/events")
    assert answer.status_code == 501
    assert "change streams" in answer.json["detail"]


async def test_no_place_is_503_or_429_with_the_time_to_wait(database: Database) -> None:
    """For the node, and for one address."""
    from api.http.context import ApiSettings

    for limits, status in ((ViewerLimits(0, 0), 503), (ViewerLimits(5, 0), 429)):
        async for api in serve(database, ApiSettings(viewers=limits)):
            answer = await api.call("GET", "/events")
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
            assert int(answer.headers["retry-after"]) > 0


class _Stream:
    """A raw connection to `/events`."""

    def __init__(self, url: str, query: str = "", **headers: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20)
        sent = {"Host": parts.netloc, "Accept": "text/event-stream"} | {
            k.replace("_", "-"): v for k, v in headers.items()
        }
        lines = [f"GET /events{query} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items()), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self.text = ""
        self.until("\n\n")

    def until(self, text: str) -> str:
        while text not in self.text:
            piece = self.socket.recv(65536).decode()
            assert piece, f"the stream ended without {text!r}: {self.text[-500:]}"
            self.text += piece
        return self.text


@pytest.mark.takes(20)
def test_viewers_of_a_real_node(mongodb_uri: str, db_name: str, tmp_path: Path) -> None:
    """Executions of real runs arrive, filtered; viewers keep no request from being answered; a stopped node ends its
    streams first, and `horae tail` goes on at the next one without a gap.
    """
    settings = {
        "HORAE_MAX_CONNECTIONS_PER_ADDRESS": "12",
        "HORAE_API_KEYS": "reader:reader-key-0123456789:read,boss:boss-key-0123456789:admin",
    }
    reader = {"Authorization": "Bearer reader-key-0123456789"}
    boss = {"Authorization": "Bearer boss-key-0123456789"}
    job = {
        "jobId": "a",
        "schedule": "@yearly",
        "api": "http://127.0.0.1:9/x",
        "tags": ["t"],
        "retry": {"maxAttempts": 1},
    }
    with live.process(mongodb_uri, db_name, **settings) as (url, _):
        assert httpx.get(f"{url}/events").status_code == 401
        seen = _Stream(url, "?tag=t&state=dead", **reader)
        httpx.post(f"{url}/jobs", json=job, headers=boss).raise_for_status()
        begin = seen.text.partition("id: ")[2].partition("\n")[0]
        command = [
            sys.executable,
            "-m",
            "ops",
            "tail",
            "--job",
            "a",
            "--state",
            "dead",
            "-o",
            "ndjson",
            "--after",
            begin,
        ]
        tail = subprocess.Popen(
            [*command, "--url", url],
            env={**os.environ, "HORAE_API_KEY": "reader-key-0123456789"},
            stdout=(out := (tmp_path / "out").open("wb")),
            stderr=(err := (tmp_path / "err").open("wb")),
        )
        try:
            first = httpx.post(f"{url}/jobs/a/trigger", headers=boss).json()["executionId"]
            assert f'"executionId":"{first}"' in seen.until('"state":"dead"')

            def shown() -> list[str]:
                return [json.loads(line)["executionId"] for line in (tmp_path / "out").read_text().splitlines()]

            wait_until(lambda: tail.poll() is None and shown() == [first], 20, "the first execution is shown")
            asked = httpx.post(f"{url}/verifications", json={"jobId": "a"}, headers=boss)
            assert asked.status_code == 202, asked.text
            others = [_Stream(url, **reader) for _ in range(4)]
            full = httpx.get(f"{url}/events", headers=reader)
            assert (full.status_code, "retry-after" in full.headers) == (429, True)
            assert httpx.get(f"{url}/jobs", headers=reader).status_code == 200
            node = httpx.get(f"{url}/cluster", headers=reader).json()["nodes"][0]["nodeId"]
            assert httpx.post(f"{url}/nodes/{node}/drain", headers=reader).status_code == 403
            assert httpx.post(f"{url}/nodes/{node}/drain", headers=boss).status_code == 202
            others[0].until("event: closing")
            assert httpx.get(f"{url}/events", headers=reader).status_code == 503
            second = httpx.post(f"{url}/jobs/a/trigger", headers=boss).json()["executionId"]
            assert httpx.post(f"{url}/nodes/{node}/undrain", headers=boss).status_code == 202
            run = f"{url}/verifications/{asked.json()['verificationId']}"

            def verified() -> Any:
                found = httpx.get(run, headers=boss).json()
                return None if found["state"] == "running" else found

            report = wait_until(verified, 60, "the verification has ended")
            assert report["error"] is None, report
            assert report["report"]["clean"], report
            wait_until(lambda: shown() == [first, second], 60, f"the second is shown: {(tmp_path / 'err').read_text()}")
        finally:
            tail.terminate()
            tail.wait()
            out.close()
            err.close()
