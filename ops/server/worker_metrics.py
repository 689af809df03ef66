"""The metrics of the workers of one `horae serve`: each publishes its readings and can read those of all."""

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
    """Publishes the readings of this worker, and reads those of all. Without a slot, it knows only its own readings."""

    def __init__(self, node: Node, request_metrics: RequestMetrics, shared_slots: SharedSlots | None) -> None:
        self._node = node
        self._request_metrics = request_metrics
        self._shared_slots = shared_slots
        self._loop_lag = metrics.LoopLag()
        self._slot: int | None = None

    def use_slot(self, slot: int | None) -> None:
        """Publish in this slot from now on."""
        self._slot = slot

    def worker_readings(self) -> list[WorkerReadings]:
        """The readings of all workers; those of this one are current."""
        readings = {**metrics.gather(self._node, self._loop_lag), **self._request_metrics.readings()}
        own = WorkerReadings(self._slot or 0, 0.0, readings)
        if self._shared_slots is None or self._slot is None:
            return [own]
        self._publish(readings)
        others = [
            WorkerReadings(slot, age, orjson.loads(text))
            for slot, age, text in self._shared_slots.read()
            if slot != self._slot
        ]
        return sorted([own, *others], key=lambda p: p.worker)

    def _publish(self, readings: metrics.Readings) -> None:
        if self._shared_slots is None or self._slot is None:
            return
        try:
            self._shared_slots.write(self._slot, orjson.dumps(readings))
        except ValueError as exc:
            log.warning("readings_too_large", error=str(exc))

    async def run(self) -> None:
        """Publish the readings once a second, until cancelled."""
        measuring = asyncio.get_running_loop().create_task(self._loop_lag.run())
        try:
            while True:
                self._publish({**metrics.gather(self._node, self._loop_lag), **self._request_metrics.readings()})
                await asyncio.sleep(PUBLISH_SECONDS)
        finally:
            measuring.cancel()
