"""`horae top` in a real terminal (a pty), on nodes that send: what is on the screen, line by line."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from ops.commands.top_view import render
from ops.support.embedded_mongodb import EmbeddedMongod
from tests.support.mongo import needs_mongod
from tests.support.processes import Nodes, Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [needs_mongod, pytest.mark.timeout(120)]

HOME, ALTERNATE, BACK, CURSOR = "\x1b[H", "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


class Terminal:
    """A program in a pty. A picture is what follows the cursor's way home, without colours."""

    def __init__(self, arguments: list[str], environment: dict[str, str], width: int, height: int) -> None:
        self._master, slave = pty.openpty()
        self.resize(width, height)
        # pytest's own idea of a terminal's size would hide the pty's.
        known = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            arguments,
            env=known | {"TERM": "xterm"} | environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # So that Ctrl-C and resizing are signals; nothing but this one call happens between fork and exec.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(slave)
        self._heard = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._master, 65_536):
                self._heard += piece
        except OSError:
            return  # it has ended

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def all(self) -> str:
        if self.process.poll() is not None:
            self._reader.join(5)
        return self._heard.decode(errors="replace")

    def lines(self) -> list[str]:
        """The picture before the last, which is complete."""
        pictures = [p for p in self.all().split(HOME)[:-1] if "\n" in p]
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", pictures[-1] if pictures else "")
        return [line.rstrip() for line in text.replace("\r", "").split("\n")]

    def shows(self, words: str, seconds: float = 20) -> list[str]:
        def there() -> list[str] | None:
            assert self.process.poll() is None, self.all()[-2000:]
            lines = self.lines()
            return lines if re.search(words, "\n".join(lines)) else None

        try:
            return wait_until(there, seconds, words)
        except AssertionError:
            raise AssertionError(f"no {words!r} in\n" + "\n".join(self.lines())) from None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Nodes, int, dict[str, str]]]:
    """Two nodes that send to a target that fails half the time, and a MongoDB of their own to be frozen: its pid."""
    embedded = EmbeddedMongod(tmp_path / "mongo")
    state = embedded.acquire()
    receiver = Receiver(tmp_path)
    nodes = Nodes(tmp_path, state.uri, "top", 2)
    try:
        nodes.load(
            [
                {
                    "jobId": path,
                    "schedule": "* * * * * *",
                    "api": f"{receiver.url}/{path}/1",
                    "retry": {"maxAttempts": 1},
                }
                for path in ("ok", "fail")
            ]
        )
        yield nodes, state.pid, {"MONGODB_URI": state.uri, "DB_NAME": "top"}
    finally:
        os.kill(state.pid, signal.SIGCONT)
        nodes.close()
        end(receiver.process)
        embedded.release()


@pytest.mark.long
@pytest.mark.takes(25)
def test_top_stays_legible_through_a_resize_a_dead_leader_and_a_frozen_database(
    world: tuple[Nodes, int, dict[str, str]],
) -> None:
    """At 80x24 and 120x40, through a resize, a killed leader and a MongoDB that stands still; Ctrl-C gives the terminal
    back.
    """
    nodes, mongod, environment = world
    leader = nodes.db["leases"].find_one({"_id": "leader"})["node"]  # type: ignore[index]
    screen = Terminal([sys.executable, "-m", "ops", "top", "--interval", "0.5"], environment, 80, 24)
    try:
        seen = screen.shows(rf"{leader} leads in term \d+, renewed \S+ ago(?s:.*)127\.0\.0\.1:\d+ ")
        assert len(seen) <= 24
        assert max(map(len, seen)) <= 80
        assert re.search(
            r"per second: [\d.]+ attempts, .* dead\nlateness: p50 .*\nbacklog: .* late work", "\n".join(seen)
        )
        assert sum(node in line for node in nodes.alive() for line in seen) == 3, "two rows, and who leads"
        assert screen.all().count(ALTERNATE) == 1

        screen.resize(120, 40)
        wait_until(lambda: len(screen.lines()) == 40, 5, "it fills what there is now")
        screen.resize(40, 10)
        wait_until(lambda: len(screen.lines()) == 10, 5, "it crops what does not fit")
        assert max(map(len, screen.lines())) <= 40
        screen.resize(80, 24)

        nodes.kill(leader)
        seen = screen.shows(rf"(?!{leader})\S+ leads in term (?s:.*)\n{leader} .* silent", 30)
        assert sum(line.endswith(" leader") for line in seen) <= 1, "a dead one is not shown as leading"

        os.kill(mongod, signal.SIGSTOP)
        seen = screen.shows(r"MONGODB UNAVAILABLE for (?s:.*)leads in term", 30)
        assert max(map(len, seen)) <= 80
        os.kill(mongod, signal.SIGCONT)
        wait_until(lambda: "UNAVAILABLE" not in "\n".join(screen.lines()), 20, "it goes on by itself")

        screen.press(b"\x03")
        assert screen.process.wait(20) == 0
        assert screen.all().rstrip().endswith(CURSOR) or CURSOR in screen.all()[-40:]
        assert BACK in screen.all()[-40:]
        assert "Traceback" not in screen.all()
    finally:
        if screen.process.poll() is None:
            screen.process.kill()
        screen.process.wait()


def looked(nodes: list[dict[str, Any]], hosts: list[dict[str, Any]], **leader: Any) -> dict[str, Any]:
    return {
        "at": "2026-12-01T10:00:00.000Z",
        "leader": {"nodeId": "n00", "term": 3, "renewedAgoMs": 400, "sound": True, **leader},
        "ratesPerSecond": dict.fromkeys(("attempts", "succeeded", "retried", "failed", "dead"), 123_456.7),
        "driftMs": {"p50": 1.0, "p99": None},
        "backlog": {"ready": 1_234_567, "leased": 1_280, "late": 1_000_000, "oldestAgeMs": 90_000},
        "nodes": nodes,
        "failingHosts": hosts,
        "failingHostsInAll": 10_000 if hosts else 0,
    }


def node(number: int, role: str = "") -> dict[str, Any]:
    name = f"n{number:02}"
    return {"nodeId": name, "silentMs": 100, "inFlight": 512, "waiting": 9, "clockOffsetMs": -3, "role": role}


def text(seen: dict[str, Any], width: int, height: int) -> list[str]:
    console = Console(width=width, height=height)
    with console.capture() as caught:
        console.print(render(seen, height))
    return caught.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_many_nodes_and_hosts_fit_on_the_screen(width: int, height: int) -> None:
    """The silent and the leader come first, the number of those left out is shown, and foreign text cannot steer the terminal."""
    nodes = [node(i) for i in range(40)]
    nodes[7]["role"], nodes[30]["role"] = "leader", "silent"
    odd = "\x1b[31mx[/b]:443"
    hosts = [{"host": odd, "endedBadly": 500, "waitForRetry": 7, "breaker": "half of 20 failed"}] * 10
    lines = text(looked(nodes, hosts), width, height)
    assert len(lines) <= height - 1, "one line is left for trouble"
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if re.match(r"n\d\d ", line)]
    assert [r.split()[0] for r in rows[:3]] == ["n30", "n07", "n00"]
    assert f"and {40 - len(rows)} more node(s)" in lines
    shown = [line for line in lines if "x[/b]:443" in line]
    assert "\x1b" not in "".join(shown)
    assert f"and {10_000 - len(shown):,} more host(s)".replace(",", "") in lines


def test_a_leader_that_does_not_renew_is_not_shown_as_leading() -> None:
    """A killed leader still has its lease for seconds."""
    stale = text(looked([], [], sound=False, renewedAgoMs=7000), 80, 24)
    assert "NO LEADER: n00 does not renew term 3 (renewed 7.0s ago)" in " ".join(" ".join(stale).split())
    assert "NO NODES" in stale
    assert "NO LEADER" in text(looked([], [], nodeId=None), 80, 24)[0]
