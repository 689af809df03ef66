"""`horae send`: one request, once, now or later, through the REST API."""

from __future__ import annotations

import sys
import uuid
from codecs import BOM_UTF8
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.core.documents import strict_json
from cluster.core.documents.json_source import JsonText
from cluster.core.errors import CallerError
from ops.support.client import Client, faults_named
from ops.support.output import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("send")
@click.argument("target", metavar="URL")
@click.option("--in", "delay", help="How long from now it is due, such as 30s or 1h30m. [default: at once]")
@click.option("--at", help="When it is due: an RFC 3339 time.")
@click.option(
    "--data", help="The body: JSON, or any other text, which is sent as it is. @FILE reads it, @- from stdin."
)
@click.option("--header", "headers", multiple=True, metavar="K:V", help="A header; may be repeated.")
@click.option("--no-templates", is_flag=True, help="Replace nothing between double braces, and send them as they are.")
@click.option("--dedup-id", help="The same one within 24 hours is the same message: it is sent once.")
@click.option("--queue", help="The queue whose limits it shares.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
@click.option(
    "--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, the profile in use, or HOST and PORT]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def send_command(as_json: bool, url: str | None, **options: Any) -> None:  # noqa: FBT001
    """Send one request to URL, once, now or later, and print the message's id.

    `horae explain ID` says what has become of it.
    """
    message: dict[str, Any] = {"api": options["target"]}
    for option, name in (("delay", "delay"), ("at", "at"), ("dedup_id", "dedupId"), ("queue", "queue")):
        if options[option] is not None:
            message[name] = options[option]
    if options["tags"]:
        message["tags"] = list(options["tags"])
    if options["headers"]:
        message["headers"] = _headers(options["headers"])
    if options["no_templates"]:
        message["templates"] = False
    if options["data"] is not None:
        message["body"] = _body(_read(options["data"]))
    # The same command again, after a time-out, must not send a second one: the client repeats nothing by itself.
    client, headers = Client(url), {"Idempotency-Key": uuid.uuid4().hex}
    with faults_named({"api": "URL", "delay": "--in", "at": "--at", "headers": "--header", "body": "--data"}):
        accepted = client.call("POST", "/messages", message, headers=headers)
    if as_json:
        print_json(accepted)
    else:
        click.echo(accepted["messageId"])


def _headers(texts: Sequence[str]) -> dict[str, str]:
    """The API finds names that differ in case only; of equal ones an object would keep the last."""
    headers: dict[str, str] = {}
    for name, value in map(_header, texts):
        if name in headers:
            raise click.BadParameter(f"{name} is given twice", param_hint="--header")
        headers[name] = value
    return headers


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator:
        raise click.BadParameter(f"'{text}' must be name:value", param_hint="--header")
    return name.strip(), value.strip()


def _read(data: str) -> bytes:
    if not data.startswith("@"):
        return data.encode()
    try:
        return sys.stdin.buffer.read() if data == "@-" else Path(data[1:]).read_bytes()
    except OSError as exc:
        raise click.BadParameter(f"cannot be read: {exc}", param_hint="--data") from exc


def _body(raw: bytes) -> Any:
    """JSON with the bytes that were given, without a byte order mark before it; a string, if it is none."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise click.BadParameter("must be text in UTF-8", param_hint="--data") from exc
    try:
        value = strict_json.loads(raw.removeprefix(BOM_UTF8))
    except CallerError:
        return text
    return value if isinstance(value, str) else JsonText(text.strip("\ufeff \t\r\n").encode())
