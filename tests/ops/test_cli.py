"""The `horae` command: exit statuses, messages and help."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run_horae

if TYPE_CHECKING:
    from pathlib import Path


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
def test_wrong_usage_is_a_sentence_and_status_2(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], words: str
) -> None:
    """Nothing is started or changed; no traceback."""
    done = run_horae(*arguments, cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".horae").exists()


def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    """No database is started."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        done = run_horae("serve", "--port", str(s.getsockname()[1]), cwd=tmp_path)
    assert done.returncode == 2
    assert "choose another port" in done.stderr
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
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    """`--help` has status 0."""
    done = run_horae(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage:" in done.stdout
