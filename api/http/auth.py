"""Who may ask: keys as `Authorization: Bearer <key>`, scopes, limits, and what is checked when there are no keys.

Keys come from the settings or from the database (`horae keys create`). Without any the node listens on loopback alone;
then a web page in a browser on this machine must not get to use it, so a foreign `Origin` or a `Host` that is not
loopback is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import falcon
import structlog

from api.http.context import Scope
from api.http.rate_limit import MAX_BUCKETS, TokenBuckets
from cluster.core.errors import StoreError
from cluster.store import api_keys
from cluster.store.mongo.deadlines import within
from config.settings import is_loopback

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services

log = structlog.get_logger()

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/page.js", "/docs/page.css"})
READ_ONLY_POSTS = frozenset({"/schedules/preview"})
KEYS_CACHED_SECONDS = 2.0
"""A key made or revoked is known to every node after so long."""
READ_KEYS_SECONDS = 2.0
RECORD_USE_SECONDS = 60.0
FAILURE_BURST, FAILURES_PER_SECOND = 10, 0.2
_SCOPES = {"read": Scope.READ, "write": Scope.WRITE, "admin": Scope.ADMIN}


def key_digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _needed(req: Request) -> Scope:
    return Scope.READ if req.method in ("GET", "HEAD", "OPTIONS") or req.path in READ_ONLY_POSTS else Scope.WRITE


def _offered(req: Request) -> bytes:
    scheme, _, presented = (req.get_header("Authorization") or "").partition(" ")
    return key_digest(presented.strip()) if scheme.lower() == "bearer" and presented.strip() else b""


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    name: str
    scope: Scope
    expires_ms: int | None = None
    stored: bool = False


class ApiKeyAuth:
    """Falcon middleware."""

    def __init__(self, services: Services) -> None:
        self._db = services.db
        self._clock = services.clock
        settings = services.settings
        self._open = OPEN_PATHS | {"/metrics"} if settings.metrics_open else OPEN_PATHS
        self._own = [_Known(key_digest(k.key.get_secret_value()), k.name, _SCOPES[k.scope]) for k in settings.keys]
        self._stored: list[_Known] = []
        self._read_at: float | None = None
        self._noted: dict[str, float] = {}
        monotonic = services.clock.monotonic
        self._failures = TokenBuckets(FAILURES_PER_SECOND, FAILURE_BURST, monotonic)
        self._good: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        rate = settings.requests_per_second
        self._requests = TokenBuckets(rate, max(1.0, 2 * rate), monotonic) if rate else None

    async def process_request(self, req: Request, _resp: Response) -> None:
        """Raises 401 without a key that is known, 403 beyond its scope, 429 beyond its rate or after many failures."""
        if req.path in self._open:
            return
        offered = _offered(req)
        if self._find(self._own, offered) is None:
            await self._read()
        if not self._own and not self._stored:
            _only_this_machine(req)
            return
        known = self._identify(req.remote_addr, offered)
        req.context.key_name = known.name
        if known.scope < _needed(req):
            raise falcon.HTTPForbidden(
                description=f"the key '{known.name}' has scope {known.scope.name.lower()}; "
                f"this needs {_needed(req).name.lower()}"
            )
        if self._requests is not None:
            _refuse_for(self._requests.take(known.name), "this key has used up its requests; slow down")
        if known.stored:
            await self._note(known)

    def _identify(self, address: str, offered: bytes) -> _Known:
        if offered and (address, offered) not in self._good:
            # Who has guessed too often is not even told whether this one was right.
            _refuse_for(self._failures.seconds_until_token(address), "too many wrong keys came from this address")
        found = self._find([*self._own, *self._stored], offered)
        if found is None:
            self._good.pop((address, offered), None)
            if offered:
                self._failures.take(address)
            raise falcon.HTTPUnauthorized(
                description="send a key that is known as 'Authorization: Bearer <key>'", challenges=["Bearer"]
            )
        self._good[address, offered] = None
        if len(self._good) > MAX_BUCKETS:
            self._good.popitem(last=False)
        return found

    def _find(self, among: list[_Known], offered: bytes) -> _Known | None:
        """The key. Every one is compared, each in constant time."""
        found = None
        now_ms = self._clock.now_ms()
        for known in among:
            if hmac.compare_digest(known.digest, offered) and (known.expires_ms is None or now_ms < known.expires_ms):
                found = known
        return found

    async def _read(self) -> None:
        """Learn which keys the database knows. While it is away, those known before and those of the settings serve."""
        now = self._clock.monotonic()
        if self._read_at is not None:
            if now - self._read_at < KEYS_CACHED_SECONDS:
                return
            self._read_at = now  # others go on with what is known; before the first reading everybody waits for it
        try:
            with within(READ_KEYS_SECONDS):
                found = await api_keys.list_all(self._db)
        except StoreError:
            if self._read_at is None and not self._own:
                raise
            return
        self._read_at = now
        now_ms = self._clock.now_ms()
        self._stored = [
            _Known(k.digest, k.name, _SCOPES[k.scope], k.expires_ms, stored=True) for k in found if k.is_active(now_ms)
        ]

    async def _note(self, known: _Known) -> None:
        now = self._clock.monotonic()
        if now - self._noted.get(known.name, -RECORD_USE_SECONDS) < RECORD_USE_SECONDS:
            return
        self._noted[known.name] = now
        try:
            await api_keys.record_use(self._db, known.name, self._clock.now_ms())
        except StoreError as exc:
            log.warning("api_key_use_not_recorded", key=known.name, error=str(exc))


def _refuse_for(seconds: float, why: str) -> None:
    if seconds > 0:
        raise falcon.HTTPTooManyRequests(description=why, retry_after=max(1, -(-int(seconds * 1000) // 1000)))


def _only_this_machine(req: Request) -> None:
    host = req.host
    origin: Any = req.get_header("Origin")
    # The peer's address too: were every key revoked, a node that others reach must not open to whoever says localhost.
    if (
        not is_loopback(req.remote_addr)
        or not is_loopback(host.strip("[]"))
        or (origin is not None and urlsplit(origin).netloc != req.netloc)
    ):
        raise falcon.HTTPForbidden(
            description="this node has no API keys and answers only direct requests to a loopback address; "
            "make keys (HORAE_API_KEYS, `horae keys create`) to use it from elsewhere"
        )
