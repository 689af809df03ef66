"""No target takes more than its share of the event loop, whatever it sends and at whatever pace."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster.outbound.response_reader import MAX_INTERIM
from tests.support.hostile_targets import CHUNKED, INTERIM, LONG, SHAPES, hostile_targets
from tests.support.real_sender import Names, post, sending
from tests.support.waiting import eventually
from tests.support.wire import OK, Wire, listening, saying

if TYPE_CHECKING:
    from collections.abc import Iterator

TLS = Path(__file__).parents[1] / "data" / "tls"
OVER_TLS = ("interim answers", "a body byte by byte", "chunks of one byte", "header fields byte by byte")


@pytest.fixture(scope="module")
def hostile() -> Iterator[tuple[int, int]]:
    with hostile_targets() as ports:
        yield ports


@pytest.mark.parametrize(("shape", "tls"), [*((name, False) for name in SHAPES), *((name, True) for name in OVER_TLS)])
async def test_ten_endless_answers_take_a_small_share_of_the_loop(
    shape: str, tls: bool, hostile: tuple[int, int]
) -> None:
    """CPU time of the thread that runs the loop, while ten requests to the target last 0.4 s at most; requests to another target
    are answered meanwhile.
    """
    trusting = ssl.create_default_context(cafile=TLS / "ca.pem")
    names = Names(target_test=["127.0.0.1"])
    url = f"{'https' if tls else 'http'}://target.test:{hostile[tls]}/{list(SHAPES).index(shape)}"
    async with (
        listening(saying(OK)) as innocent,
        sending(resolver=lambda: names, ssl_context=trusting) as sender,
    ):
        began, cpu = time.monotonic(), time.thread_time()
        suffering = [asyncio.create_task(post(sender, url, seconds=0.4)) for _ in range(10)]
        waits = []
        while time.monotonic() - began < 0.4:
            reply = await post(sender, innocent.url)
            assert reply.status == 200
            waits.append(reply.duration_ms)
            await asyncio.sleep(0.02)
        replies = await asyncio.gather(*suffering)
        used, lasted = time.thread_time() - cpu, time.monotonic() - began
    assert lasted < 3
    # A loop that is held uses all of it, for as long as the requests last: seconds. Beside other tests a CPU second does less.
    assert used < 0.35, f"{used:.2f} s of CPU in {lasted:.2f} s"
    assert sorted(waits)[len(waits) // 2] < 3000  # of a busy machine; a loop that is held answers nothing at all
    assert {reply.error for reply in replies} <= {None, "timeout", "stalled", "protocol", "too_large"}


async def test_a_few_interim_answers_are_read_and_no_more() -> None:
    """Each request has the same number, also on a kept connection."""
    for count, error in ((MAX_INTERIM, None), (MAX_INTERIM + 1, "protocol")):
        async with listening(saying(INTERIM * count + OK)) as wire, sending() as sender:
            for _ in range(2):
                reply = await post(sender, wire.url)
                assert (reply.status, reply.error) == (None if error else 200, error)


@pytest.mark.parametrize("begin", [LONG, CHUNKED, b""], ids=["body", "chunks", "head"])
async def test_an_endless_answer_leaves_no_connection(begin: bytes) -> None:
    """The connection is closed at the end of what is read or at the deadline, and nothing is drained."""

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(begin)
        while True:
            writer.write(b"1" * 20_000)
            await writer.drain()

    async with listening(answer) as wire, sending() as sender:
        await asyncio.gather(*(post(sender, wire.url, seconds=0.3) for _ in range(5)))

        async def closed() -> bool:
            return wire.open == 0

        await eventually(closed, what="every connection is closed")
        assert sender._transport.in_flight() == 0  # type: ignore[attr-defined]


async def test_a_target_that_never_reads_holds_its_connection_until_the_deadline_and_no_longer() -> None:
    """Neither when the request cannot be written, nor when it was answered before it was read."""
    answered = b""

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(answered)
        while not writer.transport.is_closing() and not done.is_set():
            await asyncio.sleep(0.01)
        wire.requests.append(b"")

    for answered in (b"", OK):
        done = asyncio.Event()
        async with listening(answer) as wire, sending() as sender:
            reply = await post(sender, wire.url, seconds=0.4, body=b"b" * 8_000_000)
            assert (reply.status, reply.error) == ((200, None) if answered else (None, "timeout"))
            assert sender._transport.pool.idle() == 0  # type: ignore[attr-defined]
            assert sender._transport.in_flight() == 0  # type: ignore[attr-defined]
            done.set()


async def test_bytes_on_an_idle_connection_close_it() -> None:
    """A target that goes on talking is not listened to."""

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(OK)
        await writer.drain()
        while True:
            await asyncio.sleep(0.01)
            writer.write(b"x")
            await writer.drain()

    async with listening(answer) as wire, sending(keepalive_seconds=60) as sender:
        assert (await post(sender, wire.url)).status == 200

        async def closed() -> bool:
            return wire.open == 0

        await eventually(closed, what="the connection is closed")
        assert (await post(sender, wire.url)).status == 200
