"""The desk of one worker: collects its readings, pins them to the board, and reads everybody's off it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import structlog

from api.http.context import WorkerReadings
from cluster import metrics

if TYPE_CHECKING:
    from api.http.request_metrics import RequestMetrics
    from cluster.node import Node
    from ops.server.shared_slots import SharedSlots

log = structlog.get_logger()

PUBLISH_SECONDS = 1.0


class MetricsExchange:
    """One worker's. `slot` None: not on a board, it speaks for itself alone."""

    def __init__(self, node: Node, request_metrics: RequestMetrics, shared_slots: SharedSlots | None) -> None:
        self._node = node
        self._metering = request_metrics
        self._board = shared_slots
        self._pulse = metrics.LoopLag()
        self.slot: int | None = None

    def worker_readings(self) -> list[WorkerReadings]:
        """The readings of every worker here, this one's as of now."""
        own = {**metrics.gather(self._node, self._pulse), **self._metering.readings()}
        mine = WorkerReadings(self.slot or 0, 0.0, own)
        if self._board is None or self.slot is None:
            return [mine]
        self._pin(own)
        others = [
            WorkerReadings(slot, age, orjson.loads(text)) for slot, age, text in self._board.read() if slot != self.slot
        ]
        return sorted([mine, *others], key=lambda p: p.worker)

    def _pin(self, own: metrics.Readings) -> None:
        if self._board is None or self.slot is None:
            return
        try:
            self._board.write(self.slot, orjson.dumps(own))
        except ValueError as exc:
            log.warning("readings_too_large", error=str(exc))

    async def run(self) -> None:
        """Keep the board up to date, until cancelled."""
        feeling = asyncio.get_running_loop().create_task(self._pulse.run())
        try:
            while True:
                self._pin({**metrics.gather(self._node, self._pulse), **self._metering.readings()})
                await asyncio.sleep(PUBLISH_SECONDS)
        finally:
            feeling.cancel()
