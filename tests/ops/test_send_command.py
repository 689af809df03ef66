"""`horae send`: what its options make of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from cluster.core.documents.json_source import JsonText
from ops.commands import send

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://127.0.0.1:1/"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The messages that the API was asked to accept."""
    messages: list[dict[str, Any]] = []

    class Api:
        def __init__(self, url: str | None) -> None:
            pass

        def call(self, method: str, path: str, message: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
            assert (method, path, list(headers)) == ("POST", "/messages", ["Idempotency-Key"])
            messages.append(message)
            return {"messageId": "msg.1"}

    monkeypatch.setattr(send, "Client", Api)
    return messages


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b'{"a": 1.10}\n', JsonText(b'{"a": 1.10}')),
        (b' [1e400,\r\n "\\u00e9"]', JsonText(b'[1e400,\r\n "\\u00e9"]')),
        (b'\xef\xbb\xbf{"a": 1}\r\n', JsonText(b'{"a": 1}')),  # as Windows writes files
        (b'\xef\xbb\xbf "a"', "a"),
        (b"\xef\xbb\xbfa,b\n", "\ufeffa,b\n"),  # no JSON: sent as it is
        (b'{"a": 1} {}', '{"a": 1} {}'),
        (b"plain\n", "plain\n"),
        (b"", ""),
        (b"-0", JsonText(b"-0")),
    ],
)
def test_data_is_json_or_text_as_it_was_given(
    sent: list[dict[str, Any]], tmp_path: Path, raw: bytes, body: JsonText | str
) -> None:
    """From a file, and from standard input."""
    path = tmp_path / "data"
    path.write_bytes(raw)
    for data, stdin in ((f"@{path}", None), ("@-", raw)):
        ran = CliRunner().invoke(send.send_command, [URL, "--data", data], input=stdin)
        assert (ran.exit_code, ran.stdout) == (0, "msg.1\n"), ran.output
    assert [message["body"] for message in sent] == [body, body]


def test_each_option_is_a_field(sent: list[dict[str, Any]]) -> None:
    """Without options there is only the URL."""
    many = [
        *("--in", "30s", "--dedup-id", "d", "--queue", "q", "--tag", "a", "--tag", "b", "--no-templates"),
        *("--header", "X-A: b: c", "--header", "X-B:", "--data", "{{x}}"),
    ]
    for options in (many, ["--at", "2030-01-01T00:00:00Z"], []):
        ran = CliRunner().invoke(send.send_command, [URL, *options])
        assert ran.exit_code == 0, ran.output
    assert sent == [
        {
            "api": URL,
            "delay": "30s",
            "dedupId": "d",
            "queue": "q",
            "tags": ["a", "b"],
            "templates": False,
            "headers": {"X-A": "b: c", "X-B": ""},
            "body": "{{x}}",
        },
        {"api": URL, "at": "2030-01-01T00:00:00Z"},
        {"api": URL},
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--header", "X-A: 1", "--header", "X-A: 2"], ["--header", "X-A is given twice"]),
        (["--header", "X-A"], ["'X-A' must be name:value"]),
        (["--data", "@/no/such/file"], ["--data", "cannot be read"]),
        (["--data", "@-"], ["must be text in UTF-8"]),
    ],
)
def test_what_cannot_be_meant_sends_nothing(sent: list[dict[str, Any]], options: list[str], words: list[str]) -> None:
    """Exit status 2, and a sentence that names the option."""
    ran = CliRunner().invoke(send.send_command, [URL, *options], input=b"\xff\xfe")
    assert ran.exit_code == 2
    assert not sent
    for word in words:
        assert word in ran.output
