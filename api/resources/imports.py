"""`POST /jobs/import`: NDJSON of any length in bounded memory. Valid lines are stored, invalid ones are reported."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from api.http.off_loop import off_loop
from api.http.problems import faults_json
from api.http.requests import body_too_slow, check_content_type, read_chunks, split_lines, wait_for_chunk
from api.http.responses import send_json
from api.resources.jobs import Resource, checked_job_id
from cluster.core.actor import acting, current_actor
from cluster.core.audit_entry import new_entry
from cluster.core.documents import json_source, strict_json
from cluster.core.documents.job import BODY_LIMIT
from cluster.core.documents.job_json import read_job
from cluster.core.errors import CallerError, Fault, InvalidInput
from cluster.store import audit
from cluster.usecases.imports import ImportLine, import_chunk

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.core.audit_entry import AuditEntry
    from cluster.usecases.imports import ImportResult


TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CHUNK_LINES = 500
CHUNK_BYTES = 4 * 1024 * 1024
"""A chunk is written when it has this many lines or bytes, so that long lines do not fill the memory."""
MAX_ERRORS_SHOWN = 100
TURN_SECONDS = 0.005
"""After this time the event loop runs other tasks, so that an import does not delay executions."""


class ImportProgress:
    """The counts and errors of an import so far."""

    member = "imported"
    """Its name in a problem."""

    def __init__(self) -> None:
        self.created = self.updated = self.unchanged = self.failed = 0
        self.errors: list[dict[str, Any]] = []
        self.entry: AuditEntry | None = None
        """The entry of the audit log, once a job is about to be written."""

    def begin_entry(self, now_ms: int) -> AuditEntry:
        """The import is about to write its first job."""
        self.entry = new_entry(f"import:{uuid.uuid4().hex}", "import", now_ms)
        return self.entry

    def add_failed(self, number: int, job_id: Any, faults: tuple[Fault, ...]) -> None:
        """Count an invalid line, and list its errors unless `MAX_ERRORS_SHOWN` lines are listed already."""
        self.failed += 1
        if len(self.errors) < MAX_ERRORS_SHOWN:
            shown_id = job_id[:64] if isinstance(job_id, str) else None
            self.errors.append({"line": number, "jobId": shown_id, "errors": faults_json(faults[:20])})

    def add_written(self, done: ImportResult) -> None:
        """Count the lines of one chunk that was written."""
        self.created += done.created
        self.updated += done.updated
        self.unchanged += done.unchanged
        for line, exc in done.refused:
            self.add_failed(line.number, line.job_id, exc.faults)

    def to_json(self) -> dict[str, Any]:
        """The response."""
        return {
            "created": self.created,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "errors": sorted(self.errors, key=lambda e: int(e["line"])),
            "errorsNotShown": self.failed - len(self.errors),
        }


class Import(Resource):
    """`/jobs/import`."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """Create or replace one job per line."""
        check_content_type(req, TYPES)
        progress = req.context.progress = ImportProgress()
        try:
            async with asyncio.timeout(None) as patience:
                await self._import(req, progress, patience)
        except TimeoutError:
            raise body_too_slow() from None
        await self._note(progress, finished=True)
        send_json(resp, progress.to_json())

    async def _note(self, progress: ImportProgress, *, finished: bool) -> None:
        """Write the one entry of this import, with its counts so far.

        It is there before the first job is written: of an import that breaks off it says that, and the counts up to the
        last chunk but one. An import that changed nothing has none.
        """
        entry = progress.entry
        if entry is None:
            if finished:
                return
            entry = progress.begin_entry(self.clock.now_ms())
        if finished and not progress.created + progress.updated:
            await audit.forget(self.db, entry.id)
            return
        names = ("created", "updated", "unchanged", "failed")
        counts = {**{name: getattr(progress, name) for name in names}, "finished": finished}
        await audit.record(self.db, replace(entry, counts=counts))

    async def _import(self, req: Request, progress: ImportProgress, patience: asyncio.Timeout) -> None:
        chunk: dict[str, ImportLine] = {}
        number = size = 0
        turn_ends = self.clock.monotonic() + TURN_SECONDS
        async for raw in split_lines(read_chunks(req.stream, patience)):
            number += 1
            if self.clock.monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = self.clock.monotonic() + TURN_SECONDS
            if raw is not None and not raw.strip():
                continue
            line = await off_loop(len(raw or b""), self._read, number, raw, progress)
            if line is None:
                continue
            # A job that occurs twice is written twice, in the order of the lines.
            if len(chunk) == CHUNK_LINES or size > CHUNK_BYTES or line.job_id in chunk:
                await self._write(chunk, progress, patience)
                size = 0
            size += len(raw or b"")
            chunk[line.job_id or f":{number}"] = line
        await self._write(chunk, progress, patience)

    def _read(self, number: int, raw: bytes | None, progress: ImportProgress) -> ImportLine | None:
        job_id: Any = None
        try:
            if raw is None:
                raise InvalidInput([Fault("", f"the line must not exceed {BODY_LIMIT} bytes")])
            value = strict_json.loads(raw)
            if not isinstance(value, dict):
                raise InvalidInput([Fault("", "must be a JSON object")])
            value = json_source.keep_body(raw, value)
            faults: list[Fault] = []
            if "jobId" in value:
                job_id = value.pop("jobId")
                try:
                    checked_job_id(job_id)
                except InvalidInput as exc:
                    faults.extend(exc.faults)
            try:
                wanted = read_job(value, self.validation_context)
            except InvalidInput as exc:
                raise InvalidInput([*faults, *exc.faults]) from exc
            if faults:
                raise InvalidInput(faults)
        except InvalidInput as exc:
            progress.add_failed(number, job_id, exc.faults)
        except CallerError as exc:
            progress.add_failed(number, job_id, (Fault("", str(exc)),))
        else:
            return ImportLine(number, job_id, wanted)
        return None

    async def _write(self, chunk: dict[str, ImportLine], progress: ImportProgress, patience: asyncio.Timeout) -> None:
        if not chunk:
            return
        patience.reschedule(None)  # the caller is not to blame for a slow database
        await self._note(progress, finished=False)
        entry = progress.entry
        with acting(replace(current_actor(), within=None if entry is None else entry.object)):
            done = await import_chunk(self.db, list(chunk.values()), self.clock.now_ms())
        wait_for_chunk(patience)
        progress.add_written(done)
        chunk.clear()
