"""`HORAE_SECRET_KEY`, and the key that an embedded database gets by itself."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from cluster.core.errors import ConfigurationError
from config.settings import load_settings
from ops.cli import cli
from ops.server.serve import embedded_secret_key

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


def test_secret_keys_keep_their_order_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several keys, separated by commas."""
    monkeypatch.setenv("HORAE_SECRET_KEY", f"{ONE}, {TWO}")
    settings = load_settings(env_file=None)
    assert settings.secret_keys == (bytes([1]) * 32, bytes([2]) * 32)
    assert "secret_keys" not in repr(settings)


@pytest.mark.parametrize("bad", ["hunter2-hunter2", base64.b64encode(bytes(31)).decode(), "bm90IGEga2V5"])
def test_an_invalid_secret_key_is_named_and_not_quoted(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    """The message says which one, and how to make one."""
    monkeypatch.setenv("HORAE_SECRET_KEY", f"{ONE},{bad}")
    with pytest.raises(
        ConfigurationError, match=r"HORAE_SECRET_KEY: entry 2 must be .*horae secrets new-key"
    ) as refused:
        load_settings(env_file=None)
    assert bad not in str(refused.value)


def test_the_key_of_the_embedded_database_is_created_once(tmp_path: Path) -> None:
    """By the first of concurrent processes, readable only by its owner; a file without a key is an error, not replaced."""
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(embedded_secret_key, [tmp_path / "data"] * 16))
    assert len(keys) == 1
    (path,) = (tmp_path / "data").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("c2hvcnQ=")
    with pytest.raises(ConfigurationError, match="secret-key does not contain a key"):
        embedded_secret_key(tmp_path / "data")


def test_new_key_prints_a_valid_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """`horae secrets new-key`: another one each time."""
    made = {CliRunner().invoke(cli, ["secrets", "new-key"]).output.strip() for _ in range(3)}
    assert len(made) == 3
    monkeypatch.setenv("HORAE_SECRET_KEY", ",".join(made))
    assert len(load_settings(env_file=None).secret_keys) == 3
