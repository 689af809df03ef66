"""The network between processes does what its rules say, and only to those they name."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from ops.support.embedded_mongodb import free_port
from tests.chaos.wire import Rule, Wire
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 0.3
"""How long nothing is waited for (s)."""


class Ends:
    """A server behind a wire, and a connection of this process to it, from both ends."""

    def __init__(self) -> None:
        self.port = free_port()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._listening.settimeout(5)
        self.wire = Wire([self.port])
        self.near, self.far = self.connect()

    def connect(self) -> tuple[socket.socket, socket.socket]:
        near = wait_until(self._try, 5, "the wire")
        far, _ = self._listening.accept()
        for s in (near, far):
            s.settimeout(5)
        return near, far

    def _try(self) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", self.wire.front[self.port]), timeout=5)
        except OSError:
            return None

    def close(self) -> None:
        self.wire.close()
        for s in (self.near, self.far, self._listening):
            s.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    e = Ends()
    yield e
    e.close()


def comes(s: socket.socket) -> bytes | None:
    """The bytes that arrive soon, or None."""
    s.settimeout(SOON)
    try:
        return s.recv(100)
    except TimeoutError:
        return None
    finally:
        s.settimeout(5)


def test_without_a_rule_bytes_and_closes_are_passed_on(ends: Ends) -> None:
    ends.near.sendall(b"question")
    assert ends.far.recv(100) == b"question"
    ends.far.sendall(b"answer")
    assert ends.near.recv(100) == b"answer"
    ends.far.close()
    assert ends.near.recv(100) == b""


def test_bytes_held_one_way_arrive_when_the_rule_ends(ends: Ends) -> None:
    """The other way is open meanwhile, and a connection that was given up keeps the bytes that it was sent."""
    ends.wire.rule(Rule("hold", (ends.port,), (os.getpid(),), "from"))
    ends.near.sendall(b"question")
    assert ends.far.recv(100) == b"question"
    ends.far.sendall(b"answer")
    assert comes(ends.near) is None
    ends.wire.rule(Rule("hold", (ends.port,), (os.getpid(),), "to"))
    assert ends.near.recv(100) == b"answer"
    ends.near.sendall(b"late")
    ends.near.close()
    assert comes(ends.far) is None
    ends.wire.rule()
    assert ends.far.recv(100) == b"late"
    assert ends.far.recv(100) == b""


def test_bytes_held_when_the_connection_breaks_are_lost(ends: Ends) -> None:
    """The answer was given, and never arrives: not even a byte of it, before the break or after."""
    ends.wire.rule(Rule("hold", (ends.port,), way="from"))
    ends.near.sendall(b"question")
    assert ends.far.recv(100) == b"question"
    ends.far.sendall(b"answer")
    assert comes(ends.near) is None
    ends.wire.rule(Rule("reset", (ends.port,)))
    with pytest.raises(ConnectionResetError):
        ends.near.recv(100)


def test_a_rule_for_another_process_or_port_leaves_this_one_alone(ends: Ends) -> None:
    """Also on a connection that is made while there is a rule."""
    ends.wire.rule(Rule("hold", (ends.port,), (1,)), Rule("hold", (1,)))
    near, far = ends.connect()
    for one, other in ((ends.near, ends.far), (near, far)):
        one.sendall(b"question")
        assert other.recv(100) == b"question"
    ends.wire.rule(Rule("hold", (ends.port,), (os.getpid(),)))
    mine, theirs = ends.connect()
    mine.sendall(b"question")
    assert comes(theirs) is None
    for s in (near, far, mine, theirs):
        s.close()


def test_a_delay_keeps_the_order_and_a_drip_limits_the_rate(ends: Ends) -> None:
    ends.wire.rule(Rule("delay", amount=200))
    began = time.monotonic()
    ends.near.sendall(b"a")
    assert ends.far.recv(1) == b"a"
    assert time.monotonic() - began >= 0.2
    ends.wire.rule(Rule("drip", amount=1000))
    began = time.monotonic()
    ends.near.sendall(bytes(400))
    got = 0
    while got < 400:
        got += len(ends.far.recv(400))
    assert time.monotonic() - began >= 0.2


def test_a_reset_ends_open_and_new_connections(ends: Ends) -> None:
    ends.wire.rule(Rule("reset", (ends.port,)))
    with pytest.raises(ConnectionResetError):
        ends.near.recv(100)
    with pytest.raises(ConnectionResetError):
        wait_until(ends._try, 5, "a connection").recv(100)
