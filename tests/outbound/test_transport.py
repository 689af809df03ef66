"""The transport against real sockets that behave and misbehave as targets do."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.core.execution.model import Target
from cluster.outbound.errors import NotSent
from cluster.outbound.response_reader import RESPONSE_LIMIT
from cluster.outbound.transport import HttpTransport
from tests.support.real_sender import LOOPBACK, Names, post, sending
from tests.support.waiting import eventually
from tests.support.wire import OK, Wire, cut, free_port, hanging, listening, saying, then_closing

if TYPE_CHECKING:
    from cluster.outbound.sender import Sender

TLS = Path(__file__).parents[1] / "data" / "tls"


def transport_of(sender: Sender) -> HttpTransport:
    assert isinstance(sender._transport, HttpTransport)
    return sender._transport


async def test_a_request_is_written_exactly_in_one_piece() -> None:
    """With Host, Content-Length and the given headers in order, and nothing else."""
    async with listening(saying(OK)) as wire, sending() as sender:
        target = Target(wire.url + "?a=%20b", body=b'{"n": 1}', timeout_seconds=5)
        reply = await sender.send(sender.prepare(target, [("User-Agent", "Horae/1"), ("X-Latin", "h\xe9")]))
    assert (reply.status, reply.error, reply.excerpt) == (200, None, "ok")
    assert wire.requests == [
        b"POST /hook?a=%20b HTTP/1.1\r\nHost: 127.0.0.1:"
        + str(wire.port).encode()
        + b'\r\nContent-Length: 8\r\nUser-Agent: Horae/1\r\nX-Latin: h\xe9\r\n\r\n{"n": 1}'
    ]


async def test_a_request_without_body_has_content_length_0() -> None:
    """Some targets reject a POST without Content-Length."""
    async with listening(saying(OK)) as wire, sending() as sender:
        await post(sender, wire.url, body=b"")
    assert b"Content-Length: 0\r\n" in wire.requests[0]


async def test_a_plain_httpx_client_can_use_the_transport() -> None:
    """It is an httpx transport like any other."""
    async with (
        listening(saying(OK)) as wire,
        httpx.AsyncClient(transport=HttpTransport(LOOPBACK)) as client,
    ):
        response = await client.post(wire.url, content=b"x", headers={"X-A": "1"})
        assert (response.status_code, response.text, response.http_version) == (200, "ok", "HTTP/1.1")
    assert b"content-length: 1\r\n" in wire.requests[0].lower()


async def test_connections_are_kept_between_requests() -> None:
    """Requests one after another share a connection; closing the sender closes it."""
    async with listening(saying(OK)) as wire, sending() as sender:
        for _ in range(5):
            assert (await post(sender, wire.url)).status == 200
        assert (wire.connections, wire.open) == (1, 1)
        await sender.aclose()

        async def closed() -> bool:
            return wire.open == 0

        await eventually(closed, what="the connection is closed")


async def test_a_connection_is_closed_after_connection_close() -> None:
    """The next request uses a new connection."""
    answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    async with listening(saying(answer)) as wire, sending() as sender:
        assert [(await post(sender, wire.url)).status for _ in range(2)] == [204, 204]
        assert wire.connections == 2


async def test_a_connection_idle_for_longer_than_the_keepalive_is_not_used_again() -> None:
    """The next request uses a new connection."""
    async with listening(saying(OK)) as wire, sending(keepalive_seconds=0.05) as sender:
        await post(sender, wire.url)
        at = time.monotonic()

        async def old() -> bool:
            return time.monotonic() - at > 0.06

        await eventually(old)
        await post(sender, wire.url)
        assert wire.connections == 2


async def test_an_idle_connection_that_the_target_closed_is_replaced() -> None:
    """The next request uses a new connection."""
    async with listening(then_closing(OK)) as wire, sending() as sender:
        assert (await post(sender, wire.url)).status == 200

        async def noticed() -> bool:
            return transport_of(sender).pool.idle() == 0

        await eventually(noticed)
        assert (await post(sender, wire.url)).status == 200
        assert wire.connections == 2


async def test_a_request_on_a_connection_closed_meanwhile_is_not_sent_twice() -> None:
    """A kept connection that the target closes after it received the request: one `reset`, no silent second delivery."""

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(OK)
        await wire.request(reader)

    async with listening(answer) as wire, sending() as sender:
        assert (await post(sender, wire.url)).status == 200
        assert (await post(sender, wire.url)).error == "reset"
        assert len(wire.requests) == 2


async def test_bytes_received_before_the_request_are_not_its_response() -> None:
    """A target may send bytes on an idle connection, such as a 408."""
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(OK)
        await writer.drain()
        if wire.connections == 1:
            await asked.wait()
            writer.write(late)
            await reader.read()
        await saying(OK)(wire, reader, writer)

    asked = asyncio.Event()
    async with listening(answer) as wire, sending() as sender:
        assert (await post(sender, wire.url)).status == 200
        asked.set()

        async def came() -> bool:
            return transport_of(sender).pool.idle() == 0

        await eventually(came)
        reply = await post(sender, wire.url)
        assert (reply.status, reply.error) in ((None, "reset"), (200, None))
        assert (await post(sender, wire.url)).status == 200


@pytest.mark.parametrize("length", [b"Content-Length: 100000000", b"Transfer-Encoding: chunked"])
async def test_64_kib_of_a_response_are_read_and_the_connection_is_closed(length: bytes) -> None:
    """The rest of the response, however long, is not read."""
    stopped = asyncio.Event()

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
        block = b"x" * 10_000
        piece = block if b"Length" in length else b"2710\r\n" + block + b"\r\n"
        try:
            while True:
                writer.write(piece)
                await writer.drain()
        except OSError:
            stopped.set()

    async with listening(answer) as wire, sending() as sender:
        request = sender.prepare(Target(wire.url, timeout_seconds=5), [])
        response = await sender._transport.handle_async_request(request)
        assert len(await response.aread()) == RESPONSE_LIMIT
        await asyncio.wait_for(stopped.wait(), 5)
        assert transport_of(sender).in_flight() == 0


async def test_a_response_within_the_limit_keeps_its_connection() -> None:
    """It is read to its end, and its connection is used again."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 65535\r\n\r\n" + b"y" * 65535
    async with listening(saying(answer)) as wire, sending() as sender:
        replies = [await post(sender, wire.url) for _ in range(3)]
        assert [r.excerpt for r in replies] == ["y" * 2048] * 3
        assert wire.connections == 1


async def test_a_compressed_response_is_not_decompressed() -> None:
    """100 MB of zeros cost their 100 kB, of which at most 64 KiB are read."""
    bomb = gzip.compress(b"\0" * 100_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: " + str(len(bomb)).encode() + b"\r\n\r\n"
    async with listening(saying(head + bomb)) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (reply.status, reply.excerpt) == (200, f"({RESPONSE_LIMIT} bytes, gzip)")


async def test_a_response_that_only_claims_to_be_compressed_is_a_success() -> None:
    """The excerpt names the encoding and the length."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain"
    async with listening(saying(answer)) as wire, sending() as sender:
        assert (await post(sender, wire.url)).excerpt == "(5 bytes, gzip)"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is a response like any other."""
    answer = f"HTTP/1.1 {status} Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".encode()
    async with listening(saying(answer)) as wire, sending() as sender:
        assert (await post(sender, wire.url)).status == status
        assert len(wire.requests) == 1


async def test_cookies_are_not_kept() -> None:
    """A cookie that a target sets is not sent back."""
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with listening(saying(answer)) as wire, sending() as sender:
        for _ in range(2):
            await post(sender, wire.url)
        assert b"cookie" not in wire.requests[1].lower()


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a proxy nor a netrc file of the environment has an effect."""
    async with listening(saying(OK)) as wire, listening(saying(OK)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with sending() as sender:
            assert (await post(sender, wire.url)).status == 200
        assert (len(wire.requests), proxy.connections) == (1, 0)


async def test_interim_responses_are_skipped() -> None:
    """100 and 103 are followed by the response."""
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
    async with listening(saying(answer)) as wire, sending() as sender:
        assert [(await post(sender, wire.url)).status for _ in range(2)] == [200, 200]


async def test_a_response_without_length_ends_with_its_connection() -> None:
    """As HTTP/1.0 defines it."""
    async with listening(then_closing(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")) as wire, sending() as sender:
        assert (await post(sender, wire.url)).excerpt == "until the end"


async def drip(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await wire.request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_head(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await wire.request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-A: b\r\n" if wire.open else b"")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [hanging, drip, drip_head])
async def test_the_total_deadline_covers_slow_and_silent_responses(answer: Any) -> None:
    """A target that sends byte after byte gets no more time than one that sends nothing."""
    async with listening(answer) as wire, sending() as sender:
        began = time.monotonic()
        reply = await post(sender, wire.url, seconds=0.3)
        assert (reply.status, reply.error) == (None if answer is hanging else 200, "timeout")
        assert 0.29 < time.monotonic() - began < 5
        assert reply.duration_ms >= 290
        assert "0.3 s" in (reply.detail or "")
        assert transport_of(sender).in_flight() == 0


async def test_the_connect_deadline_covers_the_tls_handshake() -> None:
    """Name, TCP and TLS share the connect deadline, however long the request may take."""

    async def silent(_: Wire, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as wire, sending(connect=0.2) as sender:
        began = time.monotonic()
        reply = await post(sender, f"https://127.0.0.1:{wire.port}/", seconds=30)
        assert (reply.error, reply.detail) == ("timeout", "no connection in time")
        assert 0.19 < time.monotonic() - began < 5


async def test_a_full_backlog_is_a_connect_time_out() -> None:
    """The target accepts no connection in time."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        crowd = [socket.socket() for _ in range(4)]
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        async with sending(connect=0.2) as sender:
            reply = await post(sender, f"http://127.0.0.1:{full.getsockname()[1]}/", seconds=30)
        for each in crowd:
            each.close()
        assert (reply.error, reply.detail) == ("timeout", "no connection in time")


async def test_a_slow_name_server_is_a_connect_time_out() -> None:
    """Resolving the name is a part of connecting."""

    class Slow(Names):
        async def resolve(self, *_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

    async with sending(connect=0.1, resolver=Slow) as sender:
        assert (await post(sender, "http://slow.test/")).error == "timeout"


async def test_a_closed_port_is_a_connect_error() -> None:
    """The detail is the text of the system."""
    async with sending() as sender:
        reply = await post(sender, f"http://127.0.0.1:{free_port()}/")
        assert (reply.error, reply.detail) == ("connect", "cannot connect to 127.0.0.1: connection refused")


async def test_a_name_that_does_not_exist_is_a_dns_error() -> None:
    """Names under `.invalid` never exist (RFC 2606)."""
    async with sending() as sender:
        reply = await post(sender, "http://nothing.invalid/", seconds=30)
        assert reply.error == "dns"
        assert "nothing.invalid cannot be resolved" in (reply.detail or "")


async def test_a_text_that_is_no_host_name_is_a_dns_error() -> None:
    """Not an internal error."""
    async with sending() as sender:
        assert (await post(sender, f"http://{'a' * 70}.invalid/")).error == "dns"


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    return context


def names() -> Names:
    return Names(target_test=["127.0.0.1"], other_test=["127.0.0.1"])


async def test_tls_uses_the_name_and_the_checked_address() -> None:
    """The connection goes to the checked address; Host, SNI and the certificate are those of the name."""
    asked: list[str | None] = []
    context = server_tls()
    context.sni_callback = lambda _, name, __: asked.append(name)
    trusting = ssl.create_default_context(cafile=TLS / "ca.pem")
    async with listening(saying(OK), context) as wire, sending(resolver=names, ssl_context=trusting) as sender:
        url = f"https://target.test:{wire.port}/"
        assert [(await post(sender, url)).status for _ in range(2)] == [200, 200]
        assert asked == ["target.test"]
        assert f"Host: target.test:{wire.port}\r\n".encode() in wire.requests[0]


async def test_a_certificate_of_an_unknown_authority_is_a_tls_error() -> None:
    """Nothing is sent."""
    async with listening(saying(OK), server_tls()) as wire, sending(resolver=names) as sender:
        reply = await post(sender, f"https://target.test:{wire.port}/")
        assert reply.error == "tls"
        assert "does not verify" in (reply.detail or "")
        assert wire.requests == []


async def test_a_certificate_for_another_name_is_a_tls_error() -> None:
    """Nothing is sent."""
    trusting = ssl.create_default_context(cafile=TLS / "ca.pem")
    async with listening(saying(OK), server_tls()) as wire, sending(resolver=names, ssl_context=trusting) as sender:
        reply = await post(sender, f"https://other.test:{wire.port}/")
        assert (reply.error, wire.requests) == ("tls", [])


async def test_a_target_without_tls_is_a_tls_error() -> None:
    """It answers the handshake in plain HTTP."""

    async def plain(_: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(plain) as wire, sending() as sender:
        assert (await post(sender, f"https://127.0.0.1:{wire.port}/")).error == "tls"


@pytest.mark.parametrize("reset", [True, False])
async def test_a_connection_closed_during_the_handshake_is_a_tls_error(reset: bool) -> None:
    """Whether it is closed or reset."""

    async def answer(_: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        if reset:
            cut(writer)

    async with listening(answer) as wire, sending() as sender:
        assert (await post(sender, f"https://127.0.0.1:{wire.port}/")).error == "tls"


async def resetting(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await wire.request(reader)
    cut(writer)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (resetting, None),
        (then_closing(b""), None),
        (then_closing(b"HTTP/1.1 200 O"), None),
        (then_closing(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 20"), None),
        (then_closing(b"HTTP/1.1 200 OK\r\n"), 200),
        (then_closing(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nRetry-Af"), 503),
        (then_closing(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), 200),
        (then_closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), 200),
    ],
    ids=["reset", "closed", "in the status line", "after an interim one", "after the status line", "in the head",
         "in the body", "in the chunks"],
)  # fmt: skip
async def test_a_connection_that_ends_before_the_response_is_a_reset(answer: Any, status: int | None) -> None:
    """Half a success is no success. The attempt shows the status, if its line was received."""
    async with listening(answer) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (reply.status, reply.error) == (status, "reset"), reply
        assert ("middle of the response" in (reply.detail or "")) == (status is not None)
        assert len(wire.requests) == 1
        assert transport_of(sender).in_flight() == 0


@pytest.mark.parametrize(
    "head",
    [b"X-A: " + b"a" * 400_000, b"X-A" + b"a" * 400_000 + b": b", b"\r\n".join([b"X-A: b"] * 6000)],
    ids=["value", "name", "count"],
)
async def test_headers_above_the_limit_are_too_large(head: bytes) -> None:
    """By the length of a value, of a name, and by their number."""
    async with listening(saying(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (reply.status, reply.error) == (200, "too_large")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"SSH-2.0-OpenSSH_9.7\r\n\r\n", None),
        (b"HTTP/1.1 OK\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", 200),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", None),
    ],
    ids=["ssh", "no status", "length", "chunk", "101"],
)
async def test_a_response_that_is_not_http_is_a_protocol_error(said: bytes, status: int | None) -> None:
    """The connection is closed. The attempt shows the status, if there was one."""
    async with listening(saying(said)) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert (reply.status, reply.error) == (status, "protocol"), reply
        assert transport_of(sender).in_flight() == 0


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nX-You-Said: canary-1\0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncanary-1 canary-1\r\n\r\n",
        b"canary-1 canary-1 canary-1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: canary-1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ncanary-1\r\n",
    ],
    ids=["value", "name", "status line", "length", "chunk"],
)
async def test_a_protocol_error_does_not_quote_the_response(said: bytes) -> None:
    """A target that repeats its request may repeat a secret, in any form."""
    async with listening(saying(said)) as wire, sending() as sender:
        reply = await post(sender, wire.url)
        assert reply.error == "protocol"
        assert "canary" not in (reply.detail or "")


async def test_a_line_break_in_a_header_is_not_sent() -> None:
    """It would be a second header or request."""
    async with listening(saying(OK)) as wire, sending() as sender:
        request = sender.prepare(Target(wire.url), [("X-A", "b\r\nX-Evil: 1")])
        assert (await sender.send(request)).error == "protocol"
        assert wire.connections == 0


async def test_cancelled_requests_close_their_connections() -> None:
    """Also requests that are cancelled while they connect."""
    async with listening(hanging) as wire, sending() as sender:
        tasks = [asyncio.create_task(post(sender, wire.url)) for _ in range(20)]

        async def all_there() -> bool:
            return len(wire.requests) == 20

        await eventually(all_there)
        late = [asyncio.create_task(post(sender, wire.url)) for _ in range(20)]  # cancelled while they connect
        await asyncio.sleep(0)
        for task in tasks + late:
            task.cancel()
        results = await asyncio.gather(*tasks, *late, return_exceptions=True)
        assert all(isinstance(r, asyncio.CancelledError) for r in results)

        async def gone() -> bool:
            return wire.open == 0

        await eventually(gone, what="the target sees every connection closed")
        assert transport_of(sender).in_flight() == 0
        assert transport_of(sender).pool.idle() == 0


async def test_a_response_before_the_body_was_read_ends_the_request() -> None:
    """A target that refuses a large body without reading it does not make the request hang."""

    async def answer(_: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with listening(answer) as wire, sending() as sender:
        reply = await post(sender, wire.url, body=b"b" * 4_000_000)
        assert reply.status == 413 or reply.error == "reset"


async def test_200_concurrent_requests_are_answered() -> None:
    """Each uses a connection of its own, or one that became free."""
    async with listening(saying(OK)) as wire, sending(keepalive_seconds=60) as sender:
        for _ in range(3):
            replies = await asyncio.gather(*(post(sender, wire.url, seconds=30) for _ in range(200)))
            assert {r.status for r in replies} == {200}
        assert wire.connections <= 200
        assert len(wire.requests) == 600


async def test_a_new_connection_is_used_only_if_that_is_confirmed() -> None:
    """It may have taken seconds. Nothing is written otherwise; a kept connection is there at once, so nobody is asked."""
    asked: list[bool] = []

    async def confirm() -> bool:
        asked.append(len(asked) > 0)
        return asked[-1]

    async with listening(saying(OK)) as wire, sending() as sender:
        target = Target(wire.url, timeout_seconds=5)
        with pytest.raises(NotSent):
            await sender.send(sender.prepare(target, []), confirm)
        assert wire.requests == []
        for _ in range(2):
            assert (await sender.send(sender.prepare(target, []), confirm)).status == 200
    assert asked == [False, True]
    assert len(wire.requests) == 2


async def test_a_new_connection_that_is_never_confirmed_is_closed() -> None:
    """Asking may be cancelled, when the node stops."""

    async def confirm() -> bool:
        raise asyncio.CancelledError

    async def saying_first(_: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await reader.read()

    async with listening(saying_first) as wire, sending() as sender:
        with pytest.raises(asyncio.CancelledError):
            await sender.send(sender.prepare(Target(wire.url, timeout_seconds=5), []), confirm)

        async def gone() -> bool:
            return (wire.connections, wire.open) == (1, 0)

        await eventually(gone, what="the target sees the connection closed")
        assert wire.requests == []
