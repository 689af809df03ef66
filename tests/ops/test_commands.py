"""Commands as a user meets them: sentences and exit statuses, `serve` on an embedded database, and the demo."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ops.support.embedded_mongodb import EmbeddedMongod, free_port
from tests.support.waiting import wait_until


def horae(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, away from this repository's own .env and .horae."""
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["serve", "--port", "99999"], {}, "PORT"),
        (["serve"], {"HORAE_LEADER_LEASE_SECONDS": "14"}, "HORAE_LOOKAHEAD_SECONDS (15) must be greater than"),
        (["serve", "--host", "0.0.0.0"], {}, "HORAE_API_KEYS"),
        (["serve"], {"MONGODB_URI": "http://x"}, "mongodb://"),
        (["leases"], {}, "horae serve"),
        (["nodes", "--wrong"], {}, "No such option"),
        (["nonsense"], {}, "No such command"),
    ],
)
def test_wrong_use_is_a_sentence_and_status_2(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], words: str
) -> None:
    """Nothing is started, nothing is changed, no traceback."""
    done = horae(*arguments, cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".horae").exists()


def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    """Before a database is started for nothing."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        done = horae("serve", "--port", str(s.getsockname()[1]), cwd=tmp_path)
    assert done.returncode == 2
    assert "choose another --port" in done.stderr
    assert not (tmp_path / ".horae").exists()


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "receiver",
        "demo",
        "leases",
        "nodes",
        "leader",
        "jobs",
        "bench",
        "explain",
        "executions",
        "backlog",
        "db",
    ],
)
def test_every_command_helps(tmp_path: Path, command: str) -> None:
    """With `--help`, status 0."""
    done = horae(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_inspection_of_a_running_cluster(tmp_path: Path) -> None:
    """`leases`, `nodes`, `leader`: tables for people, JSON for programs; a second serve joins the first's database."""
    environment = {"HORAE_DATA_DIR": str(tmp_path / "data"), "HORAE_ALLOWED_NETWORKS": "127.0.0.0/8"}
    ports = [free_port(), free_port()]
    serves: list[subprocess.Popen[bytes]] = []
    try:
        for port in ports:
            serves.append(
                subprocess.Popen(
                    [sys.executable, "-m", "ops", "serve", "--port", str(port), "--nodes", "1"],
                    env={**os.environ, **environment},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            wait_until(lambda port=port: answers(port, "/readyz"), 30, "readiness")  # type: ignore[misc]

        def seen() -> list[dict[str, Any]] | None:
            found = json.loads(horae("nodes", "--json", cwd=tmp_path, **environment).stdout)
            return found if len(found) == 2 and any(n["leading"] for n in found) else None

        nodes = wait_until(seen, 20, "two nodes, one leading")
        leader = json.loads(horae("leader", "--json", cwd=tmp_path, **environment).stdout)
        assert leader["nodeId"] == next(n["nodeId"] for n in nodes if n["leading"])
        leases = horae("leases", cwd=tmp_path, **environment)
        assert leases.returncode == 0
        assert leader["nodeId"] in leases.stdout
        assert "term 1" in leases.stdout
        for serve in serves:
            serve.send_signal(signal.SIGTERM)
            assert serve.wait(15) == 0
        assert EmbeddedMongod(tmp_path / "data").running_server() is None
    finally:
        for serve in serves:
            if serve.poll() is None:
                os.killpg(serve.pid, signal.SIGKILL)


def answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_demo_delivers_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    """One command from nothing to delivered requests; within 15 s of Ctrl-C no process is left; again, it goes on."""
    ports = [free_port(), free_port()]
    for turn in ("first", "again"):
        told = tmp_path / f"{turn}.log"
        with told.open("w") as log:
            demo = subprocess.Popen(
                [sys.executable, "-m", "ops", "demo", "--port", str(ports[0]), "--receiver-port", str(ports[1])],
                env={**os.environ, "HORAE_DATA_DIR": str(tmp_path / "data"), "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(lambda: delivered(ports[1]) > 60, 60, "deliveries")
            # What was owed from the time before comes at once, and may be more than that.
            imported = "200 created" if turn == "first" else "200 unchanged"
            wait_until(partial(says, told, imported), 60, "the jobs to be imported")
            family = psutil.Process(demo.pid).children(recursive=True)
            assert len(family) >= 4
            began = time.monotonic()
            os.killpg(demo.pid, signal.SIGINT)
            demo.wait(timeout=15)
            assert time.monotonic() - began < 15
        finally:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)
        output = told.read_text()
        assert demo.returncode == 0, output
        assert turn == "again" or re.search(r"delivered\s+[\d.]+/s", output)
        assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert EmbeddedMongod(tmp_path / "data").running_server() is None


def says(log: Path, words: str) -> bool:
    return words in log.read_text()


def delivered(port: int) -> int:
    try:
        return int(httpx.get(f"http://127.0.0.1:{port}/stats").json()["total"])
    except httpx.HTTPError:
        return 0
