"""Reading requests: bodies with a limit, query parameters with every fault at once, preconditions."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import falcon

from cluster.core import instants
from cluster.core.documents import strict_json
from cluster.core.documents.job import BODY_LIMIT
from cluster.core.errors import Fault, InvalidInput
from cluster.usecases.jobs import Precondition

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

    from falcon.asgi import Request, Response

BODY_SECONDS = 10.0
"""A body of at most 1 MiB is here by then, or its sender is holding us up."""
CHUNK_SECONDS = 30.0
_ETAG = re.compile(r'"(\d{1,15})"\Z', re.ASCII)
JSON_TYPES = ("application/json", "application/merge-patch+json")


class ContentNegotiation:
    """Falcon middleware: whoever wants something else than what there is hears it at once."""

    async def process_request(self, req: Request, _resp: Response) -> None:
        """Raises 406 unless the caller takes JSON."""
        if not req.path.startswith(("/docs", "/metrics")) and not req.client_accepts_json:
            raise falcon.HTTPNotAcceptable(description="answers are JSON: leave out Accept, or send application/json")


async def read_json(req: Request) -> Any:
    """The body as a JSON value. Raises 415, 413, `NotJson` (400) or `InvalidInput` (422)."""
    check_content_type(req, JSON_TYPES)
    return strict_json.loads(await read_body(req, BODY_LIMIT))


async def read_object(req: Request) -> dict[str, Any]:
    """The body as a JSON object."""
    value = await read_json(req)
    if not isinstance(value, dict):
        raise InvalidInput([Fault("", "must be an object")])
    return value


def check_content_type(req: Request, accepted: tuple[str, ...]) -> None:
    """Raises 415 unless the body is of an accepted type, `+json` suffixes included."""
    kind = (req.content_type or "").split(";")[0].strip().lower()
    if kind not in accepted:
        raise falcon.HTTPUnsupportedMediaType(
            description=f"send it with -H 'Content-Type: {accepted[0]}'" + (f", not {kind[:64]}" if kind else "")
        )


async def read_body(req: Request, limit: int) -> bytes:
    """The whole body. Raises 413 as soon as it is longer than `limit`."""
    too_large = falcon.HTTPContentTooLarge(description=f"a body may have at most {limit} bytes")
    if (req.content_length or 0) > limit:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in req.stream:
                size += len(piece)
                if size > limit:
                    raise too_large
                pieces.append(piece)
    except TimeoutError:
        raise body_too_slow() from None
    return b"".join(pieces)


def body_too_slow() -> falcon.HTTPError:
    """408: the body does not come."""
    return falcon.HTTPError(408, title="Request Timeout", description="the body came too slowly; send it again")


async def read_chunks(stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a long body. Raises 408 if the next one does not come within so many seconds."""
    pieces = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(CHUNK_SECONDS):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise body_too_slow() from None
        yield piece


def read_preconditions(req: Request) -> Precondition:
    """What `If-Match` and `If-None-Match` say. Raises `InvalidInput` for what is no ETag of ours."""
    absent = req.get_header("If-None-Match")
    wanted = req.get_header("If-Match")
    if absent is not None and absent.strip() != "*":
        raise InvalidInput([Fault("If-None-Match", "only * is known here: the job must not exist")])
    if wanted is None or wanted.strip() == "*":
        return Precondition(absent=absent is not None)
    match = _ETAG.match(wanted.strip())
    if match is None:
        raise InvalidInput([Fault("If-Match", 'must be one ETag as this API gave it, such as "3"')])
    return Precondition(int(match[1]), absent is not None)


class QueryParameters:
    """The query parameters of one request. Read them all, then `done()` raises every fault together."""

    def __init__(self, req: Request, known: Iterable[str]) -> None:
        self._params = req.params
        self.faults = [Fault(name[:64], "is not known; leave it out") for name in req.params if name not in set(known)]

    def raise_faults(self) -> None:
        """Raises `InvalidInput` if anything was wrong."""
        if self.faults:
            raise InvalidInput(self.faults)

    def text(self, name: str, max_length: int = 200) -> str | None:
        """A text of 1 to `most` characters."""
        value = self._params.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self._fault(name, "must be given once")
        elif not 1 <= len(value) <= max_length or "\0" in value:
            self._fault(name, f"must have 1 to {max_length} characters")
        else:
            return value
        return None

    def number(self, name: str, default: int, maximum: int) -> int:
        """A whole number from 1 to `most`."""
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= maximum):
            self._fault(name, f"must be a whole number from 1 to {maximum}")
            return default
        return int(value)

    def choices(self, name: str, allowed_words: Iterable[str]) -> frozenset[str]:
        """Some of the known words, separated by commas or given several times; empty if none was asked for."""
        value = self._params.get(name)
        if value is None:
            return frozenset()
        words = [w.strip() for v in ([value] if isinstance(value, str) else value) for w in v.split(",")]
        allowed = sorted(allowed_words)
        if not words or any(w not in allowed for w in words):
            self._fault(name, f"must be one of {', '.join(allowed)}, or several separated by commas")
            return frozenset()
        return frozenset(words)

    def instant(self, name: str) -> int | None:
        """A time, in ms."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return instants.parse_instant(value.replace(" ", "+"))  # an unescaped + of an offset arrives as a blank
        except ValueError as exc:
            self._fault(name, str(exc))
            return None

    def _fault(self, name: str, message: str) -> None:
        if not any(f.path == name for f in self.faults):
            self.faults.append(Fault(name, message))
