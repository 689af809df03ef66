"""`/metrics`: the readings of all workers behind this port and the state of the cluster, for Prometheus."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from api.resources.metric_series import AGE, CLUSTER, INFO, WORKER
from cluster.core.errors import StoreError
from cluster.store import batches, breakers, schedules
from cluster.store.mongo.deadlines import within

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from falcon.asgi import Request, Response
    from prometheus_client.metrics_core import Metric

    from api.http.context import Services, WorkerReadings
    from api.resources.metric_series import Series
    from cluster.core.limits.circuit_breaker import Breaker

MAX_HOSTS = 50
DATABASE_SECONDS = 2.0
"""A scrape must not hang because the database does."""


class Metrics:
    """`/metrics`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_get(self, req: Request, resp: Response) -> None:
        """The metrics as text, in the OpenMetrics format if the scraper accepts it."""
        cluster = await self._cluster()
        encode, kind = choose_encoder(req.accept)
        # In a thread: rendering takes some ms, in which the event loop may have a request to send.
        resp.data = await asyncio.to_thread(render_exposition, encode, self._services.worker_readings(), cluster)
        resp.content_type = kind

    async def _cluster(self) -> dict[str, Any]:
        lookahead_ms = int(self._services.settings.lookahead_seconds * 1000)
        unavailable: dict[str, Any] = {"lookahead_ms": lookahead_ms, "database_up": 0}
        try:
            with within(DATABASE_SECONDS):
                waiting = await batches.backlog(self._services.db)
                earliest = await schedules.earliest_next_ms(self._services.db)
                open_in_all, listed = await breakers.earliest_opened(self._services.db, MAX_HOSTS)
        except StoreError:
            return unavailable
        now = self._services.clock.now_ms()
        ahead = lookahead_ms if earliest is None else min(lookahead_ms, earliest - now)
        return {
            **unavailable,
            "database_up": 1,
            "backlog": {"ready": waiting.ready, "leased": waiting.leased, "late": waiting.late},
            "oldest_due_ms": 0 if waiting.oldest_ms is None else max(0, now - waiting.oldest_ms),
            "ahead_ms": ahead,
            "breakers_open": open_in_all,
            "breakers": _breaker_states(listed),
        }


def _breaker_states(listed: Sequence[Breaker]) -> dict[str, int]:
    """1 for each of these hosts. At most `MAX_HOSTS` are read, so that an outage of many targets makes few series."""
    return {f"{b.host} {'half_open' if b.half_open else 'open'}": 1 for b in listed}


class _Readings(Collector):
    """The metric families of one scrape."""

    def __init__(self, workers: Sequence[WorkerReadings], cluster: Mapping[str, Any]) -> None:
        self._workers = workers
        self._cluster = cluster

    def collect(self) -> Iterable[Metric]:
        """All families with their samples."""
        for s in WORKER:
            metric = _family(s, ("worker", *s.labels))
            for w in self._workers:
                _add(metric, s, w.readings.get(s.readings_key), (str(w.worker),))
            yield metric
        for s in CLUSTER:
            metric = _family(s, s.labels)
            _add(metric, s, self._cluster.get(s.readings_key), ())
            yield metric
        info = GaugeMetricFamily(INFO[0], INFO[1], labels=INFO[2])
        age = GaugeMetricFamily(AGE[0], AGE[1], labels=("worker",))
        for w in self._workers:
            r = w.readings
            info.add_metric([str(w.worker), r["node"], r["version"], str(r["pid"])], 1)
            age.add_metric([str(w.worker)], round(w.age_seconds, 3))
        yield info
        yield age


def _family(s: Series, labels: Sequence[str]) -> Metric:
    family_class = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}[
        s.kind
    ]
    family: Metric = family_class(s.name, s.help, labels=labels)
    return family


def _add(metric: Any, s: Series, value: Any, labels: tuple[str, ...]) -> None:
    """Add one sample, or one per label value. An unknown reading (the database is unavailable) adds none."""
    if value is None:
        return
    if s.labels:
        for key, inner in sorted(value.items()):
            _sample(metric, s, inner, (*labels, *key.split(" ")))
    else:
        _sample(metric, s, value, labels)


def _sample(metric: Any, s: Series, value: Any, labels: tuple[str, ...]) -> None:
    if s.kind != "histogram":
        metric.add_metric(labels, value * s.scale)
        return
    bounds = [*(f"{b * s.scale:.12g}" for b in s.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(value["counts"]), strict=True))
    metric.add_metric(labels, buckets, value["sum"] * s.scale)


def render_exposition(encode: Any, workers: Sequence[WorkerReadings], cluster: Mapping[str, Any]) -> bytes:
    """All metrics as text, by the encoder that the scraper chose."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Readings(workers, cluster))
    text: bytes = encode(registry)
    return text
