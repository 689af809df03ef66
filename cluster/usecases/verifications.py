"""Runs of verify in the background of one node: one at a time in the cluster, each with its report kept.

To verify takes seconds to minutes of computing, which must not take turns with requests that are due. So the node starts
a process for it, which `Runner` stands for.
"""

from __future__ import annotations

import asyncio
import secrets
from contextvars import Context
from typing import TYPE_CHECKING, Any

import structlog

from cluster.core.errors import Conflict, HoraeError, StoreError
from cluster.store import verifications
from cluster.store.verifications import Verification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.clock import Clock
    from cluster.store.mongo.client import Database

    Runner = Callable[[Verification], Awaitable[dict[str, Any]]]

log = structlog.get_logger()

NOTE_SECONDS = 10.0
MOST_SECONDS = 3600.0
KEPT_FINDINGS = 200
"""Of the findings of a report so many are kept, the gravest first; its counts are those of all."""
LATEST = 50


class VerificationFailed(HoraeError):
    """The process that verifies ended without a report. The message says why."""


class Verifications:
    """The runs of one node. `run` verifies, and returns the report as `horae verify --json` prints it."""

    def __init__(self, db: Database, clock: Clock, node: str, run: Runner) -> None:
        self._db = db
        self._clock = clock
        self._node = node
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, since_ms: int, until_ms: int | None, job_id: str | None, late_seconds: float) -> Verification:
        """Begin a run in the background. Raises `Conflict` while there is one."""
        now_ms = self._clock.now_ms()
        for other in await verifications.latest(self._db, LATEST):
            if other.state == verifications.RUNNING and not other.is_lost(now_ms):
                raise Conflict(f"verification {other.id} is running on {other.node}: wait for its end")
        made = Verification(
            id=f"v-{now_ms}-{secrets.token_hex(3)}",
            node=self._node,
            asked_ms=now_ms,
            seen_ms=now_ms,
            since_ms=since_ms,
            until_ms=until_ms,
            job_id=job_id,
            late_seconds=late_seconds,
        )
        await verifications.begin(self._db, made)
        # Not in the context of the request, whose deadline all its operations on the database would inherit.
        task = asyncio.get_running_loop().create_task(self._to_its_end(made), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return made

    async def close(self) -> None:
        """End the runs of this node; they fail with that reason."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _to_its_end(self, v: Verification) -> None:
        noting = asyncio.get_running_loop().create_task(self._note(v))
        report, error = None, None
        try:
            async with asyncio.timeout(MOST_SECONDS):
                report = bounded(await self._run(v))
        except TimeoutError:
            error = f"it took more than {MOST_SECONDS:.0f} s: choose a shorter time, or one job"
        except HoraeError as exc:
            error = str(exc)[:500]
        except asyncio.CancelledError:
            error = "its node stopped"
            raise
        except Exception:
            error = "an internal error; the log of the node has it"
            log.exception("verification_failed", verification=v.id)
        finally:
            noting.cancel()
            try:
                await verifications.end(self._db, v.id, self._clock.now_ms(), report, error)
            except StoreError as exc:  # it shows as lost after a minute
                log.warning("verification_not_stored", verification=v.id, error=str(exc))

    async def _note(self, v: Verification) -> None:
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            try:
                await verifications.note(self._db, v.id, self._clock.now_ms())
            except StoreError:
                continue


def bounded(report: dict[str, Any]) -> dict[str, Any]:
    """The report with the findings that are kept, and how many of those that it listed are left out."""
    findings = report.get("findings", [])
    return report | {
        "findings": findings[:KEPT_FINDINGS],
        "findingsLeftOut": max(0, len(findings) - KEPT_FINDINGS),
    }
