"""A run of the tests that is broken off leaves no process behind, and no directory of its database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import leftovers
from tests.support.mongo import needs_mongod
from tests.support.waiting import wait_until

pytestmark = needs_mongod

ROOT = Path(__file__).parents[2]
WAITS_FOREVER = """
import os, pathlib, subprocess, time

def test_waits(mongodb_uri):
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    pathlib.Path(__file__).with_name("begun").write_text(os.environ["TEST_RUN"])
    time.sleep(600)
"""


@pytest.mark.long
@pytest.mark.takes(8)
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGKILL]
)  # pytest does not handle SIGTERM: it is like SIGKILL
def test_an_interrupted_run_leaves_no_process_and_no_directory(tmp_path: Path, number: signal.Signals) -> None:
    """With workers of xdist, a database, and a process in a session of its own."""
    module = tmp_path / "test_waits.py"
    module.write_text(WAITS_FOREVER)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command += ["-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "1", "-q", str(module)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TEST_MONGODB_URI"))}
    # What a shell runs in the background ignores SIGINT, and so would this run: children inherit it.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, inherited)
    try:
        begun = tmp_path / "begun"
        wait_until(lambda: begun.exists() and begun.read_text(), 60, "the test that waits")
        name = begun.read_text()
        assert any("mongod" in p.name() for p in leftovers.processes(name))
        run.send_signal(number)
        wait_until(lambda: run.poll() is not None, 60, "the end of the run")
        wait_until(lambda: not leftovers.processes(name), 30, "the end of its processes")
        wait_until(lambda: not leftovers.directories(name), 10, "the end of its directories")
    finally:
        run.kill()
        run.wait()
