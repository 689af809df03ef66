"""`POST /jobs/import`: NDJSON of any length in bounded memory. Good lines land; each bad one is told with its faults."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from api.http.problems import faults_json
from api.http.requests import check_content_type, read_chunks
from api.http.responses import send_json
from api.resources.jobs import Resource, checked_job_id
from cluster.core.documents import strict_json
from cluster.core.documents.job import BODY_LIMIT
from cluster.core.documents.job_json import read_spec
from cluster.core.errors import CallerError, Fault, InvalidInput
from cluster.usecases.jobs import ImportLine, import_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

    from falcon.asgi import Request, Response


TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CHUNK_LINES = 500
CHUNK_BYTES = 4 * 1024 * 1024
"""Lines are written when so many, or so much, has come together: long lines must not add up in memory."""
MAX_ERRORS_SHOWN = 100
LINES_PER_TURN = 50
"""After so many lines other work on this loop gets its turn: an import must not make executions late."""


async def split_lines(stream: AsyncIterable[bytes]) -> AsyncIterator[bytes | None]:
    """The lines of a stream without their ends; None for one that is too long to be read."""
    rest = b""
    skipping = False
    async for piece in stream:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield None if skipping or len(line) > BODY_LIMIT else line
            skipping = False
        if len(rest) > BODY_LIMIT:
            rest, skipping = b"", True
    if rest or skipping:
        yield None if skipping else rest


class ImportProgress:
    """What has become of the lines so far."""

    def __init__(self) -> None:
        self.created = self.updated = self.unchanged = self.failed = 0
        self.errors: list[dict[str, Any]] = []

    def add_failed(self, number: int, job_id: Any, faults: tuple[Fault, ...]) -> None:
        """Count a bad line, and show it if not too many are shown already."""
        self.failed += 1
        if len(self.errors) < MAX_ERRORS_SHOWN:
            shown_id = job_id[:64] if isinstance(job_id, str) else None
            self.errors.append({"line": number, "jobId": shown_id, "errors": faults_json(faults[:20])})

    def shown(self) -> dict[str, Any]:
        """The answer."""
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
        """Create or replace one job a line."""
        check_content_type(req, TYPES)
        tally = req.context.progress = ImportProgress()
        chunk: dict[str, ImportLine] = {}
        number = size = 0
        async for raw in split_lines(read_chunks(req.stream)):
            number += 1
            if number % LINES_PER_TURN == 0:
                await asyncio.sleep(0)
            if raw is not None and not raw.strip():
                continue
            line = self._read(number, raw, tally)
            if line is None:
                continue
            # A job that comes twice is written twice, in the order of the lines.
            if len(chunk) == CHUNK_LINES or size > CHUNK_BYTES or line.job_id in chunk:
                await self._write(chunk, tally)
                size = 0
            size += len(raw or b"")
            chunk[line.job_id or f":{number}"] = line
        await self._write(chunk, tally)
        send_json(resp, tally.shown())

    def _read(self, number: int, raw: bytes | None, tally: ImportProgress) -> ImportLine | None:
        job_id: Any = None
        try:
            if raw is None:
                raise InvalidInput([Fault("", f"a line may have at most {BODY_LIMIT} bytes")])
            value = strict_json.loads(raw)
            if not isinstance(value, dict):
                raise InvalidInput([Fault("", "must be an object")])
            faults: list[Fault] = []
            if "jobId" in value:
                job_id = value.pop("jobId")
                try:
                    checked_job_id(job_id)
                except InvalidInput as exc:
                    faults.extend(exc.faults)
            try:
                spec = read_spec(value, self.validation_context)
            except InvalidInput as exc:
                raise InvalidInput([*faults, *exc.faults]) from exc
            if faults:
                raise InvalidInput(faults)
        except InvalidInput as exc:
            tally.add_failed(number, job_id, exc.faults)
        except CallerError as exc:
            tally.add_failed(number, job_id, (Fault("", str(exc)),))
        else:
            return ImportLine(number, job_id, spec)
        return None

    async def _write(self, chunk: dict[str, ImportLine], tally: ImportProgress) -> None:
        if not chunk:
            return
        done = await import_chunk(self.db, list(chunk.values()), self.clock.now_ms())
        tally.created += done.created
        tally.updated += done.updated
        tally.unchanged += done.unchanged
        for line, exc in done.refused:
            tally.add_failed(line.number, line.job_id, exc.faults)
        chunk.clear()
