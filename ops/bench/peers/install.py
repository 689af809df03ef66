"""Installs the peers, from their lock files, into a folder of their own. Nothing else of the project uses them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = Path(".peers")


class PeerMissing(Exception):
    """A peer cannot be measured here; the message says what is missing."""


def node() -> list[str]:
    """The command of Node. Raises `PeerMissing`."""
    program = shutil.which("node")
    if program is None or shutil.which("npm") is None:
        raise PeerMissing("node and npm are not installed (version 20 or later)")
    return [program]


def redis_server() -> str:
    """The path of redis-server. Raises `PeerMissing`."""
    program = shutil.which("redis-server")
    if program is None:
        raise PeerMissing("redis-server is not installed (Debian: apt-get install redis-server)")
    return program


def npm_packages() -> Path:
    """A folder with the npm packages and the scripts that use them. Raises `PeerMissing`."""
    node()
    folder = (FOLDER / "node").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "bullmq.mjs", "agenda.mjs"):
        shutil.copy(HERE / name, folder / name)
    if not _is_installed(folder, HERE / "package-lock.json"):
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
        _run([*command], folder)
        _note_installed(folder, HERE / "package-lock.json")
    return folder


def python_environment() -> Path:
    """The Python of an environment with APScheduler. Raises `PeerMissing`."""
    folder = (FOLDER / "python").resolve()
    program = folder / "bin" / "python"
    if not _is_installed(folder, HERE / "requirements.lock"):
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        _run([*pip, "-r", str(HERE / "requirements.lock")], folder)
        _note_installed(folder, HERE / "requirements.lock")
    return program


def _run(command: list[str], folder: Path) -> None:
    ran = subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False)
    if ran.returncode:
        raise PeerMissing(f"`{' '.join(command[:4])}` failed")


def _is_installed(folder: Path, lock: Path) -> bool:
    stamp = folder / ".installed"
    return stamp.exists() and stamp.read_text() == sha256(lock.read_bytes()).hexdigest()


def _note_installed(folder: Path, lock: Path) -> None:
    (folder / ".installed").write_text(sha256(lock.read_bytes()).hexdigest())
