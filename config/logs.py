"""Logging: structlog with fixed event names, as JSON or for the console. Secrets are removed before output.

The volume is limited: at most `MAX_LINES` lines of one event are written per `WINDOW_SECONDS`. The next line of that event
carries the number of lines left out (`suppressed`). ops/EVENTS.md lists all events.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING

import structlog

from cluster.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor, WrappedLogger

WINDOW_SECONDS = 10.0
MAX_LINES = 20
MAX_NAMES = 1000

_SECRET_NAMES = re.compile(r"secret|password|passwd|authorization|api_?key|credential|uri$", re.IGNORECASE)
_IN_TEXT = (
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^@/\s]+@"), r"\1***@"),
    (re.compile(r"(?i)(bearer|basic)\s+[A-Za-z0-9._~+/=-]+"), r"\1 ***"),
    (re.compile(r"whsec_[A-Za-z0-9+/=]+"), "whsec_***"),
    (re.compile(r"hk_[A-Za-z0-9_-]{20,}"), "hk_***"),
)


def redact_event(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace values whose name indicates a secret, and credentials within texts, at any depth, by `***`."""
    for name, value in event.items():
        event[name] = _redacted(name, value)
    return event


def _redacted(name: str, value: object) -> object:
    if value is not None and _SECRET_NAMES.search(name):
        return "***"
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, dict):
        return {k: _redacted(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", v) for v in value]
    return value


class LineLimit:
    """A processor that drops lines of an event beyond `MAX_LINES` per window, and counts them."""

    def __init__(self, monotonic: Callable[[], float] = Clock.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Raises `DropEvent` for a line beyond the limit."""
        name = str(event.get("event"))[:64]
        now = self._monotonic()
        began, lines = self._seen.get(name, (now, 0))
        if now - began >= WINDOW_SECONDS:
            if lines > MAX_LINES:
                event["suppressed"] = lines - MAX_LINES
            began, lines = now, 0
        if len(self._seen) >= MAX_NAMES:  # our event names are few; texts of other libraries' loggers are not
            self._seen.clear()
        self._seen[name] = (began, lines + 1)
        if lines >= MAX_LINES:
            raise structlog.DropEvent
        return event


def scrub_text(text: str) -> str:
    """The text without credentials of known forms."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def configure_logging(log_format: str = "console", level: int = logging.INFO) -> None:
    """Write structlog and the standard library's loggers to stderr in one format (`console` or `json`)."""
    shared: list[Processor] = [
        LineLimit(),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        ending: list[Processor] = [
            structlog.processors.format_exc_info,
            redact_event,
            structlog.processors.JSONRenderer(),
        ]
    else:
        ending = [
            structlog.processors.format_exc_info,
            redact_event,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24),
        ]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
