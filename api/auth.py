"""Who may ask: keys as `Authorization: Bearer <key>`, scopes, and what is checked when there are no keys.

Without keys the node listens on loopback alone; then a web page in a browser on this machine must not get to use it,
so a foreign `Origin` or a `Host` that is not loopback is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import falcon

from api.services import Scope
from config.settings import loopback

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.services import ApiSettings

OPEN = frozenset({"/healthz", "/readyz"})
READ_ONLY_POSTS = frozenset({"/schedules/preview"})
_SCOPES = {"read": Scope.READ, "write": Scope.WRITE, "admin": Scope.ADMIN}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _needed(req: Request) -> Scope:
    return Scope.READ if req.method in ("GET", "HEAD", "OPTIONS") or req.path in READ_ONLY_POSTS else Scope.WRITE


class Auth:
    """Falcon middleware."""

    def __init__(self, settings: ApiSettings) -> None:
        self._keys = [(_digest(k.key.get_secret_value()), k.name, _SCOPES[k.scope]) for k in settings.keys]

    async def process_request(self, req: Request, _resp: Response) -> None:
        """Raises 401 without a key that is known, 403 beyond its scope."""
        if req.path in OPEN:
            return
        if not self._keys:
            _only_this_machine(req)
            return
        scheme, _, presented = (req.get_header("Authorization") or "").partition(" ")
        found = self._find(presented.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise falcon.HTTPUnauthorized(
                description="send a key that is known as 'Authorization: Bearer <key>'", challenges=["Bearer"]
            )
        req.context.key_name, scope = found
        if scope < _needed(req):
            raise falcon.HTTPForbidden(
                description=f"the key '{found[0]}' has scope {scope.name.lower()}; this needs {_needed(req).name.lower()}"
            )

    def _find(self, presented: str) -> tuple[str, Scope] | None:
        """The key's name and scope. Every key is compared, each in constant time."""
        digest = _digest(presented)
        found = None
        for known, name, scope in self._keys:
            if hmac.compare_digest(known, digest):
                found = (name, scope)
        return found


def _only_this_machine(req: Request) -> None:
    host = req.host
    origin: Any = req.get_header("Origin")
    if not loopback(host.strip("[]")) or (origin is not None and urlsplit(origin).netloc != req.netloc):
        raise falcon.HTTPForbidden(
            description="this node has no API keys and answers only direct requests to a loopback address; "
            "set HORAE_API_KEYS to use it from elsewhere"
        )
