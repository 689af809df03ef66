"""Sessions: an API key changed into a cookie, so that a browser need not keep the key.

A cookie comes along with whatever makes the browser send a request, so it counts for an unsafe method only where the browser
says that the request comes from this very page (`Sec-Fetch-Site`, or an equal `Origin`). Programs send the key itself.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from api.http.addresses import came_from_elsewhere
from cluster.core.errors import StoreError
from cluster.store import sessions
from config.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from falcon.asgi import Request

    from cluster.clock import Clock
    from cluster.core.targets import IPNetwork
    from cluster.store.mongo.client import Database

SESSION_SECONDS = 12 * 3600
CACHED_SECONDS = 2.0
"""So soon every node knows of the end of a session."""
MOST_CACHED = 10_000
_TOKEN_BYTES = 32
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def cookie_name(req: Request) -> str:
    """`__Host-horae-{port}`. Browsers keep cookies per host, not per port, so the port that they see is in the name."""
    return f"__Host-horae-{req.port}"


def presented_token(req: Request) -> str | None:
    """The cookie of the session, if the request has it."""
    values = req.get_cookie_values(cookie_name(req))
    return values[0] if values and 0 < len(values[0]) <= 200 else None


def comes_from_this_page(req: Request) -> bool:
    """Whether the browser says that a page of this very origin made the request."""
    site = req.get_header("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = req.get_header("Origin")
    return origin is not None and is_own_origin(req, origin)


def is_own_origin(req: Request, origin: str) -> bool:
    """Whether an `Origin` names the host and port that the request was sent to."""
    try:
        return urlsplit(origin).netloc == req.netloc
    except ValueError:  # it is none
        return False


def is_confidential(req: Request, trusted: Sequence[IPNetwork]) -> bool:
    """Whether nobody between the browser and this node or its proxy can read the cookie.

    The caller may make these headers up: then it is its own cookie that it sends in the clear. A proxy that names itself as
    the host makes every request look local, so one that was forwarded for another machine needs https too.
    """
    origin = req.get_header("Origin") or ""
    forwarded = (req.get_header("X-Forwarded-Proto") or "").rpartition(",")[2].strip().lower()
    local = is_loopback(req.host.strip("[]")) and not came_from_elsewhere(req, trusted)
    return local or origin.startswith("https://") or forwarded == "https"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _binding(token: str, key_digest: bytes) -> bytes:
    return hashlib.sha256(_digest(token) + key_digest + token.encode("utf-8", "surrogateescape")).digest()


class Sessions:
    """The sessions that this node has seen lately; the database has all."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._cached: OrderedDict[bytes, tuple[float, sessions.Session]] = OrderedDict()

    async def begin(self, key_name: str, key_digest: bytes, key_expires_ms: int | None) -> tuple[str, int]:
        """A new session: its cookie, and when it ends, in ms. It never outlives the key."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        now_ms = self._clock.now_ms()
        expires_ms = now_ms + SESSION_SECONDS * 1000
        if key_expires_ms is not None:
            expires_ms = min(expires_ms, key_expires_ms)
        session = sessions.Session(_digest(token), key_name, _binding(token, key_digest), expires_ms)
        await sessions.create(self._db, session, now_ms)
        return token, expires_ms

    async def find(self, token: str) -> sessions.Session | None:
        """The unexpired session of a cookie. While the database is unavailable, sessions seen before stay valid."""
        digest = _digest(token)
        now = self._clock.monotonic()
        read_at, session = self._cached.get(digest, (0.0, None))
        if session is None or now - read_at >= CACHED_SECONDS:
            try:
                session = await sessions.find(self._db, digest)
            except StoreError:
                if session is None:
                    raise
            self._keep(digest, now, session)
        if session is None or session.expires_ms <= self._clock.now_ms():
            return None
        return session

    def _keep(self, digest: bytes, now: float, session: sessions.Session | None) -> None:
        self._cached.pop(digest, None)
        if session is not None:
            self._cached[digest] = (now, session)
            if len(self._cached) > MOST_CACHED:
                self._cached.popitem(last=False)

    async def end(self, token: str) -> None:
        """End a session; other nodes know of it within `CACHED_SECONDS`."""
        await sessions.end(self._db, _digest(token))
        self._cached.pop(_digest(token), None)

    @staticmethod
    def is_of(session: sessions.Session, token: str, key_name: str, key_digest: bytes) -> bool:
        """Whether the session was begun with this key, and not with an earlier one of the same name."""
        return session.key_name == key_name and hmac.compare_digest(session.binding, _binding(token, key_digest))
