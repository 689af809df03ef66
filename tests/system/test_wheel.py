"""The built wheel, installed where nothing of this repository is."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = "api/dashboard"
SITE = next(p for p in sys.path if p.endswith("site-packages"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with what is installed: nothing is fetched."""
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_carries_all_of_the_program_and_nothing_else(wheel: Path) -> None:
    """Every file of the four packages that git knows is in it, data files too; no tests, no folders of this machine."""
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "api", "cluster", "config", "ops"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    expected = {f for f in listed if (ROOT / f).exists()}
    if not expected:
        pytest.skip("this is no checkout of git, so there is nothing to compare with")
    # Of the page the wheel carries what was built, not what it was built from.
    built = {str(f.relative_to(ROOT)) for f in (ROOT / PAGE / "dist").rglob("*") if f.is_file()}
    sources = {f for f in expected if f.startswith(f"{PAGE}/") and not f.endswith((".py", ".md"))}
    assert names == (expected - sources) | built


@pytest.mark.long
@pytest.mark.takes(8)
def test_the_wheel_installs_into_an_empty_environment_and_runs(wheel: Path, tmp_path: Path) -> None:
    """`pip install` of the wheel alone; the commands answer from there, with dependencies lent by this environment."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=100, cwd=tmp_path)
    (site,) = (home / "lib").glob("python*/site-packages")
    # Dependencies only: our own packages come from the wheel, because an editable install is a hook in a .pth file,
    # and those are read in the environment's own directory alone.
    (site / "lent.pth").write_text(f"{SITE}\n")
    where = [str(python), "-c", "import api, cluster, config, ops; print(api.__file__, cluster.__file__, ops.__file__)"]
    found = subprocess.run(where, check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60).stdout.split()
    assert all(f.startswith(str(site)) for f in found), found
    for arguments in (["--help"], ["serve", "--help"], ["--version"]):
        done = subprocess.run(
            [str(home / "bin" / "horae"), *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
        )
        assert "horae" in done.stdout
    code = (
        "from ops.local.samples import SAMPLES; from api.openapi.routes import *; from pathlib import Path; import api, config; "
        "assert SAMPLES.exists(); from api.dashboard import built_files; "
        "assert (Path(config.__file__).parent / 'nginx' / 'horae.conf').exists()"
    )
    subprocess.run([str(python), "-c", code], check=True, cwd=tmp_path, timeout=60)
