"""Mail through a real SMTP server: what arrives, and what each refusal means."""

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
from tests.support.ears import PostOffice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.outbound.sender import Reply

SAID = orjson.dumps({"subject": "Job a is failing:\r\nBcc: x@y", "text": "Zoë: it is down\n"})


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with PostOffice() as found:
        yield found


async def send(port: int, to: str = "mailto:ops@example.com,b@example.com", seconds: float = 5) -> Reply:
    server = MailServer("127.0.0.1", "Horae <horae@example.com>", port, "plain")
    sender = Sender(httpx.MockTransport(lambda _: httpx.Response(500)), mail=server)
    target = Target(to, body=SAID, timeout_seconds=seconds)
    return await sender.send(sender.prepare(target, [("Horae-Execution-Id", "alert.1:0000000000001")]))


async def test_a_letter_arrives_as_it_was_meant(office: PostOffice) -> None:
    """Addresses, subject on one line, text in any language, and an id that stays the same when it comes twice."""
    for _ in range(2):
        reply = await send(office.port)
        assert (reply.status, reply.error) == (250, None)
    first, second = office.letters
    assert first["To"] == "ops@example.com, b@example.com"
    assert first["From"] == "Horae <horae@example.com>"
    assert first["Subject"] == "Job a is failing: Bcc: x@y"
    assert first["Bcc"] is None
    assert first.get_content().strip() == "Zoë: it is down"
    assert first["Message-ID"] == second["Message-ID"] == "<alert.1.0000000000001@example.com>"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("451 later", Verdict.RETRY), ("552 too much", Verdict.REFUSED), ("250 OK", Verdict.SUCCESS)],
)
async def test_what_the_server_says_of_a_message(office: PostOffice, answer: str, verdict: Verdict) -> None:
    """4xx is tried again, 5xx is final: as RFC 5321 means them."""
    office.answer = answer
    reply = await send(office.port)
    assert verdict_of(reply.status, reply.error) is verdict
    assert answer.startswith("250") or answer[:3] in str(reply.detail)


async def test_what_the_server_says_of_addresses(office: PostOffice) -> None:
    """Refused for all: by the worst that may still go better. Refused for one: the others have it, and it is said."""
    office.refuse = {"ops@example.com": "550 unknown", "b@example.com": "450 busy"}
    reply = await send(office.port)
    assert verdict_of(reply.status, reply.error) is Verdict.RETRY
    office.refuse = {"ops@example.com": "550 unknown", "b@example.com": "550 unknown"}
    reply = await send(office.port)
    assert verdict_of(reply.status, reply.error) is Verdict.REFUSED
    office.refuse = {"ops@example.com": "550 unknown"}
    reply = await send(office.port)
    assert verdict_of(reply.status, reply.error) is Verdict.SUCCESS
    assert "ops@example.com" in str(reply.detail)


async def test_no_server_there_and_none_set() -> None:
    """The first is tried again; the second is an operator's mistake, and says which."""
    reply = await send(free_port())
    assert (reply.error, verdict_of(reply.status, reply.error)) == ("connect", Verdict.RETRY)
    bare = Sender(httpx.MockTransport(lambda _: httpx.Response(200)))
    reply = await bare.send(bare.prepare(Target("mailto:a@b", body=SAID), []))
    assert reply.error == "denied"
    assert "HORAE_SMTP_HOST" in str(reply.detail)
