"""Mail through a real SMTP server: what arrives, and how each refusal is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import orjson
import pytest

from cluster.core.execution.model import Target
from cluster.core.execution.verdict import Verdict, verdict_of
from cluster.outbound.mail import MailServer
from cluster.outbound.sender import Sender
from ops.support.embedded_mongodb import free_port
from tests.support.alert_receivers import SmtpServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.outbound.sender import Reply

SAID = orjson.dumps({"subject": "Job a is failing:\r\nBcc: x@y", "text": "Zoë: it is down\n"})


@pytest.fixture
def mail_server() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


async def send(
    port: int,
    to: str = "mailto:ops@example.com,b@example.com",
    seconds: float = 5,
    domains: tuple[str, ...] = ("example.com",),
) -> Reply:
    server = MailServer("127.0.0.1", "Horae <horae@example.com>", port, "plain", domains=domains)
    sender = Sender(httpx.MockTransport(lambda _: httpx.Response(500)), mail=server)
    target = Target(to, body=SAID, timeout_seconds=seconds)
    return await sender.send(sender.prepare(target, [("Horae-Execution-Id", "alert.1:0000000000001")]))


async def test_a_mail_arrives_with_addresses_subject_text_and_a_stable_id(mail_server: SmtpServer) -> None:
    """The subject is one line, and the id is the same when the mail is sent twice."""
    for _ in range(2):
        reply = await send(mail_server.port)
        assert (reply.status, reply.error) == (250, None)
    first, second = mail_server.messages
    assert first["To"] == "ops@example.com, b@example.com"
    assert first["From"] == "Horae <horae@example.com>"
    assert first["Subject"] == "Job a is failing: Bcc: x@y"
    assert first["Bcc"] is None
    assert first.get_content().strip() == "Zoë: it is down"
    assert first["Message-ID"] == second["Message-ID"] == "<alert.1.0000000000001@example.com>"


async def test_no_mail_leaves_for_another_domain(mail_server: SmtpServer) -> None:
    """Also if the channel was stored by a node that allowed it; one stranger keeps the whole mail back."""
    for to in ("mailto:a@example.com,b@evil.example", "mailto:a@sub.example.com", "mailto:a@notexample.com"):
        reply = await send(mail_server.port, to)
        assert (reply.status, reply.error) == (None, "denied")
        assert "HORAE_MAIL_DOMAINS" in str(reply.detail)
    for to in ("mailto:|cmd@example.com", "mailto:a@example.com,-f@example.com"):
        reply = await send(mail_server.port, to)
        assert (reply.status, reply.error) == (None, "denied")
    assert mail_server.messages == []
    assert (await send(mail_server.port, "mailto:A@EXAMPLE.COM")).status == 250
    assert (await send(mail_server.port, "mailto:a@evil.example", domains=("*",))).status == 250


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("451 later", Verdict.RETRY), ("552 too much", Verdict.REFUSED), ("250 OK", Verdict.SUCCESS)],
)
async def test_4xx_is_retried_and_5xx_is_final(mail_server: SmtpServer, answer: str, verdict: Verdict) -> None:
    """As RFC 5321 defines them."""
    mail_server.answer = answer
    reply = await send(mail_server.port)
    assert verdict_of(reply.status, reply.error) is verdict
    assert answer.startswith("250") or answer[:3] in str(reply.detail)


async def test_a_mail_refused_for_some_recipients_is_a_success_that_names_them(mail_server: SmtpServer) -> None:
    """A mail refused for all recipients is retried if one of them was refused with 4xx only."""
    mail_server.refuse = {"ops@example.com": "550 unknown", "b@example.com": "450 busy"}
    reply = await send(mail_server.port)
    assert verdict_of(reply.status, reply.error) is Verdict.RETRY
    mail_server.refuse = {"ops@example.com": "550 unknown", "b@example.com": "550 unknown"}
    reply = await send(mail_server.port)
    assert verdict_of(reply.status, reply.error) is Verdict.REFUSED
    mail_server.refuse = {"ops@example.com": "550 unknown"}
    reply = await send(mail_server.port)
    assert verdict_of(reply.status, reply.error) is Verdict.SUCCESS
    assert "ops@example.com" in str(reply.detail)


async def test_an_unreachable_server_is_retried_and_a_missing_one_is_denied() -> None:
    """A missing server is a mistake of the operator; the error names the setting."""
    reply = await send(free_port())
    assert (reply.error, verdict_of(reply.status, reply.error)) == ("connect", Verdict.RETRY)
    bare = Sender(httpx.MockTransport(lambda _: httpx.Response(200)))
    reply = await bare.send(bare.prepare(Target("mailto:a@b", body=SAID), []))
    assert reply.error == "denied"
    assert "HORAE_SMTP_HOST" in str(reply.detail)
