"""A second `make run` in a directory, or on a port that is taken, changes nothing and says what to do."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from cluster.core.errors import ConfigurationError
from ops.cli import cli
from ops.local.demo import check_ports
from ops.local.only_run import only_run
from ops.support.embedded_mongodb import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDS = """
import sys, time
from pathlib import Path
from ops.local.only_run import only_run
with only_run(Path(sys.argv[1]), "http://127.0.0.1:5713/"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("command", ["demo", "cluster"])
def test_a_second_run_in_a_directory_is_refused_and_names_the_first(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it starts anything, whatever its ports are: its sample jobs would go to a receiver of its own."""
    monkeypatch.setenv("HORAE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("ops.local.local_cluster.nginx_binary", lambda: "nginx")
    with only_run(tmp_path / "cluster" if command == "cluster" else tmp_path, "http://127.0.0.1:5713/"):
        result = CliRunner().invoke(cli, [command, "--port", "5999", "--receiver-port", "5998"])
    assert result.exit_code != 0
    told = str(result.exception) + result.output
    assert "http://127.0.0.1:5713/" in told
    assert "end it with Ctrl-C first" in told
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["run.lock"]


def test_a_directory_is_free_again_when_its_run_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            only_run(tmp_path, "a"),
            pytest.raises(ConfigurationError, match=r"\(process \d+, a\)"),
            only_run(tmp_path, "b"),
        ):
            raise AssertionError("two runs")


def test_a_directory_is_free_again_when_its_run_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigurationError, match="5713"), only_run(tmp_path, "b"):
            pass
        holder.kill()
    wait_until(lambda: _is_free(tmp_path), 5, "the lock to end with its process")


def _is_free(directory: Path) -> bool:
    try:
        with only_run(directory, "c"):
            return True
    except ConfigurationError:
        return False


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="HORAE_DATA_DIR"), only_run(tmp_path / "file" / "data", "a"):
        pass


@pytest.mark.parametrize(
    ("page", "command"), [(True, r"PORT=(\d+) make run"), (False, r"make run DEMO='--receiver-port (\d+)'")]
)
def test_a_port_that_is_taken_is_named_with_one_that_is_free(page: bool, command: str, taken: int) -> None:
    """The advice is never the port that has just failed."""
    ports = (taken, 1) if page else (free_port(), taken)
    with pytest.raises(ConfigurationError) as raised:
        check_ports(*ports)
    assert str(taken) in str(raised.value)
    advised = re.search(command, str(raised.value))
    assert advised is not None
    assert int(advised[1]) != taken
    socket.create_server(("127.0.0.1", int(advised[1]))).close()


def test_page_and_receiver_need_two_ports() -> None:
    with pytest.raises(ConfigurationError, match="cannot both"):
        check_ports(5713, 5713)
