"""An interrupted test run leaves no process behind: neither its workers nor the servers that its tests started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support import run_guard
from tests.support.mongo import needs_mongod
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
pytestmark = [needs_mongod, pytest.mark.timeout(180)]

ENDLESS_TESTS = """
import subprocess, sys, time
from pathlib import Path

import pytest

@pytest.mark.parametrize("number", [0, 1])
def test_that_does_not_end(mongodb_uri, number):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    Path(__file__).with_name(f"running-{number}").touch()
    time.sleep(600)
"""


@pytest.fixture
def make_test(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`make test` with two workers, each within a test, with a MongoDB and another process in a session of its own."""
    (tmp_path / "test_endless.py").write_text(ENDLESS_TESTS)
    command = f"{sys.executable} -m pytest -n 2 -q -c {ROOT}/pyproject.toml --rootdir {tmp_path} -p tests.conftest"
    command += f" -p no:cacheprovider --timeout 600 {tmp_path}/test_endless.py"
    (tmp_path / "Makefile").write_text(f"test:\n\t{command}\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TEST_MONGODB_URI"))}
    with (tmp_path / "log").open("wb") as log:
        make = subprocess.Popen(
            ["make", "test"],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield make
    finally:
        make.kill()
        make.wait()


@pytest.mark.parametrize(
    ("number", "to_group"),
    [
        pytest.param(signal.SIGTERM, False, id="sigterm-to-make"),
        pytest.param(signal.SIGINT, True, id="ctrl-c"),
        pytest.param(signal.SIGHUP, True, id="closed-terminal"),
    ],
)
def test_an_interrupted_run_leaves_no_process(
    make_test: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals, *, to_group: bool
) -> None:
    """pytest, its workers, their databases and other processes of their tests end within seconds."""
    wait_until(lambda: all((tmp_path / f"running-{n}").exists() for n in (0, 1)), 90, "both tests")
    make = psutil.Process(make_test.pid)
    family = [make, *make.children(recursive=True)]
    mongods = [p for p in family if p.name() == "mongod"]
    assert len(mongods) == 2
    directories = [Path(p.cmdline()[p.cmdline().index("--dbpath") + 1]).parents[1] for p in mongods]
    if to_group:
        os.killpg(make.pid, number)
    else:
        make.send_signal(number)
    make_test.wait(40)
    wait_until(lambda: not [p for p in family if _runs(p)], 15, "the end of all processes of the run")
    wait_until(lambda: not [d for d in directories if d.exists()], 5, "the removal of its databases")


def test_a_guard_ends_a_process_that_ignores_sigterm() -> None:
    """With SIGKILL, after a grace period; processes of other runs are not touched."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    outermost = os.environ[run_guard.MARK]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, run_guard.MARK: f"{outermost}/{mark}"},
            stdout=subprocess.PIPE,
        )
        for mark in ("outer/this-run", "outer/other-run")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert {p.pid for p in run_guard.processes_of("outer")} == {p.pid for p in processes}
        run_guard.end_all("this-run")
        assert processes[0].wait(5) == -signal.SIGKILL
        assert processes[1].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
