"""Logging: structlog with fixed event names, as JSON or for people; secrets are blanked on their way out.

The volume is bounded: of one event at most `MOST_LINES` go out per `WINDOW_SECONDS`; the next one that does says how
many were left out (`suppressed`). All events are listed in ops/EVENTS.md.
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
    """Blank values whose name says secret, and credentials inside any text, however deep."""
    for name, value in event.items():
        event[name] = _blanked(name, value)
    return event


def _blanked(name: str, value: object) -> object:
    if value is not None and _SECRET_NAMES.search(name):
        return "***"
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, dict):
        return {k: _blanked(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_blanked("", v) for v in value]
    return value


class LineLimit:
    """A processor that lets so many lines of one event through per window and counts the others."""

    def __init__(self, monotonic: Callable[[], float] = Clock.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Raises `DropEvent` for what is too much."""
        name = str(event.get("event"))[:64]
        now = self._monotonic()
        began, lines = self._seen.get(name, (now, 0))
        if now - began >= WINDOW_SECONDS:
            if lines > MAX_LINES:
                event["suppressed"] = lines - MAX_LINES
            began, lines = now, 0
        if len(self._seen) >= MAX_NAMES:  # names are fixed; foreign loggers' texts are not
            self._seen.clear()
        self._seen[name] = (began, lines + 1)
        if lines >= MAX_LINES:
            raise structlog.DropEvent
        return event


def scrub_text(text: str) -> str:
    """The text without credentials of the shapes that we know."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def configure_logging(form: str = "console", level: int = logging.INFO) -> None:
    """Send structlog and the standard library's loggers to stderr in one form (`console` or `json`)."""
    shared: list[Processor] = [
        LineLimit(),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
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
