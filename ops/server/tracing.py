"""Traces for an OTLP collector, with the extra `horae[otel]`. Only this module imports OpenTelemetry.

The engine makes spans as values with their own ids (`cluster.core.execution.trace`). This module converts them for the
exporter, which sends them in its own thread. An unavailable collector loses spans, but never delays executions.
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
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: run pip install 'horae[otel]', or unset it"
)


def check_tracing(settings: Settings) -> None:
    """Raises `ConfigurationError` if traces are configured and OpenTelemetry is not installed."""
    if settings.otlp_endpoint:
        try:
            import opentelemetry.exporter.otlp.proto.http.trace_exporter
            import opentelemetry.sdk.trace  # noqa: F401
        except ImportError as exc:
            raise ConfigurationError([MISSING]) from exc


class Tracing:
    """Exports spans. `ratio` (0..1) of all traces are collected, the same ones on every node."""

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
            cast(Any, _LossLogger(exporter)),
            max_queue_size=QUEUED,
            schedule_delay_millis=1000,
            export_timeout_millis=EXPORT_SECONDS * 1000,
        )
        self._resource = Resource.create(
            {"service.name": "horae", "service.version": version("horae"), "service.instance.id": node}
        )
        self._bound = round(ratio * 2**64)

    def wants(self, trace_id: str) -> bool:
        """Whether the trace is collected. Decides as OpenTelemetry's ratio sampler does, so that sampling targets agree."""
        return int(trace_id[16:], 16) < self._bound

    def take(self, spans: Iterable[Span]) -> None:
        """Queue spans for the exporter's thread. Spans beyond the size of the queue are dropped."""
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
        """Export the queued spans, for at most `CLOSE_SECONDS`."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):  # the loop is closed: the wait has timed out
                loop.call_soon_threadsafe(closed.set)

        # A daemon thread, so that a hanging collector does not prevent the end of the process.
        threading.Thread(target=shut_down, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), CLOSE_SECONDS)


class _LossLogger:
    """An exporter that logs once a minute how many spans were lost."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._lost = 0
        self._logged_at: float | None = None

    def export(self, spans: Sequence[Any]) -> Any:
        """Runs in the exporter's thread."""
        result = self._exporter.export(spans)
        if result.name != "SUCCESS":
            self._lost += len(spans)
            now = Clock.monotonic()
            if self._logged_at is None or now - self._logged_at > LOG_LOSSES_SECONDS:
                log.warning("traces_lost", spans=self._lost)
                self._logged_at, self._lost = now, 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


def start_tracing(settings: Settings, node: str) -> Tracing | None:
    """The tracing of this process; None if it is not configured, and then OpenTelemetry is not even imported."""
    if not settings.otlp_endpoint:
        return None
    return Tracing(settings.otlp_endpoint, settings.trace_ratio, node)
