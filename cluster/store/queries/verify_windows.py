"""The maintenance windows as `horae verify` needs them, with what they were before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.verify.windows import WindowRule
from cluster.store import windows

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def rules(db: Database) -> list[WindowRule]:
    """Every window, each with the time in which it was so; deleted ones too."""
    return [
        WindowRule(
            mode=p.window.mode,
            tags=frozenset(p.window.tags),
            hosts=frozenset(p.window.hosts),
            queues=frozenset(p.window.queues),
            schedule=p.window.schedule,
            timezone=p.window.timezone,
            lasts_ms=p.window.lasts_ms,
            from_ms=p.window.from_ms or 0,
            until_ms=p.window.until_ms or 0,
            spread_ms=p.window.spread_ms,
            valid_from_ms=p.from_ms,
            valid_to_ms=p.to_ms,
        )
        for p in await windows.periods(db, 0)
    ]
