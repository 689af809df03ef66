"""What `make bench-peers` installs and says, without measuring anything."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.bench.peers import __main__ as peers
from ops.bench.peers import install, rivals
from ops.bench.peers.rivals import Result

if TYPE_CHECKING:
    import pytest

HERE = Path(install.__file__).parent


def test_versions_are_exact_and_the_lock_has_names_versions_and_hashes_alone() -> None:
    """No address of a registry, of a sponsor, or of anybody else."""
    package = json.loads((HERE / "package.json").read_text())
    assert all(version[0].isdigit() for version in package["dependencies"].values())
    for lock in ("package-lock.json", "requirements.lock"):
        text = (HERE / lock).read_text()
        assert "://" not in text
        assert "resolved" not in text
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    assert all("integrity" in p for name, p in packages.items() if name)


def test_a_peer_whose_program_is_missing_has_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are measured all the same."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(peers, "horae", lambda *_: Result("Horae, MongoDB", 4000.0, "measured"))
    monkeypatch.setattr(peers, "horae_at_once", lambda *_: Result("Horae, MongoDB, at once", 6000.0, "measured"))
    monkeypatch.setattr(rivals, "apscheduler", lambda _: Result("APScheduler, MongoDB", 90.0, "measured"))
    nothing: Any = None
    results = peers.measured(nothing, argparse.Namespace(start=1, seconds=1, step=1, peers=None))
    said = {r.name: (r.rate, r.note) for r in results}
    assert said["Horae, MongoDB"][0] == 4000.0
    assert said["Agenda"] == (None, "skipped: node and npm are not installed (version 20 or later)")
    assert "redis-server is not installed" in said["BullMQ"][1]


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    """Unless its lock has changed."""
    lock = tmp_path / "lock"
    lock.write_text("a")
    assert not install._is_installed(tmp_path, lock)
    install._note_installed(tmp_path, lock)
    assert install._is_installed(tmp_path, lock)
    lock.write_text("b")
    assert not install._is_installed(tmp_path, lock)
