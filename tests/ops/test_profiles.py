"""`horae config`: which cluster commands talk to, and with which key."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from click.testing import CliRunner

from ops.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def seen() -> Iterator[tuple[str, list[str | None]]]:
    """An API that has no jobs, and the `Authorization` of each request that it got."""
    keys: list[str | None] = []

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"items": [], "nextCursor": null}')

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", keys
    server.shutdown()
    server.server_close()


@pytest.fixture
def horae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name in ("HORAE_URL", "HORAE_API_KEY", "HORAE_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(
            cli, list(arguments), env={"HORAE_CONFIG": str(tmp_path / "config.json"), **environment}
        )

    return run


def test_commands_use_the_address_and_the_key_of_the_profile_in_use(
    horae: Callable[..., Result], seen: tuple[str, list[str | None]], tmp_path: Path
) -> None:
    """A profile's key goes to the profile's address alone; HORAE_API_KEY, HORAE_PROFILE, HORAE_URL and --url come first."""
    url, keys = seen
    (tmp_path / "key").write_text("from-file\n")
    assert horae("config", "set", "prod", "--url", url, "--key-file", str(tmp_path / "key")).exit_code == 0
    assert horae("config", "set", "lab", "--url", url).exit_code == 0
    assert horae("config", "use", "prod").stdout == f"in use: prod: {url}\n"
    for arguments, environment in (
        (["jobs", "list"], {}),
        (["jobs", "list"], {"HORAE_API_KEY": "from-environment"}),
        (["jobs", "list"], {"HORAE_PROFILE": "lab"}),
        (["jobs", "--url", url, "list"], {}),
        (["jobs", "list"], {"HORAE_URL": url}),
    ):
        assert horae(*arguments, **environment).exit_code == 0
    assert keys == ["Bearer from-file", "Bearer from-environment", None, None, None]
    listed = orjson.loads(horae("config", "list", "-o", "json").stdout)
    assert [(p["name"], p["inUse"]) for p in listed] == [("prod", True), ("lab", False)]
    assert "from-file" not in (tmp_path / "config.json").read_text()
    assert horae("config", "remove", "prod").exit_code == 0
    assert horae("config", "use", "--none").exit_code == 0
    assert horae("config", "list", "-o", "name").stdout == "lab\n"


def test_wrong_profiles_are_a_sentence_and_status_2(horae: Callable[..., Result], tmp_path: Path) -> None:
    """An unknown name, a wrong address, a key in the address, a missing key file, a damaged file."""
    wrong: list[tuple[list[str], dict[str, Any], str]] = [
        (["config", "use", "nowhere"], {}, "there is no profile 'nowhere'"),
        (["config", "use"], {}, "--none"),
        (["config", "remove", "nowhere"], {}, "there is no profile"),
        (["config", "set", "x", "--url", "example.org"], {}, "is not the address"),
        (["config", "set", "x", "--url", "https://u:p@example.org"], {}, "--key-file"),
        (["jobs", "list"], {"HORAE_PROFILE": "nowhere"}, "there is no profile"),
    ]
    for arguments, environment, words in wrong:
        done = horae(*arguments, **environment)
        assert (done.exit_code, words in done.stderr) == (2, True), done.output
    horae("config", "set", "x", "--url", "http://127.0.0.1:1", "--key-file", str(tmp_path / "none"))
    assert "cannot be read" in horae("jobs", "list", HORAE_PROFILE="x").stderr
    (tmp_path / "config.json").write_text("{")
    assert horae("jobs", "list").exit_code == 2


BROKEN_KEYS: list[tuple[bytes, str]] = [
    (b"", "is empty"),
    (b" \n\n", "is empty"),
    (b"one-key\nanother-key\n", "one API key and nothing else"),
    (b"name key-with-its-name", "one API key and nothing else"),
    ("k\u00e9y".encode(), "one API key and nothing else"),
    (b"\xff\xfe", "cannot be read"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN_KEYS)
def test_a_broken_key_file_is_a_sentence_and_nothing_is_sent(
    horae: Callable[..., Result], seen: tuple[str, list[str | None]], tmp_path: Path, content: bytes, words: str
) -> None:
    """Empty, of several lines, no text: no request goes out as nobody's, the key is not shown, and `use` says so at once."""
    url, keys = seen
    file = tmp_path / "key"
    file.write_bytes(content)
    made = horae("config", "set", "prod", "--url", url, "--key-file", str(file))
    used = horae("config", "use", "prod")
    done = horae("jobs", "list")
    assert (made.exit_code, used.exit_code, done.exit_code, keys) == (0, 0, 2, [])
    for result in (made, used, done):
        assert words in result.stderr
        assert "another-key" not in result.output
    file.write_text("good-key\r\n")
    assert (horae("jobs", "list").exit_code, keys) == (0, ["Bearer good-key"])


def test_a_wrong_key_of_the_environment_is_a_sentence(
    horae: Callable[..., Result], seen: tuple[str, list[str | None]]
) -> None:
    url, keys = seen
    for wrong in ("a\nb", "a b", "ké"):
        done = horae("jobs", "list", HORAE_URL=url, HORAE_API_KEY=wrong)
        assert (done.exit_code, "HORAE_API_KEY" in done.stderr, wrong in done.output) == (2, True, False)
    assert horae("jobs", "list", HORAE_URL=url, HORAE_API_KEY="key\n").exit_code == 0
    assert keys == ["Bearer key"]


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://h:99999", "http://h:x", "http://h:0", "http://h?x=1", "http://a b", "http://", "h:5000"],
)
def test_a_wrong_address_is_a_sentence_wherever_it_stands(horae: Callable[..., Result], url: str) -> None:
    for arguments, environment in (
        (["config", "set", "x", "--url", url], {}),
        (["jobs", "--url", url, "list"], {}),
        (["jobs", "list"], {"HORAE_URL": url}),
    ):
        done = horae(*arguments, **environment)
        assert (done.exit_code, "is not the address of an API" in done.stderr) == (2, True), (arguments, done.output)


@pytest.mark.parametrize(
    "content",
    [
        '{"profiles": {"x": {"url": 5}}}',
        '{"profiles": {"x": {"url": "http://h", "keyFile": 5}}}',
        '{"current": ["x"], "profiles": {}}',
        '{"profiles": []}',
        "[]",
        '{"profiles": {"x": "http://h"}}',
    ],
)
def test_a_damaged_file_of_profiles_is_a_sentence(horae: Callable[..., Result], tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    for arguments in (["jobs", "list"], ["config", "list"], ["config", "use", "x"]):
        done = horae(*arguments)
        assert (done.exit_code, "correct or remove it" in done.stderr) == (2, True), done.output


def test_a_file_of_profiles_that_cannot_be_written_is_a_sentence(horae: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "config.json", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        done = horae("config", "set", "x", "--url", "http://h", HORAE_CONFIG=str(place))
        assert done.exit_code == 2, done.output
        assert "cannot be" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file", "folder"] or not list((tmp_path / "folder").iterdir())


def test_use_says_what_comes_first(horae: Callable[..., Result]) -> None:
    """A profile that is in use and is not used would be a riddle; one that was removed is named with what to do."""
    horae("config", "set", "prod", "--url", "http://127.0.0.1:1")
    done = horae("config", "use", "prod", HORAE_URL="http://127.0.0.1:2")
    assert (done.exit_code, "HORAE_URL of this shell come" in done.stderr) == (0, True)
    assert "come first" not in horae("config", "use", "prod").stderr
    gone = horae("jobs", "list", HORAE_PROFILE="gone")
    assert (gone.exit_code, "there are: prod" in gone.stderr, "horae config set gone" in gone.stderr) == (2, True, True)
    for name in ("", " ", "a\nb"):
        assert horae("config", "set", name, "--url", "http://h").exit_code == 2
