"""`/session`: changes an API key into a cookie for a browser, says whose it is, and ends it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import falcon

from api.http.context import Scope
from api.http.requests import read_object
from api.http.responses import send_json
from api.http.sessions import (
    comes_from_this_page,
    cookie_name,
    is_confidential,
    presented_token,
)
from cluster.core.errors import Fault, InvalidInput

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.auth import ApiKeyAuth
    from api.http.context import Services


class Session:
    """`/session`."""

    def __init__(self, services: Services, auth: ApiKeyAuth) -> None:
        self._clock = services.clock
        self._dashboard = services.settings.dashboard
        self._auth = auth
        self._trusted = services.settings.trusted_proxies

    async def on_get(self, req: Request, resp: Response) -> None:
        """Who the caller is and what it may do: the page shows buttons accordingly."""
        name = getattr(req.context, "key_name", None)
        scope = getattr(req.context, "key_scope", Scope.ADMIN)
        send_json(
            resp,
            {
                "keyName": name,
                "scope": scope.name.lower(),
                "dashboard": self._dashboard,
                "byCookie": getattr(req.context, "by_cookie", False),
                "version": version("horae"),
            },
        )

    async def on_post(self, req: Request, resp: Response) -> None:
        """A session. Raises 401 for an unknown key, 403 where the cookie could be read on its way."""
        if (req.get_header("Sec-Fetch-Site") or req.get_header("Origin")) and not comes_from_this_page(req):
            raise falcon.HTTPForbidden(description="a session can be begun by the page of this node only")
        if not is_confidential(req, self._trusted):
            raise falcon.HTTPForbidden(
                description="a session over plain http beyond loopback could be read on its way: use https, or open the page "
                "on 127.0.0.1 (for example through `ssh -L`)"
            )
        content = await read_object(req)
        faults = [Fault(name[:64], "is unknown") for name in content if name != "key"]
        key = content.get("key")
        if not isinstance(key, str) or not 1 <= len(key) <= 1000:
            faults.append(Fault("key", "must be an API key, as text"))
        if faults:
            raise InvalidInput(faults)
        token, expires_ms = await self._auth.begin_session(req, str(key))
        resp.status = 204
        _set_cookie(req, resp, token, max(1, (expires_ms - self._clock.now_ms()) // 1000))

    async def on_delete(self, req: Request, resp: Response) -> None:
        """The end of the session, on every node within two seconds."""
        token = presented_token(req)
        if token is not None:
            await self._auth.sessions.end(token)
        resp.status = 204
        _set_cookie(req, resp, "", 0)


def _set_cookie(req: Request, resp: Response, value: str, seconds: int) -> None:
    resp.append_header(
        "Set-Cookie",
        f"{cookie_name(req)}={value}; Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=Strict",
    )
