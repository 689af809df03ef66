"""`make cluster`, as a user starts it: three mongods, three serves, nginx, and what their deaths do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from pymongo import MongoClient

from cluster.core.errors import ConfigurationError
from ops.local import local_cluster
from ops.support.embedded_mongodb import free_port, mongod_binary
from tests.support import plain_http
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(150)


def missing() -> str:
    for tool in (local_cluster.nginx_binary, mongod_binary):
        try:
            tool()
        except ConfigurationError as exc:
            return str(exc)
    return ""


def ports_in_a_row(offsets: tuple[int, ...]) -> int:
    """A port that is free together with those so much above it."""
    from ops.support.embedded_mongodb import is_free

    return wait_until(lambda: next((p for p in (free_port(),) if all(is_free(p + o) for o in offsets)), None))


class Topology:
    """The running command, seen from outside."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "cluster"
        self.front, self.mongo = ports_in_a_row((0, 11, 12, 13)), ports_in_a_row((0, 1, 2))
        self.receiver = free_port()
        ports = ["--port", str(self.front), "--receiver-port", str(self.receiver), "--mongo-port", str(self.mongo)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ops", "cluster", *ports, "--no-samples"],
            env={
                **os.environ,
                "HORAE_DATA_DIR": str(directory),
                "HORAE_BATCH_LEASE_SECONDS": "5",
                "PYTHONUNBUFFERED": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def pids(self) -> dict[str, int]:
        listed = json.loads((self.directory / "processes.json").read_text())
        return {name: entry["pid"] for name, entry in listed.items()}

    def ready(self) -> bool:
        assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
        try:
            return plain_http.get(f"http://127.0.0.1:{self.front}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def primary(self) -> str | None:
        """The name of the member that takes writes."""
        for i in range(3):
            with MongoClient[dict[str, Any]](
                "127.0.0.1", self.mongo + i, directConnection=True, serverSelectionTimeoutMS=500
            ) as client:
                if client.admin.command("hello").get("isWritablePrimary"):
                    return f"mongo{i + 1}"
        return None

    def delivered(self) -> int:
        return int(plain_http.get(f"http://127.0.0.1:{self.receiver}/stats").json()["total"])

    def end(self) -> str:
        os.killpg(self.process.pid, signal.SIGINT)
        output, _ = self.process.communicate(timeout=40)
        return output


@pytest.mark.long
@pytest.mark.takes(27)
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_make_cluster_delivers_through_the_death_of_a_primary_and_a_node(tmp_path: Path) -> None:
    """A job created through nginx is delivered; kill -9 of the primary and of a serve at once, and every second's
    request still comes; the dead are started again; Ctrl-C ends all of it."""
    topology = Topology(tmp_path)
    family: list[psutil.Process] = []
    try:
        wait_until(topology.ready, 60, "readiness through nginx")
        made = plain_http.put(
            f"http://127.0.0.1:{topology.front}/jobs/tick",
            json={"schedule": "* * * * * *", "api": f"http://127.0.0.1:{topology.receiver}/ok", "type": "ATLEAST_ONCE"},
        )
        assert made.status_code == 201, made.text
        wait_until(lambda: topology.delivered() > 0, 15, "the first delivery")
        before = topology.pids()
        dead = [str(topology.primary()), "serve2"]
        for name in dead:
            os.kill(before[name], signal.SIGKILL)
        struck = time.time() * 1000
        due = [int(struck) // 1000 * 1000 + 1000 * i for i in range(6)]

        def recorded() -> bool:
            try:
                answer = plain_http.get(f"http://127.0.0.1:{topology.front}/jobs/tick/executions?limit=100", timeout=5)
            except httpx.HTTPError:
                return False
            done = {e["executionId"] for e in answer.json() if e["state"] == "succeeded"} if answer.is_success else ()
            return all(f"tick:{t}" in done for t in due)

        wait_until(recorded, 45, "every second around the deaths is delivered and recorded")
        wait_until(lambda: all(topology.pids()[name] != before[name] for name in dead), 20, "the dead run again")
        assert plain_http.get(f"http://127.0.0.1:{topology.front}/metrics").status_code == 404
        family = psutil.Process(topology.process.pid).children(recursive=True)
        assert len(family) >= 8
        output = topology.end()
    finally:
        if topology.process.poll() is None:
            for child in psutil.Process(topology.process.pid).children(recursive=True):
                child.kill()
            topology.process.kill()
            topology.process.wait()
    assert topology.process.returncode == 0, output
    assert f"http://127.0.0.1:{topology.front}/docs" in output
    assert "serve2 ended" in output
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_without_nginx_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    monkeypatch.setattr("ops.local.local_cluster.shutil.which", lambda *_, **__: None)
    with pytest.raises(ConfigurationError, match="apt-get install nginx-light"):
        local_cluster.nginx_binary()
