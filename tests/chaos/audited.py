"""The second opinion at the end of a run: what `horae verify` finds in the database, whatever the receiver saw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.store.client import Database
from ops.verify import Scope, verify

if TYPE_CHECKING:
    from cluster.core.findings import Finding
    from ops.verify import Report


def audited(uri: str, name: str, since_ms: int, late_seconds: float) -> Report:
    """The auditor's report on everything due since then."""

    async def once() -> Report:
        db = Database.open(uri, name, "audit")
        try:
            return await verify(db, Scope(since_ms, late_seconds=late_seconds))
        finally:
            await db.close()

    return asyncio.run(once())


def wrong(report: Report, *, late: bool = False) -> list[Finding]:
    """Its findings but second deliveries, which the checker judges; `late`: and but what was sent late."""
    return [f for f in report.findings if f.kind != "redelivered" and not (late and _sent_late(f))]


def _sent_late(finding: Finding) -> bool:
    return finding.kind == "late" and "sent it" in finding.text
