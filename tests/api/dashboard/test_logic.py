"""The logic of the page, which is in TypeScript, has tests in its own language."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from api.dashboard import build

if TYPE_CHECKING:
    from pathlib import Path

VITEST = build.MODULES / "vitest" / "vitest.mjs"


@pytest.mark.takes(5)
def test_the_logic_of_the_page() -> None:
    """`npm test` in `api/dashboard/`."""
    if not VITEST.exists():
        pytest.skip("the page is not built: `make setup` installs what its tests need")
    command = [*build.find_node(), str(VITEST), "run", "--reporter=default"]
    done = subprocess.run(command, cwd=build.HERE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_the_lock_names_no_registry() -> None:
    """Names, versions and hashes: `npm ci` asks the registry that the machine is set up for."""
    lock = (build.HERE / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "://registry" not in lock
    assert lock.count('"integrity"') > 50


def test_only_a_change_of_the_sources_builds_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "DIST", tmp_path)
    monkeypatch.setattr(build, "build", lambda **_: built.append(1))
    monkeypatch.setattr("sys.argv", ["build"])
    built: list[int] = []
    assert [build.main(), build.main()] == [0, 0]
    assert len(built) == 1
    (tmp_path / ".fingerprint").write_text("of an earlier one")
    build.main()
    assert len(built) == 2


def test_an_unreachable_registry_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkout works without the page; wrong sources are an error."""

    def fails(error: Exception) -> None:
        def build_fails(**_: bool) -> None:
            raise error

        monkeypatch.setattr(build, "build", build_fails)

    monkeypatch.setattr(build, "DIST", tmp_path)
    monkeypatch.setattr("sys.argv", ["build"])
    fails(build.Unavailable("no registry"))
    assert build.main() == 0
    assert "not built: no registry" in capsys.readouterr().err
    fails(build.BuildError("tsc failed"))
    assert build.main() == 1
