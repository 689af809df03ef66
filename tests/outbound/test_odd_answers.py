"""Answers that are not as the standard wants them, and that every client takes; and bytes that are no answer at all."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from cluster.core.execution.verdict import Verdict, verdict_of
from cluster.outbound.errors import ERROR_KINDS
from tests.support.real_sender import post, sending
from tests.support.wire import OK, Wire, listening, then_closing

if TYPE_CHECKING:
    import asyncio

TAKEN: dict[str, bytes] = {
    "one header of 9,000 bytes": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "one header of 90,000 bytes": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 90_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "a head of 200,000 bytes": b"HTTP/1.1 200 OK\r\n" + b"X-A: bcdefgh\r\n" * 4900 + b"X-B: " + b"b" * 90_000
    + b"\r\nContent-Length: 2\r\n\r\nok",
    "bytes behind Content-Length": OK + b"and more",
    "another answer behind it": OK + b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
    "the beginning of another answer behind it": OK + b"HTTP/1.1 50",
    "line ends behind it": OK + b"\r\n\r\n",
    "bytes behind chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore",
    "bytes behind 204": b"HTTP/1.1 204 No Content\r\n\r\nbody",
    "a length beside 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody",
    "bytes behind Connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nokmore",
    "lines that end in LF": b"HTTP/1.1 200 OK\nContent-Length: 2\nX-A: b\n\nok",
    "lines that end in both ways": b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
    "the same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "the same length in a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "a length beside chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX-A: b,\r\n  c\r\nContent-Length: 2\r\n\r\nok",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "an odd header name": b"HTTP/1.1 200 OK\r\nX(A): b\r\nContent-Length: 2\r\n\r\nok",
    "a header name that is not ASCII": b"HTTP/1.1 200 OK\r\nX-\xc3\xa4: b\r\nContent-Length: 2\r\n\r\nok",
    "a control character in a value": b"HTTP/1.1 200 OK\r\nX-A: \x1b[1m\r\nContent-Length: 2\r\n\r\nok",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "a reason that is not ASCII": b"HTTP/1.1 200 \xc3\xa9t\xe9\r\nContent-Length: 2\r\n\r\nok",
    "a status above 599": b"HTTP/1.1 299 X\r\nContent-Length: 2\r\n\r\nok",
    "blanks around a chunk's size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n",
    "an extension of a chunk, and a trailer":
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a="b"\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n',
    "an offer to upgrade": b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade, close\r\nContent-Length: 2\r\n\r\nok",
    "an encoding named identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 102 Processing\r\n\r\n" * 5 + OK,
    "an interim answer with odd lines": b"HTTP/1.1 103 Early Hints\nLink : </a>\n\n" + OK,
    "chunks whose lines end in LF": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n",
    "all lines end in LF": b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n",
    "a trailer that ends in LF": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\nX-Sum: 1\n\n",
    "a length with a unit": b"HTTP/1.1 200 OK\r\nContent-Length: 2 bytes\r\n\r\nok",
    "a length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "a version in small letters": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "the version of another protocol": b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a reason without a blank": b"HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\nok",
    "a status with a fraction": b"HTTP/1.1 200.1 OK\r\nContent-Length: 2\r\n\r\nok",
    "a length that ends in a comma": b"HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\nok",
    "two lengths in a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
    "the same length with zeros": b"HTTP/1.1 200 OK\r\nContent-Length: 02\r\nContent-Length: 2\r\n\r\nok",
    "an empty coding behind chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "another coding behind chunked":
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a blank before the extension of a chunk":
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1 ; a="b\r\no\r\n1\r\nk\r\n0 ;c\r\n\r\nmore',
    "any bytes in the extension of a chunk":
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;\x01\xff\r\nk\r\n0\r\n\r\n",
    "odd lines in the head and in the chunks":
        b"HTTP/1.1 200 OK\nX : a\nTransfer-Encoding: chunked\n\n1 ;a\no\n1\nk\n0\n\n",
    "a length among the trailers":
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n",
    "an interim answer of HTTP/1.0":
        b"HTTP/1.0 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an interim answer that ends the connection":
        b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a tab behind chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "tabs around chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\t chunked \t \r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a tab behind the last coding":
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity,Chunked\t\r\n\r\n2\r\nok\r\n0\r\n\r\nmore",
    "tabs around a length": b"HTTP/1.1 200 OK\r\nContent-Length:\t2 \t\r\nConnection: keep-alive\t\r\n\r\nok",
}  # fmt: skip


@pytest.mark.parametrize("said", TAKEN.values(), ids=TAKEN)
async def test_the_status_that_came_is_the_verdict(said: bytes) -> None:
    """As curl takes it. What cannot be reused is closed, so that the next request reads its own answer."""
    requests = 0

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while True:
            await wire.request(reader)
            requests += 1
            writer.write(said if requests == 1 else b"HTTP/1.1 418 X\r\nContent-Length: 6\r\n\r\nsecond")
            await writer.drain()

    async with listening(answer) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (verdict_of(reply.status, reply.error), reply.detail) == (Verdict.SUCCESS, None), reply
        assert reply.excerpt in ("ok", None)
        for _ in range(2):
            reply = await post(sender, wire.url)
            assert (reply.status, reply.excerpt) == (418, "second")


@pytest.mark.parametrize(
    "name",
    [
        "lines that end in LF",
        "an interim answer with odd lines",
        "a folded header",
        "interim answers",
        "all lines end in LF",
        "odd lines in the head and in the chunks",
        "a blank before the extension of a chunk",
        "an empty coding behind chunked",
        "a tab behind chunked",
    ],
)
@pytest.mark.parametrize("size", [1, 7])
async def test_an_answer_in_small_pieces_is_the_same_answer(name: str, size: int) -> None:
    """Wherever it is cut."""
    said = TAKEN[name]

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        for i in range(0, len(said), size):
            writer.write(said[i : i + size])
            await asyncio_sleep()
        await reader.read()

    from asyncio import sleep

    async def asyncio_sleep() -> None:
        await sleep(0.0005)

    async with listening(answer) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (reply.status, reply.excerpt, reply.error) == (200, "ok", None)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 64, 10**30])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
async def test_a_length_of_more_than_any_file_says_nothing(length: int, line_end: bytes) -> None:
    """As curl reads it: such an answer ends with its connection. A length that a file may have must be reached."""
    lines = b"HTTP/1.1 200 OK", b"Content-Length: %d" % length, b"", b"ok"
    async with listening(then_closing(line_end.join(lines))) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (reply.status, reply.excerpt, reply.error) == (200, "ok", None)
    async with listening(then_closing(OK.replace(b": 2", b": 200"))) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (reply.status, reply.error) == (200, "reset")


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A: \0\r\n\r\nok",
        b"HTTP/1.1 200 OK\nX-A: \0\n\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 ;\xff\r\nok0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
    ],
    ids=[
        "two lengths",
        "a negative length",
        "no colon",
        "NUL",
        "NUL and LF",
        "no end of a chunk",
        "a size that is no number",
    ],
)
async def test_what_curl_refuses_is_a_protocol_error_that_shows_the_status(said: bytes) -> None:
    """It cannot be told where such an answer ends, or what it says."""
    async with listening(then_closing(said)) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (reply.status, reply.error) == (200, "protocol"), reply


def random_answers(count: int, luck: random.Random) -> list[bytes]:
    """Bytes of any length up to 100,000: at random, or real answers that were cut, changed and mixed."""
    made = []
    parts = [*TAKEN.values(), b"\r\n", b"\0", b"HTTP/1.1 ", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"]
    for _ in range(count):
        if luck.random() < 0.3:
            made.append(luck.randbytes(int(10 ** luck.uniform(0, 5))))
            continue
        mixed = bytearray(b"".join(luck.choices(parts, k=luck.randint(1, 3))))
        for _ in range(luck.randint(0, 6)):
            at = luck.randrange(len(mixed))
            mixed[at : at + luck.choice((0, 1, 1, 20))] = luck.choice(
                (b"", luck.randbytes(1), luck.randbytes(40), b"\n")
            )
        made.append(bytes(mixed))
    return made


async def test_random_bytes_are_an_answer_or_an_error_and_never_the_answer_to_another_request() -> None:
    """Whatever a target says and then closes: the result is a value of a known kind, within its deadline, and the next request
    gets the answer to itself.
    """
    answers = random_answers(150, random.Random(20261126))
    assert max(map(len, answers)) > 10_000
    said = iter(answers)

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if b"/next" in await wire.request(reader):
                writer.write(b"HTTP/1.1 418 X\r\nContent-Length: 4\r\n\r\nnext")
            else:
                writer.write(next(said))
                # A 1xx alone, or a length too large, would wait for more.
                if wire.connections % 2:
                    return
            await writer.drain()

    kinds: dict[str | None, int] = {}
    async with listening(answer) as wire, sending() as sender:
        for sent in answers:
            reply = await post(sender, wire.url, seconds=0.1)
            assert reply.error is None or reply.error in ERROR_KINDS
            assert reply.error not in ("other", "connect"), (reply, sent[:200])
            assert (reply.error is None) <= (reply.status is not None)
            assert reply.duration_ms < 1500
            kinds[reply.error] = kinds.get(reply.error, 0) + 1
            reply = await post(sender, wire.url + "/next", seconds=5)
            if reply.error == "reset":  # the target had just closed the connection
                reply = await post(sender, wire.url + "/next", seconds=5)
            assert (reply.status, reply.excerpt) == (418, "next"), (reply, sent[:200])
    assert kinds[None] > 15
    assert kinds["protocol"] > 15
    assert kinds["reset"] > 2
