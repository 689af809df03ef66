"""Nodes over sockets: what was written is read everywhere, MongoDB may stand still, and large imports stay small."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import orjson
import psutil

from ops.server.header_timeout import HEADER_SECONDS
from ops.support.embedded_mongodb import EmbeddedMongod
from tests.support import live
from tests.support.api_client import job
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_what_was_written_is_read_on_any_node(mongodb_uri: str, db_name: str) -> None:
    """Forty changes made through one node are seen at once through another."""
    with live.node(mongodb_uri, db_name) as one, live.node(mongodb_uri, db_name) as two, httpx.Client() as client:
        for i in range(40):
            here, there = (one, two) if i % 2 else (two, one)
            client.put(f"{here}/jobs/a", json=job(name=str(i))).raise_for_status()
            assert client.get(f"{there}/jobs/a").json()["name"] == str(i)
        client.delete(f"{one}/jobs/a").raise_for_status()
        assert client.get(f"{two}/jobs/a").status_code == 404


def test_a_database_that_stands_still() -> None:
    """Writes answer 503 within 6 s and have happened or not; with an Idempotency-Key asking again makes one job."""
    with tempfile.TemporaryDirectory(prefix="horae-test-") as directory:
        embedded = EmbeddedMongod(Path(directory))
        state = embedded.acquire()
        try:
            with live.node(state.uri, "frozen") as url, httpx.Client(timeout=10) as client:
                keyed = {"Idempotency-Key": "k"}
                client.put(f"{url}/jobs/a", json=job(name="before")).raise_for_status()
                os.kill(state.pid, signal.SIGSTOP)
                try:
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


def test_a_database_that_is_away_when_a_node_begins() -> None:
    """`serve` does not end: /readyz says so within seconds, asked for jobs it answers 503, and once the database answers
    the node begins by itself.
    """
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


def lines(count: int, size: int) -> Iterator[bytes]:
    for i in range(count):
        yield orjson.dumps(job(jobId=f"big{i % 20}", body="x" * size)) + b"\n"


def test_a_large_import_takes_little_memory(mongodb_uri: str, db_name: str) -> None:
    """100 MB of long lines raise the node's memory by less than 80 MB."""
    with live.process(mongodb_uri, db_name) as (url, pid):
        workers = psutil.Process(pid).children()
        before = sum(w.memory_info().rss for w in workers)
        most = before

        def watched() -> Iterator[bytes]:
            nonlocal most
            for line in lines(400, 256 * 1024):
                most = max(most, sum(w.memory_info().rss for w in workers))
                yield line

        headers = {"Content-Type": "application/x-ndjson"}
        answer = httpx.post(f"{url}/jobs/import", content=watched(), headers=headers, timeout=60)
        assert answer.json()["failed"] == 0
        assert answer.json()["created"] == 20
        assert most - before < 80 * 2**20


def test_who_never_says_what_he_wants_is_hung_up_on(mongodb_uri: str, db_name: str) -> None:
    """Half a request line, or nothing at all, keeps a connection for seconds; one that is used stays open."""
    with live.node(mongodb_uri, db_name) as url, httpx.Client() as client:
        port = int(url.rpartition(":")[2])
        assert client.get(f"{url}/healthz").status_code == 200
        half, nothing = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        half.sendall(b"GET /jobs HT")
        for waiting in (half, nothing):
            waiting.settimeout(HEADER_SECONDS + 10)
            assert waiting.recv(100) == b""
            waiting.close()
        before = client.get(f"{url}/healthz").extensions["network_stream"].get_extra_info("client_addr")
        again = client.get(f"{url}/healthz").extensions["network_stream"].get_extra_info("client_addr")
        assert before == again
