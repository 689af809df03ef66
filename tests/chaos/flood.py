"""Messages by batches at a steady rate, with callbacks, for runs under faults: `make chaos MESSAGES=500`.

A batch is posted under its `dedupId`s until it is answered. Its answer has no ids: the documents that chose them do.
"""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import orjson

from tests.chaos.evidence import Posted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.processes import Nodes, Receiver

EVERY = 0.5
WRITERS = 3
"""Batches at once: one that waits for an answer must not hold up the next."""
NDJSON = {"Content-Type": "application/x-ndjson"}


class Flood:
    """Posts `rate` messages a second until it is ended."""

    def __init__(self, nodes: Nodes, receiver: Receiver, rate: int, retry: dict[str, Any]) -> None:
        self._nodes, self._receiver, self._retry = nodes, receiver, retry
        self.rate = rate
        self._size = max(1, int(rate * EVERY))
        self._ended = threading.Event()
        self._batches: list[tuple[int, int, list[str], bool]] = []
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(WRITERS if rate else 0)]
        for t in self._threads:
            t.start()

    def end(self) -> None:
        """Post nothing more."""
        self._ended.set()
        for t in self._threads:
            t.join(30)

    def _write(self, writer: int) -> None:
        begun = time.monotonic() + writer * EVERY
        number = 0
        while not self._ended.wait(max(0.0, begun + number * EVERY * WRITERS - time.monotonic())):
            number += 1
            self._post([f"f{writer}-{number}-{n}" for n in range(self._size)])

    def _post(self, names: list[str]) -> None:
        target = self._receiver.url
        told = {"api": f"{target}/ok/cb"}
        lines = [
            {"api": f"{target}/ok/m", "dedupId": name, "retry": self._retry, "onSuccess": told, "onFailure": told}
            for name in names
        ]
        body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        begun = int(time.time() * 1000)
        answered = False
        while not answered and not self._ended.is_set() and time.time() * 1000 - begun < 60_000:
            with suppress(httpx.HTTPError):
                answer = httpx.post(f"{self._nodes.url}/messages/batch", content=body, headers=NDJSON, timeout=15)
                answered = answer.status_code == 200 and not answer.json()["failed"]
            if not answered and self._ended.wait(0.3):
                break
        self._batches.append((begun, int(time.time() * 1000), names, answered))

    def posted(self) -> Sequence[Posted]:
        """Every message with its id, as it was chosen. One without is as if it had never been answered."""
        keys = {_key(name): name for _, _, names, _ in self._batches for name in names}
        chosen: dict[str, str] = {}
        for d in self._nodes.db["dedups"].find({}, {"execution_id": 1}):
            if d["_id"] in keys:
                chosen[keys[d["_id"]]] = d["execution_id"]
        return [
            # Of a batch without an answer each message may have been accepted: then it may come, as one that was cancelled.
            Posted(begun, answered_ms, chosen.get(name), cancelled=False if answered else None, told=True)
            for begun, answered_ms, names, answered in self._batches
            for name in names
        ]


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
