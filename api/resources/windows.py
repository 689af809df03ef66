"""`/windows`: times in which executions of some jobs are held or skipped, or their alerts muted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.http.requests import QueryParameters, read_object
from api.http.responses import send_json
from api.resources.calendars import require_migrated
from api.resources.jobs import Resource
from cluster.core.documents.calendar import check_calendar_name
from cluster.core.documents.window import read_window, window_json
from cluster.core.errors import NotFound
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store import paused_batches, windows

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.store.windows import StoredWindow


class Windows(Resource):
    """`/windows`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """All windows, by name."""
        QueryParameters(req, ()).raise_faults()
        now_ms = self.clock.now_ms()
        send_json(resp, {"items": [_window_json(w, now_ms) for w in await windows.list_all(self.db)]})


class Window(Resource):
    """`/windows/{name}`."""

    async def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """One window, and until when it is in force."""
        send_json(resp, _window_json(await self._found(name), self.clock.now_ms()))

    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """Create or replace the window. It is in force on all nodes within two seconds."""
        checked = check_calendar_name(name)
        window = read_window(await read_object(req), checked)
        await require_migrated(self)
        created = await windows.put(self.db, window, self.clock.now_ms())
        if created:
            resp.set_header("Location", f"/windows/{checked}")
        else:
            await paused_batches.wake_held(self.db)
        send_json(resp, _window_json(await self._found(checked), self.clock.now_ms()), 201 if created else 200)

    async def on_delete(self, _req: Request, resp: Response, name: str) -> None:
        """Delete the window. What it holds goes on."""
        if not await windows.delete(self.db, name, self.clock.now_ms()):
            raise NotFound(f"there is no window '{name[:64]}'")
        await paused_batches.wake_held(self.db)
        resp.status = 204

    async def _found(self, name: str) -> StoredWindow:
        window = await windows.get(self.db, name)
        if window is None:
            raise NotFound(f"there is no window '{name[:64]}'")
        return window


def _window_json(stored: StoredWindow, now_ms: int) -> dict[str, Any]:
    span = stored.window.span_at(now_ms)
    return {
        "name": stored.window.name,
        **window_json(stored.window),
        "inForceUntil": format_optional_instant(None if span is None else span.to_ms),
        "updatedAt": format_instant(stored.updated_ms),
    }
