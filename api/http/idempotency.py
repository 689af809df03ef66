"""`Idempotency-Key`: the same request again is answered as the first was, and done once.

A refused request has done nothing, so its key is free again. What is not known to be done may be taken over at once by
the next request with the key, which does it under the same name.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import orjson

from cluster.core.errors import CallerError, Fault, InvalidInput, StoreError
from cluster.store import idempotency
from cluster.store.idempotency import Reservation, StoredResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from falcon.asgi import Request, Response

    from api.http.context import Services

_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?\Z")
IDEMPOTENCY_HEADER = "Idempotency-Key"


async def run_once(
    services: Services,
    req: Request,
    payload: Any,
    name: str,
    work: Callable[[Reservation | None], Awaitable[StoredResponse]],
) -> tuple[StoredResponse, bool]:
    """The answer of `work`, or the one that was given before; and whether it was given before.

    `name` is what a first request will do its work under; `work` gets it back, or the one of the request before.
    """
    given = req.get_header(IDEMPOTENCY_HEADER)
    if given is None:
        return await work(None), False
    if not _KEY.match(given):
        raise InvalidInput([Fault(IDEMPOTENCY_HEADER, "must have 1 to 255 printable ASCII characters")])
    who = getattr(req.context, "key_name", "")
    key = _digest(who, req.method, req.path, given)
    begun = await idempotency.reserve(services.db, key, _digest(_canonical(payload)), name, services.clock.now_ms())
    if isinstance(begun, StoredResponse):
        return begun, True
    try:
        answer = await work(begun)
    except CallerError:
        await idempotency.release(services.db, begun)
        raise
    except StoreError:
        await idempotency.abandon(services.db, begun)
        raise
    await idempotency.store_response(services.db, begun, answer)
    return answer, False


def send_stored(resp: Response, answer: StoredResponse, *, replayed: bool) -> None:
    """Send it."""
    resp.status = answer.status
    resp.content_type = "application/json"
    resp.data = answer.body
    for header, value in answer.headers:
        resp.set_header(header, value)
    if replayed:
        resp.set_header("Idempotent-Replayed", "true")


def _canonical(payload: Any) -> str:
    return orjson.dumps(payload, option=orjson.OPT_SORT_KEYS).decode()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
