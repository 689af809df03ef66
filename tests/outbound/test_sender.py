"""The sender over the MockTransport of httpx: every result is a value."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.execution.model import Target
from cluster.outbound import errors
from cluster.outbound.redaction import REDACTED, redact
from cluster.outbound.sender import Reply, Sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

TARGET = Target("http://target.test/hook", body=b"{}", timeout_seconds=7)


async def reply_to(handler: Callable[[httpx.Request], httpx.Response]) -> Reply:
    sender = Sender(httpx.MockTransport(handler))
    return await sender.send(sender.prepare(TARGET, [("A", "b")]))


async def test_a_prepared_request_carries_deadlines_body_and_headers() -> None:
    """The connect deadline never exceeds the total."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(201, text="made")

    reply = await reply_to(handler)
    assert reply == Reply(201, None, None, "made", None, reply.duration_ms)
    (request,) = seen
    assert (request.method, str(request.url), request.content) == ("POST", TARGET.url, b"{}")
    assert request.headers.multi_items() == [("host", "target.test"), ("content-length", "2"), ("a", "b")]
    assert request.extensions["timeout"] == {"connect": 7, "total": 7}


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (errors.AddressDenied("x"), "denied"),
        (errors.DnsFailed("x"), "dns"),
        (errors.TlsFailed("x"), "tls"),
        (errors.ResponseTooLarge("x"), "too_large"),
        (httpx.ConnectTimeout("x"), "timeout"),
        (httpx.ReadTimeout("x"), "timeout"),
        (httpx.ConnectError("x"), "connect"),
        (httpx.ReadError("x"), "reset"),
        (httpx.WriteError("x"), "reset"),
        (httpx.RemoteProtocolError("x"), "protocol"),
        (httpx.UnsupportedProtocol("x"), "other"),
        (httpx.InvalidURL("x"), "other"),
        (RuntimeError("x"), "other"),
        (MemoryError(), "other"),
    ],
)
async def test_every_exception_of_a_transport_becomes_an_error_kind(exc: Exception, kind: str) -> None:
    """Expected or not."""

    def handler(_: httpx.Request) -> httpx.Response:
        raise exc

    reply = await reply_to(handler)
    assert (reply.status, reply.error, reply.excerpt) == (None, kind, None)
    assert kind in errors.ERROR_KINDS


@pytest.mark.parametrize("exc", [httpx.ConnectTimeout("x"), httpx.ReadTimeout("x")])
async def test_a_time_out_noticed_late_is_stalled_not_a_time_out_of_the_target(
    exc: Exception, monkeypatch: Any
) -> None:
    """The response may have arrived in time."""
    now = [100.0]
    monkeypatch.setattr("cluster.outbound.sender.time.monotonic", lambda: now[0])

    def handler(_: httpx.Request) -> httpx.Response:
        now[0] += 7 + stalled
        raise exc

    for stalled, kind in ((0.9, "timeout"), (5.0, "stalled")):
        reply = await reply_to(handler)
        assert (reply.status, reply.error) == (None, kind)
        assert reply.duration_ms == pytest.approx((7 + stalled) * 1000)
    assert reply.detail == "this node stalled for 5.0 s: x"


async def test_only_a_cancellation_is_raised() -> None:
    """Every other exception becomes a reply."""
    sender = Sender(httpx.MockTransport(lambda _: asyncio.sleep(60)))  # type: ignore[arg-type]
    task = asyncio.create_task(sender.send(sender.prepare(TARGET, [])))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("headers", "content", "excerpt"),
    [
        ({}, b"", None),
        ({}, b"plain\n\ttext", "plain\n\ttext"),
        ({}, "grün €".encode(), "grün €"),
        ({}, b"a" * 2047 + "€".encode(), "a" * 2047),
        ({}, b"\xff\xfe\x00ok", "\ufffd\ufffd\ufffdok"),
        ({}, b"\x1b[31mred\x07\x7f\xc2\x9b", "\ufffd[31mred\ufffd\ufffd\ufffd"),
        ({}, b"cut\xe2\x82", "cut\ufffd"),
        ({"content-type": "text/plain; charset=ISO-8859-1"}, b"gr\xfcn", "grün"),
        ({"content-type": "text/plain; charset=zip"}, b"odd", "odd"),
        ({"content-type": "text/plain; charset=utf-16"}, b"\x00a", "\ufffda"),
        ({"content-encoding": "identity"}, b"plain", "plain"),
        ({"content-encoding": "gzip"}, b"\x1f\x8b\x08", "(3 bytes, gzip)"),
        ({"content-encoding": "BR, x-gzip"}, b"abc", "(3 bytes, br, x-gzip)"),
        ({"content-encoding": "said by a stranger"}, b"abc", "(3 bytes, another encoding)"),
        ({"content-type": 'text/plain; CHARSET="Windows-1252"; x=y'}, b"gr\xfcn", "grün"),
        ({"content-type": "text/plain; charset*0=a; charset*=b"}, b"gr\xc3\xbcn", "grün"),
        ({"content-type": "text/plain; x=charset=latin-1"}, b"gr\xfcn", "gr\ufffdn"),
    ],
)
async def test_an_excerpt_is_cut_decoded_and_printable(
    headers: dict[str, str], content: bytes, excerpt: str | None
) -> None:
    """It is at most 2 KiB, splits no character, and contains nothing that controls a terminal."""
    reply = await reply_to(lambda _: httpx.Response(200, headers=headers, stream=httpx.ByteStream(content)))
    assert reply.excerpt == excerpt


@given(
    st.lists(st.sampled_from(["=utf-8", "*=a", "*0=b", "*1*=''%e4", '="', "; charset", ";", "*", "=", "\xff", " "])),
    st.text(st.characters(max_codepoint=0xFF, exclude_characters="\r\n\0"), max_size=40),
)
async def test_no_response_header_makes_send_raise(of_type: list[str], later: str) -> None:
    """An exception would leave the result of the request unknown."""
    said = [
        (b"Content-Type", b"text/plain; charset" + "".join(of_type).encode("latin-1")),
        (b"Retry-After", later.encode("latin-1")),
        (b"Content-Encoding", b"identity"),
    ]
    reply = await reply_to(lambda _: httpx.Response(503, headers=said, content=b"h\xe4llo"))
    assert reply.status == 503


SECRET = "schlüssel-0123"


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({}, SECRET.encode()),
        ({"content-type": "text/plain; charset=latin-1"}, SECRET.encode("latin-1")),
        ({}, json.dumps(SECRET).encode()),
    ],
    ids=["utf-8", "as it was sent", "json"],
)
async def test_a_secret_is_redacted_from_the_excerpt(headers: dict[str, str], content: bytes) -> None:
    """Header values are sent as Latin-1, and may be returned so."""
    sender = Sender(httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=b"you said " + content)))
    reply = await sender.send(sender.prepare(Target("http://a.test/", secrets=(SECRET,)), [("X-Key", SECRET)]))
    assert (reply.excerpt or "").strip('"').replace('"', "") == "you said (secret)"


@pytest.mark.parametrize(
    "said", [{"Content-Encoding": "x-{}"}, {"Content-Encoding": "gzip, {}"}, {"{}": "1"}, {"X-{}-y": "2"}, {"X": "{}"}]
)
async def test_a_secret_is_cut_out_of_names_and_values_of_headers(said: dict[str, str]) -> None:
    """Of the encoding the excerpt tells the name, and a callback tells all headers."""
    secret = "canary-0123456789"
    headers = {name.format(secret): value.format(secret) for name, value in said.items()}
    transport = httpx.MockTransport(
        lambda _: httpx.Response(500, headers=headers, stream=httpx.ByteStream(b"no gzip, but it says so"))
    )
    sender = Sender(transport)
    reply = await sender.send(
        sender.prepare(Target("http://a.test/", secrets=(secret,), keeps_answer=True), [("X-Key", secret)])
    )
    assert secret not in str(reply).lower()
    assert "0123456789" not in str(reply)


async def test_a_secret_is_redacted_from_the_error_detail() -> None:
    """An error may quote the response, and the response may repeat the request."""

    def broken(_: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError(f"the answer is not HTTP: {SECRET!r}")

    sender = Sender(httpx.MockTransport(broken))
    reply = await sender.send(sender.prepare(Target("http://a.test/", secrets=(SECRET,)), []))
    assert (reply.error, reply.detail) == ("protocol", "the answer is not HTTP: '(secret)'")


@pytest.mark.parametrize(("fields", "size"), [(0, 16_000), (180, 0)], ids=["a body", "many headers"])
async def test_the_event_loop_goes_on_while_a_large_answer_is_redacted(
    monkeypatch: pytest.MonkeyPatch, fields: int, size: int
) -> None:
    """That takes some 30 ms, and other requests are to be sent meanwhile. A small answer is redacted at once."""
    went_on = threading.Event()

    def slow(content: bytes, secrets: Sequence[str], shown: int | None = None) -> bytes:
        assert went_on.wait(10), "the loop waits for the redaction"
        return redact(content, secrets, shown)

    headers = [(f"x-{n}".encode(), f"{SECRET} {n}".encode()) for n in range(fields)]
    content = b"." * size + SECRET.encode()
    sender = Sender(httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=content)))
    target = Target("http://a.test/", secrets=(SECRET,), keeps_answer=True)
    monkeypatch.setattr("cluster.outbound.sender.redact", slow)
    sent = asyncio.create_task(sender.send(sender.prepare(target, [("X-Key", SECRET)])))
    asyncio.get_running_loop().call_later(0.01, went_on.set)
    answer = (await sent).answer
    assert answer is not None
    assert answer.body == b"." * size + REDACTED
    assert {name: value for name, value in answer.headers if name.startswith("x-")} == {
        f"x-{n}": f"(secret) {n}" for n in range(fields)
    }


async def test_64_kib_of_an_endless_response_are_read() -> None:
    """Over any transport."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 5000

    assert (await reply_to(lambda _: httpx.Response(200, content=endless()))).excerpt == "x" * 2048


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "120", 120.0),
        (503, " 0 ", 0.0),
        (503, "00000000030", 30.0),
        (503, "-1", None),
        (503, "soon", None),
        (503, "1.5", None),
        (503, "9" * 400, 999_999_999.0),
        (503, "Fri, 31 Feb 2026 00:00:00 GMT", None),
        (503, "Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (503, "٣", None),
        (200, "120", None),
        (503, None, None),
    ],
)
async def test_retry_after_is_read_as_seconds_or_a_date(status: int, header: str | None, seconds: float | None) -> None:
    """On failures only; a value that is neither is ignored."""
    headers = [] if header is None else [(b"Retry-After", header.encode())]
    assert (await reply_to(lambda _: httpx.Response(status, headers=headers))).retry_after_s == seconds


async def test_a_retry_after_date_counts_from_now() -> None:
    """A date means the time from now until then."""
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    reply = await reply_to(lambda _: httpx.Response(503, headers={"Retry-After": at}))
    assert reply.retry_after_s == pytest.approx(89, abs=3)


async def test_a_url_that_cannot_be_sent_to_is_denied() -> None:
    """It is not given to the transport."""
    sender = Sender(httpx.MockTransport(lambda _: httpx.Response(200)))
    reply = await sender.send(sender.prepare(Target("http://256.1.1.1/"), []))
    assert (reply.status, reply.error) == (None, "denied")
    assert "cannot be sent to" in (reply.detail or "")
