"""The second opinion at the end of a run: the findings of `horae verify`, which knows nothing of the receiver."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from cluster.core.verify.findings import KINDS, Finding
from cluster.store.mongo.client import Database
from cluster.usecases.verify import Scope, verify

if TYPE_CHECKING:
    from cluster.usecases.verify import VerifyReport


def verify_report(uri: str, name: str, since_ms: int, late_seconds: float) -> VerifyReport:
    """The report on everything due since then."""

    async def once() -> VerifyReport:
        db = Database.open(uri, name, "audit")
        try:
            return await verify(db, Scope(since_ms, late_seconds=late_seconds, max_findings=1_000_000))
        finally:
            await db.close()

    return asyncio.run(once())


def wrong_findings(report: VerifyReport, *, late: bool = False) -> list[Finding]:
    """The findings that are violations: all but second deliveries after a lease ended by itself (none was released by hand).

    `late`: without findings of lateness, which the checker judges, as it does the other second deliveries. Findings that
    were counted and not kept are violations in any case.
    """
    kept = Counter(f.kind for f in report.findings)
    untold = [
        Finding(k, "", "", f"{report.counts.findings[k] - kept[k]} more were counted than are kept")
        for k in KINDS
        if report.counts.findings[k] > kept[k]
    ]
    return [*(f for f in report.findings if not _explained(f) and not (late and _sent_late(f))), *untold]


def _explained(finding: Finding) -> bool:
    return finding.kind == "redelivered" and "sooner than a lease ends" not in finding.text


def _sent_late(finding: Finding) -> bool:
    return finding.kind == "late" and "sent it" in finding.text
