"""`GET /messages`: the messages that have not ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.http import cursors
from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources.messages import Messages
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store.queries import message_pages
from cluster.store.queries.message_pages import MessagePlace

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.store.queries.message_states import MessageView

DEFAULT_PAGE, MAX_PAGE = 50, 500


class ListedMessages(Messages):
    """`/messages`, with its list."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Those that are being sent, in the order of their acceptance; then those that wait, due first."""
        q = QueryParameters(req, ("limit", "cursor"))
        limit, cursor = q.number("limit", DEFAULT_PAGE, MAX_PAGE), q.text("cursor", 400)
        q.raise_faults()
        after = None
        if cursor is not None:
            waits, due_ms, name = cursors.decode(cursor, (int, int, str))
            after = MessagePlace(waits == 1, due_ms, name)
        page, place = await message_pages.page(self.db, limit, self.clock.now_ms(), after)
        next_page = None if place is None else cursors.encode(int(place.waits), place.due_ms, place.id)
        send_json(resp, {"items": [listed_json(view) for view in page], "nextCursor": next_page})


def listed_json(view: MessageView) -> dict[str, Any]:
    """A message in a list: no secret, no body, no attempts."""
    e = view.execution
    request = view.request or {}
    last = e.attempts[-1] if e.attempts else None
    return {
        "messageId": e.job_id,
        "executionId": e.id,
        "state": e.state,
        "waiting": view.waits,
        "dueAt": format_instant(e.due_ms),
        "sendAt": format_instant(e.send_ms),
        "attempt": len(e.attempts) + e.attempts_left_out,
        "status": None if last is None else last.status,
        "error": None if last is None else last.error,
        "api": request.get("url"),
        "tags": list(request.get("tags", ())),
        "queue": request.get("queue"),
        "createdAt": format_optional_instant(_ms(request.get("created_at"))),
        "expiresAt": format_optional_instant(_ms(request.get("expires_at"))),
    }


def _ms(stored: Any) -> int | None:
    return None if stored is None else int(stored)
