"""`POST /jobs/import`: NDJSON of any length in bounded memory. Valid lines are stored, invalid ones are reported."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field, replace
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
from cluster.core.errors import CallerError, Fault, InvalidInput, ParentMissing
from cluster.store import audit
from cluster.usecases.imports import ImportLine, import_chunk, others_first

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.core.audit_entry import AuditEntry
    from cluster.usecases.imports import ImportResult


TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CHUNK_LINES = 500
CHUNK_BYTES = 4 * 1024 * 1024
"""A chunk is written when it has this many lines or bytes, so that long lines do not fill the memory."""
WAITING_LINES = 10_000
WAITING_BYTES = 8 * 1024 * 1024
"""So many jobs may wait for the ones that they run after, which may come in a later chunk: an export is ordered by id."""
MAX_ERRORS_SHOWN = 100
TURN_SECONDS = 0.005
"""After this time the event loop runs other tasks, so that an import does not delay executions."""


class WaitingLines:
    """Lines that were refused because the job that they run after does not exist. They are written after the last chunk."""

    def __init__(self) -> None:
        self._refused: dict[str, tuple[ImportLine, InvalidInput]] = {}
        self.size = 0
        self._over = False

    def keep(self, line: ImportLine, exc: InvalidInput) -> bool:
        """Whether the line is kept. It is not if it was refused for another reason, or if too many are kept already."""
        if self._over or not isinstance(exc, ParentMissing):
            return False
        if len(self._refused) >= WAITING_LINES or self.size + line.size > WAITING_BYTES:
            return False
        self._refused[line.name] = line, exc
        self.size += line.size
        return True

    def drop(self, name: str) -> tuple[ImportLine, InvalidInput] | None:
        """The line of this name, which is kept no more, and why it was refused."""
        earlier = self._refused.pop(name, None)
        if earlier is not None:
            self.size -= earlier[0].size
        return earlier

    def end(self) -> list[ImportLine]:
        """The lines, in the order in which they are to be written. From now on none is kept."""
        self._over = True
        kept, self._refused = self._refused, {}
        return [line for _, line in others_first((name, line) for name, (line, _) in kept.items())]


@dataclass(slots=True)
class Chunk:
    """Lines that are written together. Each job is there once."""

    lines: dict[str, ImportLine] = field(default_factory=dict)
    size: int = 0

    def takes(self, line: ImportLine) -> bool:
        """Whether there is room for the line. A job that occurs twice is written twice, in the order of the lines."""
        return len(self.lines) < CHUNK_LINES and self.size <= CHUNK_BYTES and line.name not in self.lines

    def add(self, line: ImportLine) -> None:
        """Put the line behind the others."""
        self.lines[line.name] = line
        self.size += line.size

    def clear(self) -> None:
        """The lines are written."""
        self.lines.clear()
        self.size = 0


class ImportProgress:
    """The counts and errors of an import so far."""

    member = "imported"
    """Its name in a problem."""

    def __init__(self) -> None:
        self.created = self.updated = self.unchanged = self.failed = 0
        self.errors: list[dict[str, Any]] = []
        self.waiting = WaitingLines()
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
            if not self.waiting.keep(line, exc):
                self.add_failed(line.number, line.job_id, exc.faults)

    def replace_waiting(self, line: ImportLine) -> None:
        """The line is about to be written. An earlier one of its job that waits stays refused: the last one counts."""
        earlier = self.waiting.drop(line.name)
        if earlier is not None:
            self.add_failed(earlier[0].number, earlier[0].job_id, earlier[1].faults)

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
        chunk = Chunk()
        number = 0
        turn_ends = self.clock.monotonic() + TURN_SECONDS
        async for raw in split_lines(read_chunks(req.stream, patience)):
            number += 1
            if self.clock.monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = self.clock.monotonic() + TURN_SECONDS
            if raw is not None and not raw.strip():
                continue
            line = await off_loop(len(raw or b""), self._read, number, raw, progress)
            if line is not None:
                await self._add(line, chunk, progress, patience)
        await self._write(chunk, progress, patience)
        for line in await off_loop(progress.waiting.size, progress.waiting.end):
            await self._add(line, chunk, progress, patience)
        await self._write(chunk, progress, patience)

    async def _add(self, line: ImportLine, chunk: Chunk, progress: ImportProgress, patience: asyncio.Timeout) -> None:
        """Put the line into the chunk, which is written before if it is full."""
        if not chunk.takes(line):
            await self._write(chunk, progress, patience)
        progress.replace_waiting(line)
        chunk.add(line)

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
            return ImportLine(number, job_id, wanted, len(raw))
        return None

    async def _write(self, chunk: Chunk, progress: ImportProgress, patience: asyncio.Timeout) -> None:
        if not chunk.lines:
            return
        patience.reschedule(None)  # the caller is not to blame for a slow database
        await self._note(progress, finished=False)
        entry = progress.entry
        with acting(replace(current_actor(), within=None if entry is None else entry.object)):
            done = await import_chunk(self.db, list(chunk.lines.values()), self.clock.now_ms())
        wait_for_chunk(patience)
        progress.add_written(done)
        chunk.clear()
