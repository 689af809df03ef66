"""`Idempotency-Key`: a repeated request gets the response of the first one, and its work is done once.

A refused request has changed nothing, so its key becomes free. If the outcome of a request is unknown, the next request
with the same key takes it over at once and does the work under the same name.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from api.http.off_loop import off_loop
from api.http.requests import body_size
from cluster.core.documents.json_source import canonical
from cluster.core.errors import CallerError, Fault, InvalidInput, StoreError
from cluster.store import idempotency
from cluster.store.idempotency import Reservation, StoredResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from falcon.asgi import Request, Response

    from api.http.context import Services

_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?\Z")
IDEMPOTENCY_HEADER = "Idempotency-Key"


def idempotency_key(req: Request) -> str | None:
    """The key of this request, or None. Raises `InvalidInput` for one that no request may have.

    A dry run asks for it too: it does no work, so no response is stored for it, but a key that is wrong is wrong there as well.
    """
    key: str | None = req.get_header(IDEMPOTENCY_HEADER)
    if key is not None and not _KEY.match(key):
        raise InvalidInput(
            [Fault(IDEMPOTENCY_HEADER, "must have 1 to 255 printable ASCII characters, without a blank at either end")]
        )
    return key


async def run_once(
    services: Services,
    req: Request,
    payload: Any,
    name: str,
    work: Callable[[Reservation | None], Awaitable[StoredResponse]],
) -> tuple[StoredResponse, bool]:
    """The response of `work`, or the stored one of an earlier request; and whether it is a stored one.

    `name` identifies what the first request creates. `work` receives it, or the name of the request it takes over.
    """
    client_key = idempotency_key(req)
    if client_key is None:
        return await work(None), False
    api_key = getattr(req.context, "key_name", "")
    key = _digest(api_key, req.method, req.path, client_key)
    content = await off_loop(body_size(req), canonical, payload)
    reservation = await idempotency.reserve(services.db, key, _digest(content.decode()), name, services.clock.now_ms())
    if isinstance(reservation, StoredResponse):
        return reservation, True
    try:
        response = await work(reservation)
    except CallerError:
        await idempotency.release(services.db, reservation)
        raise
    except StoreError:
        await idempotency.abandon(services.db, reservation)
        raise
    await idempotency.store_response(services.db, reservation, response)
    return response, False


def send_stored(resp: Response, stored: StoredResponse, *, replayed: bool) -> None:
    """Send a response that may be a stored one."""
    resp.status = stored.status
    resp.content_type = "application/json"
    resp.data = stored.body
    for header, value in stored.headers:
        resp.set_header(header, value)
    if replayed:
        resp.set_header("Idempotent-Replayed", "true")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
