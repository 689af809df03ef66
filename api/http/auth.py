"""Authentication: API keys (`Authorization: Bearer <key>`, or the cookie of a session), their scopes and rate limits, and the
checks without keys.

Keys come from the settings or from the database (`horae keys create`). A node without keys listens on loopback only.
Web pages in a browser on the same machine must not be able to use such a node, so a request with a foreign `Origin`, or
with a `Host` that is not loopback, is refused; and so is one that a proxy forwarded from another machine.

Wrong keys are limited per address, right ones never are: strangers share addresses with callers, and must not be able to
lock them out. The limit does not keep anybody from guessing a key; its length does.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import falcon
import structlog

from api.http.addresses import came_from_elsewhere, client_address, limit_name
from api.http.context import Scope
from api.http.path_prefix import came_with_prefix
from api.http.rate_limit import TokenBuckets
from api.http.sessions import SAFE_METHODS, Sessions, comes_from_this_page, is_own_origin, presented_token
from cluster.core.errors import StoreError
from cluster.store import api_keys
from cluster.store.mongo.deadlines import within
from config.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.core.targets import IPNetwork

log = structlog.get_logger()

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/docs"})
ASSETS = "/assets/"
"""The files of the page: they are the same for everybody, and the router knows them by one segment."""
SESSION_PATH = "/session"
METRICS_PATH = "/metrics"
READ_ONLY_POSTS = frozenset({"/schedules/crowd", "/schedules/preview"})
ADMIN_PATHS = frozenset({"audit", "keys", "nodes", "verifications"})
"""The first parts of paths that need the scope admin, whatever the method. The audit log has the addresses of people and
the names of all keys."""
KEYS_CACHED_SECONDS = 2.0
"""How long the keys of the database are cached: so soon every node knows of a new or revoked key."""
READ_KEYS_SECONDS = 2.0
RECORD_USE_SECONDS = 60.0
FAILURE_BURST, FAILURES_PER_SECOND = 10, 0.2
SMALL_OPEN_PATHS = frozenset({"/healthz", "/readyz", METRICS_PATH})
OPEN_BURST, OPEN_PER_SECOND = 200, 50
"""Pages, their files and the API description are large: strangers could keep a node busy with nothing but sending them."""
_SCOPES = {"read": Scope.READ, "write": Scope.WRITE, "admin": Scope.ADMIN}


def key_digest(key: str) -> bytes:
    """The SHA-256 of a key: only this is stored."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _required_scope(req: Request) -> Scope:
    if req.path.strip("/").partition("/")[0] in ADMIN_PATHS:
        return Scope.ADMIN
    if req.method in SAFE_METHODS or req.path in READ_ONLY_POSTS or req.path == SESSION_PATH:
        return Scope.READ
    return Scope.WRITE


def _presented_digest(req: Request) -> bytes:
    scheme, _, key = (req.get_header("Authorization") or "").partition(" ")
    return key_digest(key.strip()) if scheme.lower() == "bearer" and key.strip() else b""


@dataclass(frozen=True, slots=True)
class _ApiKey:
    digest: bytes
    name: str
    scope: Scope
    expires_ms: int | None = None
    stored: bool = False


class ApiKeyAuth:
    """Falcon middleware that checks API keys, scopes and rates, and refuses remote callers while there are no keys."""

    def __init__(self, services: Services) -> None:
        self._db = services.db
        self._clock = services.clock
        settings = services.settings
        self._open_paths = OPEN_PATHS | {METRICS_PATH} if settings.metrics_open else OPEN_PATHS
        self._metrics_port = settings.metrics_port
        self._trusted: Sequence[IPNetwork] = settings.trusted_proxies
        self._page_reads_only = settings.dashboard == "read"
        self.sessions = Sessions(services.db, services.clock)
        self._configured = [
            _ApiKey(key_digest(k.key.get_secret_value()), k.name, _SCOPES[k.scope]) for k in settings.keys
        ]
        self._stored: list[_ApiKey] = []
        self._read_at: float | None = None
        self._use_recorded_at: dict[str, float] = {}
        monotonic = services.clock.monotonic
        self._failures = TokenBuckets(FAILURES_PER_SECOND, FAILURE_BURST, monotonic)
        self._pages = TokenBuckets(OPEN_PER_SECOND, OPEN_BURST, monotonic)
        rate = settings.requests_per_second
        self._requests = TokenBuckets(rate, max(1.0, 2 * rate), monotonic) if rate else None

    async def process_request(self, req: Request, _resp: Response) -> None:
        """Raises 400 for a `Host` that is none, 401 without a valid key, 403 beyond its scope, 429 beyond its rate, or after
        too many wrong keys or pages.
        """
        _require_host(req)
        path = _path_as_sent(req)
        if self._metrics_port is not None and _port(req) == self._metrics_port:
            if path != METRICS_PATH:
                raise falcon.HTTPNotFound(description="this port has /metrics and nothing else")
            return
        is_open = path in self._open_paths and not (path == METRICS_PATH and came_with_prefix(req))
        if is_open or path.startswith(ASSETS):
            if path not in SMALL_OPEN_PATHS:
                _require_no_wait(
                    self._pages.take(limit_name(client_address(req, self._trusted))),
                    "too many requests for pages and files from this address: wait `Retry-After` seconds",
                )
            return
        if (path, req.method) == (SESSION_PATH, "POST"):
            return
        if self._page_reads_only:
            _require_reading(req)
        presented = _presented_digest(req)
        if self._find(self._configured, presented) is None:
            await self._refresh_stored()
        if not self._configured and not self._stored:
            _require_local(req, self._trusted)
            return
        token = None if presented else presented_token(req)
        key = self._identify(req, presented) if token is None else await self._of_session(req, token)
        req.context.key_name, req.context.key_scope, req.context.by_cookie = key.name, key.scope, token is not None
        if key.scope < _required_scope(req):
            raise falcon.HTTPForbidden(
                description=f"the API key '{key.name}' has scope {key.scope.name.lower()}; "
                f"this request needs {_required_scope(req).name.lower()}"
            )
        if self._requests is not None:
            _require_no_wait(
                self._requests.take(key.name),
                "the API key has used up its requests per second (HORAE_REQUESTS_PER_SECOND): wait `Retry-After` seconds",
            )
        if key.stored:
            await self._record_use(key)

    async def begin_session(self, req: Request, text: str) -> tuple[str, int]:
        """The cookie of a new session with this key, and when it ends, in ms. Raises 401 for an unknown key."""
        presented = key_digest(text.strip())
        if self._find(self._configured, presented) is None:
            await self._refresh_stored()
        key = self._identify(req, presented)
        return await self.sessions.begin(key.name, key.digest, key.expires_ms)

    async def _of_session(self, req: Request, token: str) -> _ApiKey:
        """The key that the session was begun with, if it is valid still. Raises 401, and 403 for a foreign page."""
        session = await self.sessions.find(token)
        now_ms = self._clock.now_ms()
        for key in (*self._configured, *self._stored):
            valid = key.expires_ms is None or now_ms < key.expires_ms
            if session is not None and valid and Sessions.is_of(session, token, key.name, key.digest):
                if req.method not in SAFE_METHODS and not comes_from_this_page(req):
                    raise falcon.HTTPForbidden(
                        description="a cookie counts for changes only from the page of this node (Sec-Fetch-Site: "
                        "same-origin, or an equal Origin); programs send 'Authorization: Bearer <key>'"
                    )
                return key
        raise falcon.HTTPUnauthorized(
            description="the session has ended, or its key was revoked: sign in again", challenges=["Bearer"]
        )

    def _identify(self, req: Request, presented: bytes) -> _ApiKey:
        key = self._find([*self._configured, *self._stored], presented)
        if key is not None:
            return key
        if presented:
            _require_no_wait(
                self._failures.take(limit_name(client_address(req, self._trusted))),
                "too many wrong API keys from this address: wait `Retry-After` seconds, or send the right one",
            )
        raise falcon.HTTPUnauthorized(
            description="send a valid API key in the header 'Authorization: Bearer <key>'", challenges=["Bearer"]
        )

    def _find(self, keys: list[_ApiKey], presented: bytes) -> _ApiKey | None:
        """The matching key. Every key is compared, each in constant time."""
        match = None
        now_ms = self._clock.now_ms()
        for key in keys:
            if hmac.compare_digest(key.digest, presented) and (key.expires_ms is None or now_ms < key.expires_ms):
                match = key
        return match

    async def _refresh_stored(self) -> None:
        """Read the keys of the database. While it is unavailable, cached and configured keys stay valid."""
        now = self._clock.monotonic()
        if self._read_at is not None:
            if now - self._read_at < KEYS_CACHED_SECONDS:
                return
            # Concurrent requests use the cached keys. Before the first reading they all wait for it.
            self._read_at = now
        try:
            with within(READ_KEYS_SECONDS):
                stored = await api_keys.list_all(self._db)
        except StoreError:
            if self._read_at is None and not self._configured:
                raise
            return
        self._read_at = now
        now_ms = self._clock.now_ms()
        self._stored = [
            _ApiKey(k.digest, k.name, _SCOPES[k.scope], k.expires_ms, stored=True)
            for k in stored
            if k.is_active(now_ms)
        ]

    async def _record_use(self, key: _ApiKey) -> None:
        now = self._clock.monotonic()
        if now - self._use_recorded_at.get(key.name, -RECORD_USE_SECONDS) < RECORD_USE_SECONDS:
            return
        self._use_recorded_at[key.name] = now
        try:
            await api_keys.record_use(self._db, key.name, self._clock.now_ms())
        except StoreError as exc:
            log.warning("api_key_use_not_recorded", key=key.name, error=str(exc))


def _require_reading(req: Request) -> None:
    """Raises 403 for a change that a page of this origin asks for, under `HORAE_DASHBOARD=read`."""
    if _required_scope(req) is not Scope.READ and (comes_from_this_page(req) or presented_token(req) is not None):
        raise falcon.HTTPForbidden(
            description="HORAE_DASHBOARD is read: the page changes nothing; use a program with a key, or set it to full"
        )


def _require_no_wait(seconds: float, reason: str) -> None:
    if seconds > 0:
        raise falcon.HTTPTooManyRequests(description=reason, retry_after=max(1, -(-int(seconds * 1000) // 1000)))


def _require_host(req: Request) -> None:
    """Raises 400 for a `Host` that is no host with a port: what is asked of it later would fail."""
    try:
        _ = req.host, req.port
    except ValueError:
        raise falcon.HTTPBadRequest(description="the header Host must be a host, or a host and a port") from None


def _path_as_sent(req: Request) -> str:
    """The path before anything is decoded or cut off: a proxy compares this one when it keeps a path from strangers."""
    return bytes(req.scope.get("raw_path") or req.scope["path"].encode()).decode("latin-1")


def _port(req: Request) -> int | None:
    """The port of the listener that the request came to, as the kernel knows it."""
    server = req.scope.get("server")
    return None if server is None else server[1]


def _require_local(req: Request, trusted: Sequence[IPNetwork]) -> None:
    host = req.host
    origin: Any = req.get_header("Origin")
    # The peer's address counts too: when all keys of a reachable node are revoked, `Host: localhost` must not open it.
    if (
        not is_loopback(req.remote_addr)
        or not is_loopback(host.strip("[]"))
        or (origin is not None and not is_own_origin(req, origin))
    ):
        raise falcon.HTTPForbidden(
            description="this node has no API keys and accepts only direct requests to a loopback address: "
            "set HORAE_API_KEYS, or run `horae keys create`, to use it from elsewhere"
        )
    if came_from_elsewhere(req, trusted):
        raise falcon.HTTPForbidden(
            description="this node has no API keys, and this request came through a proxy (Forwarded, X-Forwarded-*, Via): "
            "set HORAE_API_KEYS, or run `horae keys create`; a proxy that serves this machine only can be named in "
            "HORAE_TRUSTED_PROXIES"
        )
