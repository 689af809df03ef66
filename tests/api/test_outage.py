"""Nodes over sockets: changes are visible on every node, and requests during an outage of MongoDB."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest

from ops.support.embedded_mongodb import EmbeddedMongod
from tests.support import live
from tests.support.api_client import job
from tests.support.waiting import wait_until


@pytest.mark.takes(8)
def test_changes_are_visible_on_every_node_at_once(mongodb_uri: str, db_name: str) -> None:
    """Forty changes through one node, read through another."""
    with live.node(mongodb_uri, db_name) as one, live.node(mongodb_uri, db_name) as two, httpx.Client() as client:
        for i in range(40):
            here, there = (one, two) if i % 2 else (two, one)
            client.put(f"{here}/jobs/a", json=job(name=str(i))).raise_for_status()
            assert client.get(f"{there}/jobs/a").json()["name"] == str(i)
        client.delete(f"{one}/jobs/a").raise_for_status()
        assert client.get(f"{two}/jobs/a").status_code == 404


@pytest.mark.takes(16)
def test_requests_to_a_frozen_database_get_503() -> None:
    """Within 6 s; the change was made or not. With an Idempotency-Key, a repeated request creates one job."""
    with tempfile.TemporaryDirectory(prefix="horae-test-") as directory:
        embedded = EmbeddedMongod(Path(directory))
        state = embedded.acquire()
        try:
            with live.node(state.uri, "frozen") as url, httpx.Client(timeout=10) as client:
                keyed = {"Idempotency-Key": "k"}
                client.put(f"{url}/jobs/a", json=job(name="before")).raise_for_status()
                os.kill(state.pid, signal.SIGSTOP)
                try:
                    wait_until(lambda: psutil.Process(state.pid).status() == psutil.STATUS_STOPPED, 5, "mongod to stop")
                    for method, path, body, headers in (
                        ("PUT", "/jobs/a", job(name="after"), {}),
                        ("POST", "/jobs", job(), keyed),
                    ):
                        started = time.monotonic()
                        answer = client.request(method, f"{url}{path}", json=body, headers=headers)
                        assert time.monotonic() - started < 6
                        assert answer.status_code == 503
                        assert answer.headers["Retry-After"] == "2"
                    said = wait_until(lambda: unready(client, url), 15, "/readyz to say so")
                    assert "MongoDB has not answered" in said
                finally:
                    os.kill(state.pid, signal.SIGCONT)
                wait_until(
                    lambda: client.get(f"{url}/readyz").status_code == 200, 15, "the node to come back by itself"
                )

                def answered() -> httpx.Response | None:
                    got = client.post(f"{url}/jobs", json=job(), headers=keyed)
                    assert got.status_code in (201, 409, 503), got.text
                    return got if got.status_code == 201 else None

                made = wait_until(answered, 30)
                assert made is not None
                assert client.get(f"{url}/jobs/a").json()["name"] in ("before", "after")
                names = [j["jobId"] for j in client.get(f"{url}/jobs").json()["items"]]
                assert sorted(names) == sorted(["a", made.json()["jobId"]])
        finally:
            embedded.release()


@pytest.mark.long
@pytest.mark.takes(18)
def test_a_node_starts_when_the_database_becomes_available() -> None:
    """Until then `serve` keeps running, /readyz says why, and requests get 503."""
    with tempfile.TemporaryDirectory(prefix="horae-test-") as directory:
        embedded = EmbeddedMongod(Path(directory))
        state = embedded.acquire()
        os.kill(state.pid, signal.SIGSTOP)
        try:
            with live.begun(state.uri, "late") as (url, serve), httpx.Client(timeout=10) as client:

                def said() -> str | None:
                    assert serve.poll() is None, "it ended"
                    try:
                        return unready(client, url)
                    except httpx.ConnectError:
                        return None

                wait_until(
                    lambda: "MongoDB does not answer; the node keeps trying" in (said() or ""), 20, "it to say so"
                )
                assert client.get(f"{url}/healthz").status_code == 200
                assert client.get(f"{url}/jobs").status_code == 503
                os.kill(state.pid, signal.SIGCONT)
                wait_until(lambda: said() is None, 20, "it to begin")
        finally:
            os.kill(state.pid, signal.SIGCONT)
            embedded.release()


def unready(client: httpx.Client, url: str) -> str | None:
    """Why the node is not ready, None if it is."""
    answer = client.get(f"{url}/readyz")
    return None if answer.status_code == 200 else str(answer.json()["detail"])
