"""`horae receiver`: a local target for test jobs. The path decides how it responds; a page shows the requests.

    /ok/...               200            /status/<code>/...   that status, always
    /fail/<n>/...         503 for the first n attempts of an execution, then 200
    /slow/<ms>/...        200 after this delay
    /hang/...             no response    /reset/...           the connection is reset instead of a response
    /cut/...              200, and the connection is closed within the body
    GET /                 a page         GET /stats           the statistics as JSON

`/hang/<n>/...`, `/reset/<n>/...`, `/cut/<n>/...` do so for the first n attempts of an execution, then respond with 200.

Any other path gets 200. Memory is bounded: statistics, the latest requests, and the ids of the last 100,000 deliveries,
which identify duplicates.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import signal
import sys
import time
from collections import Counter, OrderedDict, deque
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

import orjson
import uvloop
from aiohttp import web

from cluster.core.histogram import Histogram
from ops.support.output import rfc3339

if TYPE_CHECKING:
    from pathlib import Path

REMEMBERED = 100_000
PATHS = 10_000
SHOWN = 50
FLUSH_SECONDS = 0.2
BROKEN = frozenset({"hang", "reset", "cut"})
"""Responses without a status, or with an incomplete body."""
_QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


class Receiver:
    """Responds to requests and keeps statistics. `log` gets one line of JSON per request, before the response."""

    def __init__(self, log: BinaryIO | None = None) -> None:
        self._log = log
        self.total = 0
        self.duplicates = 0
        self.by_status: Counter[str] = Counter()
        self.by_path: Counter[str] = Counter()
        self.drift = Histogram()
        self._seen: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._latest: deque[tuple[int, str, str, str]] = deque(maxlen=SHOWN)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to one request."""
        path = request.rel_url.raw_path
        if request.method == "GET" and path == "/":
            return web.Response(text=self.page(), content_type="text/html")
        if request.method == "GET" and path == "/stats":
            return web.Response(body=orjson.dumps(self.stats()), content_type="application/json")
        return await self._deliver(request, path)

    async def _deliver(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Respond as the path says."""
        arrived = time.time() * 1000
        async for _ in request.content.iter_any():
            pass  # bodies have any size and are not kept
        kind, _, rest = path[1:].partition("/")
        argument = _number(rest.partition("/")[0])
        attempt = _number(request.headers.get("Horae-Attempt", "1")) or 1
        status = _status(kind, argument, attempt)
        if kind in BROKEN and argument is not None and attempt > argument:
            kind = "ok"
        self._note(request, path, attempt, arrived, kind if kind in BROKEN else str(status))
        if kind == "slow":
            await asyncio.sleep((argument or 0) / 1000)
        elif kind == "hang":
            await asyncio.Event().wait()  # the handler is cancelled when the sender closes the connection
        elif kind == "reset" and request.transport is not None:
            request.transport.abort()
        elif kind == "cut":
            return await _cut(request)
        return web.Response(
            status=status, text="ok\n" if status < 300 else f"responding with {status}, as the path says\n"
        )

    def _note(self, request: web.BaseRequest, path: str, attempt: int, arrived: float, answer: str) -> None:
        headers = request.headers
        execution = headers.get("Horae-Execution-Id", "")
        self.total += 1
        self.by_status[answer] += 1
        if path in self.by_path or len(self.by_path) < PATHS:
            self.by_path[path] += 1
        due = headers.get("Horae-Scheduled-At")
        if due is not None and attempt == 1:
            with contextlib.suppress(ValueError):  # a header of another sender; respond all the same
                self.drift.add(max(0.0, arrived - datetime.fromisoformat(due).timestamp() * 1000))
        if execution:
            self._remember(headers.get("Idempotency-Key", execution), attempt)
        self._latest.appendleft((int(arrived), path, execution, f"{answer} (attempt {attempt})"))
        if self._log is not None:
            line = {
                "arrived": int(arrived),
                "execution": execution,
                "attempt": attempt,
                "token": headers.get("Horae-Fencing-Token"),
                "path": path,
                "answer": answer,
            }
            self._log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _remember(self, key: str, attempt: int) -> None:
        count_before = len(self._seen)
        self._seen[key, attempt] = None
        if len(self._seen) == count_before:
            self.duplicates += 1
        elif count_before == REMEMBERED:
            self._seen.popitem(last=False)

    def stats(self) -> dict[str, object]:
        """Statistics so far. Drift is from the due time to the arrival of first attempts, by this process's clock, in ms."""
        return {
            "total": self.total,
            "duplicates": self.duplicates,
            "byStatus": dict(self.by_status),
            "driftMs": {name: self.drift.quantile(q) for name, q in _QUANTILES},
            "byPath": dict(self.by_path.most_common(500)),
        }

    def page(self) -> str:
        """A page with the statistics, which reloads every 2 s."""
        rows = "".join(
            f"<tr><td>{rfc3339(at)}<td>{html.escape(path)}<td>{html.escape(execution)}<td>{html.escape(answer)}"
            for at, path, execution, answer in self._latest
        )
        answers = ", ".join(f"{n} x {answer}" for answer, n in self.by_status.most_common())
        drift = ", ".join(f"{name} {self.drift.quantile(q) or 0:.0f} ms" for name, q in _QUANTILES)
        return (
            "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=2><title>Horae receiver</title>"
            "<style>body{font:14px system-ui;margin:2em}th,td{padding:.1em .8em;text-align:left}"
            "td{font-family:monospace}</style>"
            f"<h1>{self.total} requests</h1><p>{html.escape(answers) or 'No requests yet'}."
            f"<p>Lateness: {drift}. Duplicates: {self.duplicates}. <a href=/stats>JSON</a>"
            f"<table><tr><th>arrived<th>path<th>execution<th>response{rows}</table>"
        )


async def _cut(request: web.BaseRequest) -> web.StreamResponse:
    """A response that ends before it is complete."""
    response = web.StreamResponse(status=200)
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b"ok")
    if request.transport is not None:
        request.transport.close()  # closes after sending what is written
    return response


def _number(text: str) -> int | None:
    """A number of at most nine digits, or None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _status(kind: str, argument: int | None, attempt: int) -> int:
    if argument is not None:
        if kind == "fail":
            return 503 if attempt <= argument else 200
        if kind == "status" and 200 <= argument <= 599:
            return argument
    return 200


async def _serve(host: str, port: int, log: BinaryIO | None) -> None:
    # Without router and application, so that benchmarks do not measure this target.
    server = web.Server(Receiver(log).handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError as exc:
        sys.stderr.write(
            f"horae: the receiver cannot listen on {host}:{port} ({exc.strerror or exc}): choose another --port\n"
        )
        raise SystemExit(2) from exc
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"receiver listens on {site.name}", flush=True)
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), FLUSH_SECONDS)
        except TimeoutError:
            if log is not None:
                log.flush()
    await runner.cleanup()


def run(host: str, port: int, log_file: str | Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM. Exit status 2 if the port is taken."""
    if log_file is None:
        uvloop.run(_serve(host, port, None))
        return
    with open(log_file, "ab", buffering=1 << 16) as log:  # noqa: PTH123 - a str is as good
        uvloop.run(_serve(host, port, log))
