"""`/`, `/docs` and `/assets/*`: the built page. It loads nothing from other servers, and no text can become a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import falcon

from api.dashboard import built_files

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.dashboard.built_files import BuiltFile

_SHARED = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
)
PAGE_POLICY = f"{_SHARED}; require-trusted-types-for 'script'; trusted-types 'none'"
"""With trusted types the browser itself refuses to make markup out of a text, wherever the text comes from."""
DOCS_POLICY = _SHARED
"""The library of `/docs` writes markup that it has cleaned itself, so it cannot have trusted types."""
FOREVER = "public, max-age=31536000, immutable"
"""The name of an asset changes with its content."""


class Page:
    """`/` or `/docs`."""

    def __init__(self, name: str, policy: str) -> None:
        self._name = name
        self._policy = policy

    async def on_get(self, req: Request, resp: Response) -> None:
        """The HTML."""
        _send(req, resp, built_files.page(self._name))
        resp.set_header("Content-Security-Policy", self._policy)


class Asset:
    """`/assets/{name}`."""

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        """The file. Raises 404 for a name that the build did not make."""
        if name not in built_files.asset_names():
            raise falcon.HTTPNotFound(description="there is no such file of the page; reload the page")
        _send(req, resp, built_files.asset(name))
        resp.set_header("Cache-Control", FOREVER)


def _send(req: Request, resp: Response, file: BuiltFile) -> None:
    resp.content_type = file.content_type
    resp.data = file.content
    if file.compressed is not None:
        resp.set_header("Vary", "Accept-Encoding")
        if _accepts_gzip(req.get_header("Accept-Encoding") or ""):
            resp.set_header("Content-Encoding", "gzip")
            resp.data = file.compressed


def _accepts_gzip(accepted: str) -> bool:
    for coding in accepted[:1024].split(","):
        name, _, weight = coding.partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
