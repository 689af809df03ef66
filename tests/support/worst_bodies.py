"""Bodies of 1 MiB that cost the most to read, and how long the event loop stands still meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any, Self

from cluster.core.documents.job import BODY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHORT = BODY_LIMIT - 4096
"""Room for what is around a value."""


def filled(unit: bytes, head: bytes = b"[", tail: bytes = b"]", between: bytes = b",") -> bytes:
    count = (SHORT - len(head) - len(tail)) // (len(unit) + len(between))
    return head + between.join([unit] * count) + tail


def names(shape: bytes, tail: bytes = b"}") -> bytes:
    made = (shape % i for i in range(SHORT // (len(shape) + 4)))
    return b"{" + b",".join(made) + tail


VALUES = {
    "names": names(b'"%06d":1'),
    "names, one twice at the end": names(b'"%06d":1', b',"000000":1}'),
    "names, all twice": names(b'"%05d":1,"x":1'),
    "as many objects as are allowed": b"[" + b",".join([b'{"a":1}'] * 49_000) + b"]",
    "the same, a name twice in the last": b"[" + b",".join([b'{"a":1}'] * 49_000) + b',{"a":1,"a":1}]',
    "nests of 60": b"[" + b",".join([b"[" * 60 + b"]" * 60] * 800) + b"]",
    "too deep at the end": b"[" + b",".join([b"[]"] * 49_000) + b"," + b"[" * 90 + b"]" * 90 + b"]",
    "digits": filled(b"1"),
    "long integers": filled(b"1234567890123456789"),
    "one integer": b"1" * SHORT,
    "escapes": b'"' + b"\\u0041" * (SHORT // 6) + b'"',
    "quotes": b'"' + b'\\"' * (SHORT // 2) + b'"',
    "blanks": b" " * SHORT + b"{}",
    "a long string": b'"' + b"x" * SHORT + b'"',
    "a string of blanks": b'"x' + b" " * SHORT + b'"',
    "a string of braces": b'"' + b"{" * SHORT + b'"',
    "empty strings": filled(b'""'),
    "templates": filled(b'"{{jobId}}"'),
    "an unknown template at the end": filled(b'"a"', tail=b',"{{x}}"]'),
}


class Standstill:
    """Measures the longest time that the event loop ran nothing else, in ms of a processor.

    Not of a clock, because other work on the machine is nobody's fault. The time of all threads counts: one that keeps the
    interpreter stops the loop too.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        gc.freeze()  # as a node does: the collector would scan all that the tests have loaded
        self._task = asyncio.get_running_loop().create_task(self._tick())
        await asyncio.sleep(0.01)
        self.longest = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.005)  # for the tick that comes after the longest
        self._task.cancel()

    async def _tick(self) -> None:
        at = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.process_time()
            self.longest = max(self.longest, (now - at) * 1000)
            at = now


async def send_raw(
    app: Callable[..., Any], method: str, path: str, chunks: Iterator[bytes], content_type: str = "application/json"
) -> tuple[int, bytes]:
    """A request with a body in these chunks, all of which are there at once: the status and the answer."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "scheme": "http", "server": ("127.0.0.1", 5000),
        "client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost"), (b"content-type", content_type.encode())],
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:])
