"""Traces to an OTLP collector, with the extra `horae[otel]`: the one place that names OpenTelemetry.

Spans are made by the engine as values with ids of their own (`cluster.core.execution.trace`); here they only become what the
exporter sends, in a thread of its own. A collector that is away costs spans, never executions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any, cast

import structlog

from cluster.clock import Clock
from cluster.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from cluster.core.execution.trace import Span
    from config.settings import Settings

log = structlog.get_logger()

EXPORT_SECONDS = 5.0
LOG_LOSSES_SECONDS = 60.0
CLOSE_SECONDS = 2.0
QUEUED = 16_384
MISSING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: pip install 'horae[otel]', or unset it"
)


def check_tracing(settings: Settings) -> None:
    """Raises `ConfigurationError` if traces are wanted and cannot be had."""
    if settings.otlp_endpoint:
        try:
            import opentelemetry.exporter.otlp.proto.http.trace_exporter
            import opentelemetry.sdk.trace  # noqa: F401
        except ImportError as exc:
            raise ConfigurationError([MISSING]) from exc


class Tracing:
    """A `Trace` that exports what it takes. `ratio` (0..1) of all traces are collected, the same on every node."""

    def __init__(self, endpoint: str, ratio: float, node: str) -> None:
        from importlib.metadata import version

        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        url = endpoint.rstrip("/")
        exporter = OTLPSpanExporter(
            endpoint=url if url.endswith("/v1/traces") else f"{url}/v1/traces", timeout=EXPORT_SECONDS
        )
        logging.getLogger("opentelemetry").setLevel(
            logging.CRITICAL
        )  # several lines per attempt; `traces_lost` sums up
        self._processor: BatchSpanProcessor = BatchSpanProcessor(
            cast(Any, _Telling(exporter)),
            max_queue_size=QUEUED,
            schedule_delay_millis=1000,
            export_timeout_millis=EXPORT_SECONDS * 1000,
        )
        self._resource = Resource.create(
            {"service.name": "horae", "service.version": version("horae"), "service.instance.id": node}
        )
        self._bound = round(ratio * 2**64)

    def wants(self, trace_id: str) -> bool:
        """As OpenTelemetry's ratio sampler decides it, so that targets which sample alike agree."""
        return int(trace_id[16:], 16) < self._bound

    def take(self, spans: Iterable[Span]) -> None:
        """Queue them for the exporter's thread; what the queue has no room for is dropped."""
        for span in spans:
            self._processor.on_end(self._readable(span))

    def _readable(self, span: Span):  # type: ignore[no-untyped-def] # noqa: ANN202 - a type of the extra
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(span_id: str) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(int(span.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)

        return ReadableSpan(
            span.name,
            context(span.span_id),
            None if span.parent_id is None else context(span.parent_id),
            self._resource,
            span.attributes,
            kind=SpanKind.CLIENT if span.outgoing else SpanKind.INTERNAL,
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=int(span.start_ms * 1e6),
            end_time=int(span.end_ms * 1e6),
        )

    async def close(self) -> None:
        """Export what is queued, for at most `CLOSE_SECONDS`."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(closed.set)

        # A daemon, so that a collector that hangs does not keep the process from ending.
        threading.Thread(target=shut_down, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), CLOSE_SECONDS)


class _Telling:
    """An exporter that says once a minute how many spans were lost."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._lost = 0
        self._told: float | None = None

    def export(self, spans: Sequence[Any]) -> Any:
        """Called in the exporter's own thread."""
        result = self._exporter.export(spans)
        if result.name != "SUCCESS":
            self._lost += len(spans)
            now = Clock.monotonic()
            if self._told is None or now - self._told > LOG_LOSSES_SECONDS:
                log.warning("traces_lost", spans=self._lost)
                self._told, self._lost = now, 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


def start_tracing(settings: Settings, node: str) -> Tracing | None:
    """The collector of this process; None if nobody wants traces, and then nothing of it is even loaded."""
    if not settings.otlp_endpoint:
        return None
    return Tracing(settings.otlp_endpoint, settings.trace_ratio, node)
