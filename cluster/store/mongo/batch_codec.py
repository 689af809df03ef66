"""Batches to documents and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Batch

if TYPE_CHECKING:
    from cluster.store.mongo.client import Document


def batch_to_document(b: Batch) -> Document:
    """As stored in `batches`."""
    return {
        "_id": b.id,
        "ids": list(b.ids),
        "lane": b.lane,
        "attempt": b.attempt,
        "send_at": DatetimeMS(b.send_ms),
        "claimable_at": DatetimeMS(b.claimable_ms),
        "late": b.late,
        "owner": b.owner,
        "token": b.token,
        "claims": b.claims,
        "claimed_at": None,
        "host": b.host,
        **({} if b.limit_key is None else {"gate": b.limit_key}),
        **({"held": True} if b.deferred else {}),
        **({} if b.unclaimed is None else {"unclaimed": b.unclaimed}),
    }


def batch_from_document(d: Document) -> Batch:
    """The inverse of `batch_to_document`, but for `deferred`, which is never read."""
    return Batch(
        id=d["_id"],
        ids=tuple(d["ids"]),
        lane=d["lane"],
        attempt=d["attempt"],
        send_ms=int(d["send_at"]),
        claimable_ms=int(d["claimable_at"]),
        late=d["late"],
        owner=d["owner"],
        token=d["token"],
        claims=d["claims"],
        host=d.get("host", ""),
        limit_key=d.get("gate"),
        unclaimed=d.get("unclaimed"),
    )
