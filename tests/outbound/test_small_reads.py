"""Responses in many small pieces: each byte is looked at once, pieces are counted, and reading pauses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cluster.outbound import tolerant_head
from cluster.outbound.connection import FREE_READS, SMALL_READ, Connection
from cluster.outbound.response_reader import MAX_INTERIM, MAX_PIECES, RESPONSE_LIMIT, ResponseReader
from cluster.outbound.tolerant_head import TolerantHeads

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator


class _Counting:
    """A pattern that counts the bytes it is given to search."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.searched = 0

    def search(self, text: bytearray, start: int) -> re.Match[bytes] | None:
        self.searched += len(text) - start
        return self._pattern.search(text, start)


class _Transport(asyncio.Transport):
    """A transport to which nothing comes. It knows whether it is read again after a pause."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0
        self.resumed = asyncio.Event()

    def write(self, data: Any) -> None:
        """Sent nowhere."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing is open."""

    def pause_reading(self) -> None:
        self.pauses += 1
        self.resumed.clear()

    def resume_reading(self) -> None:
        self.resumed.set()


def _pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[i : i + size] for i in range(0, len(text), size))


@pytest.mark.parametrize("field", [b"x-a: " + b"a" * 20_000 + b"\r\n", b"x-a: b\n" * 3000, b" folded\r\n" * 2000])
def test_a_head_is_searched_once_however_many_pieces_it_comes_in(field: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = _Counting(tolerant_head._END)
    monkeypatch.setattr(tolerant_head, "_END", counting)
    heads = TolerantHeads(MAX_INTERIM, 5000)
    head = b"HTTP/1.1 200 OK\nx: y\n" + field
    assert all(heads.feed(piece) is None for piece in _pieces(head, 7))
    assert heads.feed(b"\r\n") is not None
    longest = max(len(line) for line in head.split(b"\n"))
    assert counting.searched < 4 * len(head) + longest


@pytest.mark.parametrize("framing", [b"transfer-encoding: chunked\r\n", b"content-length: 60000\r\n", b""])
def test_a_body_in_too_many_pieces_is_cut_off(framing: bytes) -> None:
    reader = ResponseReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
    piece = b"1\r\nx\r\n" if b"chunked" in framing else b"x"
    fed = next(n for n in range(1, RESPONSE_LIMIT) if reader.feed(piece))
    assert fed == MAX_PIECES + 1
    assert not reader.reusable


async def test_small_reads_are_followed_by_pauses() -> None:
    """After the free ones, each of them; a large read is not."""
    connection, transport = Connection(asyncio.get_running_loop()), _Transport()
    connection.connection_made(transport)
    response = connection.begin(b"POST", 1e9, 60)
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * SMALL_READ)
    for _ in range(FREE_READS):
        connection.data_received(b"x")
    assert transport.pauses == 0
    for n in range(1, 4):
        connection.data_received(b"x")
        assert (transport.pauses, transport.resumed.is_set()) == (n, False)
        await asyncio.wait_for(transport.resumed.wait(), 5)
    connection.data_received(b"x" * SMALL_READ)
    assert transport.resumed.is_set()
    assert not response.done()
