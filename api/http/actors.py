"""Who sends a request, for the audit log and the revisions of jobs: the key, the address, a command or the page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from api.http.addresses import client_address
from cluster.core.actor import Actor, set_actor

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services

_COMMAND = re.compile(r"Horae-CLI/[\w.+-]{1,40}(?: \(([a-z][a-z -]{0,60})\))?\Z", re.ASCII)


class Actors:
    """Falcon middleware behind the one that checks keys: sets who acts for the rest of the request.

    What a client says about itself is no proof: it may call itself a command. Key and address are what this node saw.
    """

    def __init__(self, services: Services) -> None:
        self._trusted = services.settings.trusted_proxies

    async def process_request(self, req: Request, _resp: Response) -> None:
        """Never refuses."""
        if req.method in ("GET", "HEAD", "OPTIONS"):
            return
        key: str | None = getattr(req.context, "key_name", None)
        command = _COMMAND.match(req.get_header("User-Agent") or "")
        via = "page" if _is_page(req) else "api" if command is None else "command"
        set_actor(Actor(via, key, client_address(req, self._trusted), command[1] if command else None))


def _is_page(req: Request) -> bool:
    """Whether the page of this node sent it: with a session, or from its own origin, which only browsers say."""
    return getattr(req.context, "by_cookie", False) or req.get_header("Sec-Fetch-Site") == "same-origin"
