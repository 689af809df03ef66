"""Runs `horae verify` as a process of its own, with a low priority, and returns its report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import orjson

from cluster.core.instants import format_instant
from cluster.usecases.verifications import VerificationFailed

if TYPE_CHECKING:
    from cluster.store.verifications import Verification
    from config.settings import Settings

NICENESS = 10


class VerifyProcess:
    """Verifies the database of one node."""

    def __init__(self, settings: Settings, mongodb_uri: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if k not in ("MONGODB_URI_FILE", "DB_NAME_FILE")}
        self._environment = inherited | {
            "MONGODB_URI": mongodb_uri,
            "DB_NAME": settings.db_name,
            "HORAE_RETENTION_DAYS": str(settings.retention_days),
            "HORAE_BATCH_LEASE_SECONDS": str(settings.batch_lease_seconds),
        }

    async def run(self, v: Verification) -> dict[str, Any]:
        """The report. Raises `VerificationFailed`."""
        arguments = ["--json", "--since", format_instant(v.since_ms), "--late", str(v.late_seconds)]
        if v.until_ms is not None:
            arguments += ["--until", format_instant(v.until_ms)]
        if v.job_id is not None:
            arguments += ["--job", v.job_id]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ops",
            "verify",
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        with contextlib.suppress(OSError):  # it ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        try:
            printed, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode not in (0, 1):
            last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise VerificationFailed(last[:300] or f"the process ended with status {process.returncode}")
        try:
            report = orjson.loads(printed)
        except orjson.JSONDecodeError as exc:
            raise VerificationFailed(errors.decode("utf-8", "replace").strip()[:300] or "it printed no report") from exc
        return dict(report)
