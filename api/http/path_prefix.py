"""`HORAE_PATH_PREFIX`: a proxy keeps it in front of every path, and the addresses in responses carry it.

Paths without it are served too: probes and metrics ask the node itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falcon.asgi import Request, Response

PREFIXED = "horae.prefixed"
"""The item of a scope that says that the prefix was cut off."""


def without_prefix(scope: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The scope of a request as if it had been sent without the prefix."""
    raw = bytes(scope.get("raw_path") or scope["path"].encode())
    start = f"{prefix}/"
    if not (prefix and raw.startswith(start.encode()) and scope["path"].startswith(start)):
        return dict(scope)
    return {**scope, "raw_path": raw[len(prefix) :], "path": scope["path"][len(prefix) :], PREFIXED: True}


def came_with_prefix(req: Request) -> bool:
    """Whether the request was sent with the prefix: what asks the node itself needs none."""
    return bool(req.scope.get(PREFIXED))


async def redirect_to_page(prefix: str, send: Any) -> None:
    """`/horae` is not `/horae/`: addresses that are relative to the one do not fit the other."""
    headers = [(b"location", f"{prefix}/".encode()), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 308, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class PrefixedAddresses:
    """Falcon middleware: `Location` and `Link` carry the prefix, also in errors and repeated responses."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    async def process_response(self, _req: Request, resp: Response, _resource: object, _ok: bool) -> None:  # noqa: FBT001 - Falcon's signature
        """Add the prefix to addresses of this API."""
        location, link = resp.get_header("Location"), resp.get_header("Link")
        if location is not None and location.startswith("/"):
            resp.set_header("Location", f"{self._prefix}{location}")
        if link is not None:
            resp.set_header("Link", link.replace("</", f"<{self._prefix}/"))
