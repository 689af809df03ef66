"""Messages written directly, as the intake of a node writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.core.ids import lane_of
from cluster.core.job.definition import Definition
from cluster.core.job.message import NewMessage
from cluster.usecases.messages import Accepted, accept, new_execution_id

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

HOST = "127.0.0.1:1"
LOOKAHEAD_MS = 15_000


def message(due_ms: int, now_ms: int, **fields: Any) -> NewMessage:
    own = {name: fields.pop(name) for name in ("dedup_id", "digest", "expires_ms") if name in fields}
    definition = Definition(schedule="", url=f"http://{HOST}/x", lane=lane_of(HOST), host=HOST, **fields)
    return NewMessage(definition=definition, due_ms=due_ms, created_ms=now_ms, **own)


async def send(db: Database, now_ms: int, *dues: int, **fields: Any) -> list[str]:
    """Accept messages that are due then (ms). Their execution ids."""
    wanted = [message(due, now_ms, **fields) for due in dues]
    results = await accept(db, [(m, new_execution_id(m)) for m in wanted], now_ms, LOOKAHEAD_MS)
    assert all(isinstance(r, Accepted) for r in results)
    return [r.execution_id for r in results if isinstance(r, Accepted)]
