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
