"""Alerts by mail. As with HTTP, the result of every message is a value."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, localtime

import aiosmtplib
import orjson

from cluster.core.documents.mail_domains import ANY_DOMAIN, is_allowed_address, is_mail_address
from cluster.outbound.errors import error_text

ACCEPTED = 250
TRANSIENT = range(400, 500)


@dataclass(frozen=True, slots=True)
class MailServer:
    """The server that mail is submitted to. `security`: `starttls`, `tls` (from the first byte) or `plain`."""

    host: str
    sender: str
    port: int = 587
    security: str = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    domains: tuple[str, ...] = ANY_DOMAIN
    """The domains that it may mail to."""


@dataclass(frozen=True, slots=True)
class MailMessage:
    """One mail. `id` is that of the execution, so that a mail that arrives twice can be recognised."""

    to: tuple[str, ...]
    subject: str
    text: str
    id: str


def alert_message(address: str, body: bytes, execution: str) -> MailMessage:
    """The mail of an alert: `address` as `mailto:a@b,c@d`, `body` the JSON of the alert job."""
    content = orjson.loads(body)
    to = tuple(address.removeprefix("mailto:").split(","))
    return MailMessage(to, content["subject"], content["text"], execution)


def _message(mail: MailMessage, sender: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = ", ".join(mail.to)
    message["Subject"] = " ".join(mail.subject.split())
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = f"<{mail.id.replace(':', '.')}@{sender.rpartition('@')[2].rstrip('>')}>"
    message["Horae-Execution-Id"] = mail.id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message


async def submit(server: MailServer, mail: MailMessage, seconds: float) -> tuple[int | None, str | None, str | None]:
    """`(status, error kind, sentence)`: 250, a success, or an error; a permanent refusal by the server is `denied`."""
    strangers = [address for address in mail.to if not is_allowed_address(address, server.domains)]
    odd = [address for address in mail.to if not is_mail_address(address)]
    if odd:
        return None, "denied", f"{', '.join(odd)} is no mail address that may be used: change the channel"
    if strangers:  # a channel of another node's settings, or of a time before these
        return None, "denied", f"{', '.join(strangers)} is in none of the domains that HORAE_MAIL_DOMAINS allows"
    try:
        refused, _ = await aiosmtplib.send(
            _message(mail, server.sender),
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=ssl.create_default_context() if server.security != "plain" else None,
            timeout=seconds,
        )
    except aiosmtplib.SMTPResponseException as exc:
        kind = "other" if exc.code in TRANSIENT else "denied"
        return None, kind, f"the mail server answered {exc.code}: {exc.message[:200]}"
    except aiosmtplib.SMTPRecipientsRefused as exc:
        kind = "other" if any(r.code in TRANSIENT for r in exc.recipients) else "denied"
        first = exc.recipients[0]
        return None, kind, f"the mail server refused {first.recipient}: {first.code} {first.message[:200]}"
    except aiosmtplib.SMTPTimeoutError as exc:
        return None, "timeout", error_text(exc)
    except (aiosmtplib.SMTPException, OSError) as exc:
        kind = "tls" if isinstance(exc.__cause__, ssl.SSLError) or isinstance(exc, ssl.SSLError) else "connect"
        return None, kind, error_text(exc)
    if refused:  # a success all the same: a retry would send the mail twice to the recipients that were accepted
        return ACCEPTED, None, f"the mail server refused {', '.join(sorted(refused))}"
    return ACCEPTED, None, None
