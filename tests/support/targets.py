"""Targets for workers in tests: one that counts, one whose host is down."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from cluster.worker.worker import Worker


BAD, GOOD = "http://bad.example:81/x", "http://bad.example:82/x"


PATIENT = {
    "max_attempts": 9,
    "initial_delay_seconds": 60.0,
    "multiplier": 1.0,
    "max_delay_seconds": 60.0,
    "jitter": 0.0,
}


class Target:
    """Counts what is under way at once, for each job and in all, and when it came (monotonic seconds)."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.came: list[float] = []
        self._seconds = seconds

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.came.append(asyncio.get_running_loop().time())
        names = (request.headers["horae-job-id"], "all")
        for name in names:
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        await asyncio.sleep(self._seconds)
        for name in names:
            self.now[name] -= 1
        return httpx.Response(200)


def down(seen: list[str], *, up: bool = False) -> Any:
    """bad.example:81 cannot be connected to until `state["up"]`; everything else answers 200."""
    state = {"up": up}

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        if request.url.port == 81 and not state["up"]:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    handler.state = state  # type: ignore[attr-defined]
    return handler


async def shutdown_all(workers: list[Worker]) -> None:
    for w in workers:
        await w.shutdown(3)
