"""`horae receiver`: a local target that answers, fails or dawdles by path, and shows what came.

    /ok/...               200            /status/<code>/...   that status, always
    /fail/<n>/...         503 for the first n attempts of an execution, then 200
    /slow/<ms>/...        200 after so long
    /hang/...             no answer      /reset/...           the connection is cut
    GET /                 a page         GET /stats           the figures as JSON

Memory is bounded: latest arrivals and the ids of the last 100,000 deliveries.
"""

from __future__ import annotations

import asyncio
import html
import signal
import time
from collections import Counter, OrderedDict, deque
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

import orjson
import uvloop
from aiohttp import web

from cluster.core.histogram import Histogram
from ops.tables import rfc3339

if TYPE_CHECKING:
    from pathlib import Path

REMEMBERED = 100_000
SHOWN = 50


class Receiver:
    """What came, and how it is answered."""

    def __init__(self, log: TextIO | None = None) -> None:
        self._log = log
        self.total = 0
        self.duplicates = 0
        self.by_status: Counter[str] = Counter()
        self.by_path: Counter[str] = Counter()
        self.drift = Histogram()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._latest: deque[tuple[int, str, str, str]] = deque(maxlen=SHOWN)

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Answer as the path asks."""
        arrived = int(time.time() * 1000)
        await request.read()
        kind, _, rest = request.path.lstrip("/").partition("/")
        argument = rest.partition("/")[0]
        attempt = int(request.headers.get("Horae-Attempt", "1"))
        status = self._status(kind, argument, attempt)
        self._note(request, arrived, attempt, kind, status)
        if kind == "slow" and argument.isdigit():
            await asyncio.sleep(int(argument) / 1000)
        elif kind == "hang":
            await asyncio.sleep(3600)
        elif kind == "reset" and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status, text="ok\n" if status < 300 else f"answering {status} as asked\n")

    @staticmethod
    def _status(kind: str, argument: str, attempt: int) -> int:
        if kind == "fail" and argument.isdigit():
            return 503 if attempt <= int(argument) else 200
        if kind == "status" and argument.isdigit() and 200 <= int(argument) <= 599:
            return int(argument)
        return 200

    def _note(self, request: web.Request, arrived: int, attempt: int, kind: str, status: int) -> None:
        execution = request.headers.get("Horae-Execution-Id", "")
        answer = kind if kind in ("hang", "reset") else str(status)
        self.total += 1
        self.by_status[answer] += 1
        if request.path in self.by_path or len(self.by_path) < 10_000:
            self.by_path[request.path] += 1
        due = request.headers.get("Horae-Scheduled-At")
        if due and attempt == 1:
            self.drift.add(arrived - datetime.fromisoformat(due).timestamp() * 1000)
        key = f"{execution}#{attempt}"
        if execution and key in self._seen:
            self.duplicates += 1
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        self._latest.appendleft((arrived, request.path, execution, f"{answer} (attempt {attempt})"))
        if self._log is not None:
            line = {
                "arrived": arrived,
                "execution": execution,
                "attempt": attempt,
                "token": request.headers.get("Horae-Fencing-Token"),
                "path": request.path,
                "answer": answer,
            }
            self._log.write(orjson.dumps(line).decode() + "\n")

    def figures(self) -> dict[str, object]:
        """The figures so far. Drift is on this process's own clock, in ms, good to a bucket."""
        return {
            "total": self.total,
            "duplicates": self.duplicates,
            "byStatus": dict(self.by_status),
            "driftMs": {name: self.drift.quantile(q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
            "byPath": dict(self.by_path.most_common(500)),
        }

    async def stats(self, _: web.Request) -> web.Response:
        """GET /stats."""
        return web.json_response(body=orjson.dumps(self.figures()))

    async def page(self, _: web.Request) -> web.Response:
        """GET /: a page for people."""
        rows = "".join(
            f"<tr><td>{rfc3339(at)}<td>{html.escape(path)}<td>{html.escape(execution)}<td>{html.escape(answer)}"
            for at, path, execution, answer in self._latest
        )
        body = (
            "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=2><title>Horae receiver</title>"
            "<style>body{font:14px system-ui;margin:2em}td{padding:.1em .8em;font-family:monospace}</style>"
            f"<h1>{self.total} requests</h1><p>{html.escape(str(dict(self.by_status)))}, "
            f"{self.duplicates} duplicates. <a href=/stats>JSON</a></p><table>{rows}</table>"
        )
        return web.Response(text=body, content_type="text/html")

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_get("/", self.page)
        application.router.add_get("/stats", self.stats)
        application.router.add_post("/{path:.*}", self.post)
        return application


async def _serve(host: str, port: int, log: TextIO | None) -> None:
    receiver = Receiver(log)
    runner = web.AppRunner(receiver.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=1024).start()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"receiver on http://{host}:{port}", flush=True)
    while not stop.is_set():
        if log is not None:
            log.flush()
        try:
            await asyncio.wait_for(stop.wait(), 0.2)
        except TimeoutError:
            continue
    await runner.cleanup()


def run(host: str, port: int, log_file: str | Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    if log_file is None:
        uvloop.run(_serve(host, port, None))
        return
    with open(log_file, "a", buffering=1 << 16, encoding="utf-8") as log:  # noqa: PTH123 - a str is as good
        uvloop.run(_serve(host, port, log))
