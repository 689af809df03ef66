"""The built page in memory: the HTML of `/` and `/docs`, and their assets under names that carry a hash."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

DIST = Path(__file__).with_name("dist")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
NOT_BUILT = (
    b"<!doctype html><html lang=en><meta charset=utf-8><title>Horae</title><h1>The page is not built</h1><p>This checkout has "
    b"no built files in <code>api/dashboard/dist</code>. Run <code>make setup</code>, or <code>python -m api.dashboard.build"
    b"</code>, and restart the nodes. The REST API works without them: see <a href=openapi.json>openapi.json</a>."
)


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """One file: its type, its bytes, and the same as gzip where the build made it smaller."""

    content_type: str
    content: bytes
    compressed: bytes | None = None


@cache
def page(name: str, folder: Path = DIST) -> BuiltFile:
    """`index.html` or `docs.html`; without a build a page that says how to make one."""
    file = folder / name
    return _read(file) if file.exists() else BuiltFile(TYPES[".html"], NOT_BUILT)


@cache
def asset_names(folder: Path = DIST) -> frozenset[str]:
    """The names below `/assets/`: nothing else is served from there."""
    files = (folder / "assets").glob("*")
    return frozenset(f.name for f in files if f.suffix in TYPES)


@cache
def asset(name: str, folder: Path = DIST) -> BuiltFile:
    """One of `asset_names`. Its bytes are read at the first request and then kept."""
    return _read(folder / "assets" / name)


def _read(file: Path) -> BuiltFile:
    compressed = file.with_name(f"{file.name}.gz")
    return BuiltFile(TYPES[file.suffix], file.read_bytes(), compressed.read_bytes() if compressed.exists() else None)
