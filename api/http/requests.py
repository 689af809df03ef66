"""Reading requests: bodies of limited size, query parameters, preconditions. All faults are raised together."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import falcon
from falcon import mediatypes

from api.http.off_loop import off_loop
from cluster.core import instants
from cluster.core.documents import json_source, strict_json
from cluster.core.documents.job import BODY_LIMIT
from cluster.core.errors import Fault, InvalidInput
from cluster.usecases.jobs import Precondition

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

    from falcon.asgi import Request, Response

BODY_SECONDS = 10.0
"""A body of at most 1 MiB must have arrived after this time."""
CHUNK_SECONDS = 30.0
CHUNKS_PER_TURN = 256
"""After this many chunks of a body the event loop runs other tasks: a chunk may be a single byte."""
_ETAG = re.compile(r'"(\d{1,15})"\Z', re.ASCII)
MAX_ACCEPT_LENGTH = 1024
JSON_TYPES = ("application/json", "application/merge-patch+json")


class ContentNegotiation:
    """Falcon middleware: refuses callers that do not accept JSON."""

    async def process_request(self, req: Request, _resp: Response) -> None:
        """Raises 406 unless the caller accepts JSON. A browser that opens an address gets JSON too, and shows it."""
        if not req.path.startswith(("/docs", "/metrics", "/events", "/assets/")) and not _accepts_json(req):
            raise falcon.HTTPNotAcceptable(
                description="responses are JSON: send 'Accept: application/json', or leave out Accept"
            )


def _accepts_json(req: Request) -> bool:
    accept = req.get_header("Accept")
    if accept is None or "*/*" in accept:
        return True
    if len(accept) > MAX_ACCEPT_LENGTH:  # to weigh each of its types would take longer than the request itself
        return False
    offered = ("application/json", "text/html") if req.method in ("GET", "HEAD") else ("application/json",)
    try:
        return any(mediatypes.quality(media_type, accept.lower()) > 0 for media_type in offered)
    except falcon.InvalidMediaRange:
        return False


async def read_json(req: Request) -> Any:
    """The body as a JSON value. Raises 415, 413, `NotJson` (400) or `InvalidInput` (422)."""
    check_content_type(req, JSON_TYPES)
    raw = await read_body(req, BODY_LIMIT)
    return await off_loop(len(raw), strict_json.loads, raw)


async def read_object(req: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises as `read_json` does."""
    return _object(await read_json(req))


async def read_optional_object(req: Request) -> dict[str, Any]:
    """As `read_object`, for a body that may be left out: then it is empty."""
    raw = await read_body(req, BODY_LIMIT)
    if not raw:
        return {}
    check_content_type(req, JSON_TYPES)
    return _object(await off_loop(len(raw), strict_json.loads, raw))


async def read_object_with_source(req: Request) -> tuple[bytes, dict[str, Any]]:
    """As `read_object`, with the bytes that were given."""
    check_content_type(req, JSON_TYPES)
    raw = await read_body(req, BODY_LIMIT)
    return raw, _object(await off_loop(len(raw), strict_json.loads, raw))


async def read_job_object(req: Request) -> dict[str, Any]:
    """As `read_object`, for a job or a patch of one: its `body` keeps the bytes that were given."""
    check_content_type(req, JSON_TYPES)
    raw = await read_body(req, BODY_LIMIT)
    return await off_loop(len(raw), _job_object, raw)


def _job_object(raw: bytes) -> dict[str, Any]:
    return json_source.keep_body(raw, _object(strict_json.loads(raw)))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput([Fault("", "must be a JSON object")])
    return value


def check_content_type(req: Request, accepted: tuple[str, ...]) -> None:
    """Raises 415 unless the `Content-Type` is an accepted one."""
    content_type = (req.content_type or "").split(";")[0].strip().lower()
    if content_type not in accepted:
        raise falcon.HTTPUnsupportedMediaType(
            description=f"set the header 'Content-Type: {accepted[0]}'"
            + (f", not {content_type[:64]}" if content_type else "")
        )


async def read_body(req: Request, limit: int) -> bytes:
    """The whole body. Raises 413 as soon as it exceeds `limit` bytes, and 408 if it arrives too slowly."""
    too_large = falcon.HTTPContentTooLarge(description=f"the body must not exceed {limit} bytes")
    if (req.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    number = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in req.stream:
                body += chunk
                if len(body) > limit:
                    raise too_large
                number += 1
                if number % CHUNKS_PER_TURN == 0:
                    await asyncio.sleep(0)
    except TimeoutError:
        raise body_too_slow() from None
    req.context.body_size = len(body)
    return bytes(body)


def body_size(req: Request) -> int:
    """The size of the body that was read, in bytes."""
    return int(getattr(req.context, "body_size", 0))


def body_too_slow() -> falcon.HTTPError:
    """The error 408."""
    return falcon.HTTPError(
        408, title="Request Timeout", description="the body arrived too slowly: send the request again"
    )


async def read_chunks(stream: AsyncIterable[bytes], patience: asyncio.Timeout) -> AsyncIterator[bytes]:
    """The chunks of a long body. `patience` ends about `CHUNK_SECONDS` after the last one."""
    number = 0
    renewed_at = wait_for_chunk(patience)
    async for chunk in stream:
        number += 1
        if number % CHUNKS_PER_TURN == 0:
            await asyncio.sleep(0)
        # A time-out of its own for each chunk would cost more than a chunk of one byte.
        if asyncio.get_running_loop().time() - renewed_at > CHUNK_SECONDS / 10:
            renewed_at = wait_for_chunk(patience)
        yield chunk


async def split_lines(stream: AsyncIterable[bytes]) -> AsyncIterator[bytes | None]:
    """The lines of a stream without line ends; None for a line that exceeds the limit."""
    unfinished = bytearray()
    skipping = False
    async for chunk in stream:
        # Only the chunk is searched: a line may arrive in a million pieces.
        first, *others = chunk.split(b"\n")
        if not skipping:
            unfinished += first
        if others:
            yield None if skipping or len(unfinished) > BODY_LIMIT else bytes(unfinished)
            *lines, last = others
            for line in lines:
                yield None if len(line) > BODY_LIMIT else line
            unfinished, skipping = bytearray(last), False
        if len(unfinished) > BODY_LIMIT:
            unfinished, skipping = bytearray(), True
    if unfinished or skipping:
        yield None if skipping else bytes(unfinished)


def wait_for_chunk(patience: asyncio.Timeout) -> float:
    """Let `patience` end `CHUNK_SECONDS` from now. Returns now, by the loop's clock."""
    now = asyncio.get_running_loop().time()
    patience.reschedule(now + CHUNK_SECONDS)
    return now


def read_preconditions(req: Request) -> Precondition:
    """The preconditions in `If-Match` and `If-None-Match`. Raises `InvalidInput` for an ETag of another form."""
    if_none_match = req.get_header("If-None-Match")
    if_match = req.get_header("If-Match")
    if if_none_match is not None and if_none_match.strip() != "*":
        raise InvalidInput([Fault("If-None-Match", "must be *: the job must not exist")])
    if if_match is None or if_match.strip() == "*":
        return Precondition(absent=if_none_match is not None)
    match = _ETAG.match(if_match.strip())
    if match is None:
        raise InvalidInput([Fault("If-Match", 'must be one ETag of this API, such as "3"')])
    return Precondition(int(match[1]), if_none_match is not None)


class QueryParameters:
    """The query parameters of one request. Read all of them; then `raise_faults()` raises their faults together."""

    def __init__(self, req: Request, names: Iterable[str]) -> None:
        self._params = req.params
        self.faults = [
            Fault(name[:64], "is not a parameter of this request; leave it out")
            for name in req.params
            if name not in set(names)
        ]

    def raise_faults(self) -> None:
        """Raises `InvalidInput` if a parameter was wrong."""
        if self.faults:
            raise InvalidInput(self.faults)

    def text(self, name: str, max_length: int = 200) -> str | None:
        """A text of 1 to `max_length` characters."""
        value = self._params.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self._fault(name, "must be given only once")
        elif not 1 <= len(value) <= max_length or "\0" in value:
            self._fault(name, f"must have 1 to {max_length} characters")
        else:
            return value
        return None

    def number(self, name: str, default: int, maximum: int) -> int:
        """An integer from 1 to `maximum`."""
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= maximum):
            self._fault(name, f"must be an integer from 1 to {maximum}")
            return default
        return int(value)

    def choices(self, name: str, allowed_words: Iterable[str]) -> frozenset[str]:
        """Some of the allowed words, separated by commas or in several parameters; empty if the parameter is absent."""
        value = self._params.get(name)
        if value is None:
            return frozenset()
        words = [w.strip() for v in ([value] if isinstance(value, str) else value) for w in v.split(",")]
        allowed = sorted(allowed_words)
        if not words or any(w not in allowed for w in words):
            self._fault(name, f"must be one of {', '.join(allowed)}, or several separated by commas")
            return frozenset()
        return frozenset(words)

    def choice(self, name: str, allowed_words: tuple[str, ...]) -> str | None:
        """One of the allowed words."""
        value = self._params.get(name)
        if value is None or value in allowed_words:
            return value
        self._fault(name, f"must be {' or '.join(allowed_words)}")
        return None

    def instant(self, name: str) -> int | None:
        """A time, in ms."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return instants.parse_instant(value.replace(" ", "+"))  # an unescaped + of a UTC offset arrives as a blank
        except ValueError as exc:
            self._fault(name, str(exc))
            return None

    def _fault(self, name: str, message: str) -> None:
        if not any(f.path == name for f in self.faults):
            self.faults.append(Fault(name, message))
