"""`/audit`: who did what to which object."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from api.http import cursors
from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.audit_entry import KINDS
from cluster.core.errors import Fault, InvalidInput
from cluster.core.instants import format_instant
from cluster.store import audit, audited
from cluster.store.audit import AuditQuery

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.core.actor import Actor
    from cluster.core.audit_entry import AuditEntry

DEFAULT_PAGE, MAX_PAGE = 50, 500
_OBJECT = re.compile(rf"({'|'.join(KINDS)}):\S.{{0,299}}\Z")
_ENTRY = re.compile(r"\d{13}-[!-~]{1,200}\Z", re.ASCII)


def actor_json(a: Actor) -> dict[str, Any]:
    """Who acts: the name of the key, the address, and the way."""
    return {"key": a.key, "address": a.address, "via": a.via, "command": a.command}


def _entry_json(e: AuditEntry) -> dict[str, Any]:
    return {
        "id": e.id,
        "at": format_instant(e.at_ms),
        "object": e.object,
        "action": e.action,
        "by": actor_json(e.by),
        "revision": e.revision,
        "changes": list(e.changes),
        "counts": e.counts,
        "detail": e.detail,
    }


class Audit(Resource):
    """`/audit`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Entries, the latest first."""
        q = QueryParameters(req, ("object", "key", "since", "until", "limit", "cursor"))
        about, key = q.text("object", 320), q.text("key", 64)
        since, until = q.instant("since"), q.instant("until")
        limit, cursor = q.number("limit", DEFAULT_PAGE, MAX_PAGE), q.text("cursor", 400)
        if about is not None and not _OBJECT.match(about):
            message = f"must be KIND:NAME, such as job:nightly; the kinds are {', '.join(KINDS)}"
            q.faults.append(Fault("object", message))
        q.raise_faults()
        after = None if cursor is None else cursors.decode(cursor, (str,))[0]
        if after is not None and not _ENTRY.match(after):
            raise InvalidInput(
                [Fault("cursor", "is not a cursor of this API; leave it out to start at the first page")]
            )
        # What documents still carry is copied first, so that the log is complete: also while no node leads.
        await audited.flush_all(self.db)
        query = AuditQuery(limit=limit + 1, object=about, key=key, since_ms=since, until_ms=until, after=after)
        found = await audit.page(self.db, query)
        following = cursors.encode(found[limit - 1].id) if len(found) > limit else None
        send_json(resp, {"items": [_entry_json(e) for e in found[:limit]], "nextCursor": following})
