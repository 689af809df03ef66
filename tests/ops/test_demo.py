"""`horae demo`, as `make run` starts it."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from ops.support.embedded_mongodb import EmbeddedMongod, free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.long
@pytest.mark.takes(45)
def test_the_demo_delivers_and_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    """Within 15 s after Ctrl-C no process is left; a second start continues."""
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
            if turn == "first":
                wait_until(partial(has_missed, ports[0]), 20, "a missed range")
                next(p for p in family if "receiver" in p.cmdline()).kill()
                wait_until(
                    partial(says, told, "receiver was killed by signal 9; it is started again"), 20, "its restart"
                )
                wait_until(lambda: delivered(ports[1]) > 10, 20, "deliveries to the new one")
                family = psutil.Process(demo.pid).children(recursive=True)
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


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/jobs").status_code == 200
    except httpx.HTTPError:
        return False


def has_missed(port: int) -> bool:
    return bool(httpx.get(f"http://127.0.0.1:{port}/executions?state=missed").json()["items"])


def says(log: Path, words: str) -> bool:
    return words in log.read_text()


def delivered(port: int) -> int:
    try:
        return int(httpx.get(f"http://127.0.0.1:{port}/stats").json()["total"])
    except httpx.HTTPError:
        return 0


@pytest.mark.takes(10)
def test_the_demo_ends_all_processes_when_its_terminal_is_closed(tmp_path: Path) -> None:
    """In order, as after Ctrl-C, although nothing can be printed any more, in the middle of its first start."""
    ports = [free_port(), free_port()]
    controller, terminal = os.openpty()
    demo = subprocess.Popen(
        [sys.executable, "-m", "ops", "demo", "--port", str(ports[0]), "--receiver-port", str(ports[1])],
        env={**os.environ, "HORAE_DATA_DIR": str(tmp_path / "data"), "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no other threads
    )
    os.close(terminal)
    reading = threading.Thread(target=_drain, args=(controller,), daemon=True)
    reading.start()
    try:
        wait_until(partial(answers, ports[0]), 60, "the nodes to answer")
        family = psutil.Process(demo.pid).children(recursive=True)
        state = EmbeddedMongod(tmp_path / "data").running_server()
        assert state is not None
        os.kill(demo.pid, signal.SIGSTOP)  # so that the terminal is gone before the demo handles SIGHUP
        os.close(controller)
        os.kill(demo.pid, signal.SIGCONT)
        assert (
            demo.wait(timeout=60) == 0
        )  # on a busy machine the samples may still be imported, and 13 s are for the nodes
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert EmbeddedMongod(tmp_path / "data").running_server() is None


def _drain(controller: int) -> None:
    with suppress(OSError):
        while os.read(controller, 4096):
            pass
