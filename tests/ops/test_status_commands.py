"""`horae leases`, `nodes` and `leader`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ops.support.embedded_mongodb import EmbeddedMongod, free_port
from tests.support.commands import run_horae
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.takes(14)
def test_status_commands_show_a_running_cluster(tmp_path: Path) -> None:
    """`leases`, `nodes`, `leader`, as tables and JSON; a second `serve` joins the database of the first."""
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
            found = json.loads(run_horae("nodes", "--json", cwd=tmp_path, **environment).stdout)
            return found if len(found) == 2 and any(n["leading"] for n in found) else None

        nodes = wait_until(seen, 20, "two nodes, one leading")
        leader = json.loads(run_horae("leader", "--json", cwd=tmp_path, **environment).stdout)
        assert leader["nodeId"] == next(n["nodeId"] for n in nodes if n["leading"])
        leases = run_horae("leases", cwd=tmp_path, **environment)
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
