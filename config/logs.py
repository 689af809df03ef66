"""Logging: structlog with fixed event names, as JSON or for people; secrets are blanked on their way out."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_NAMES = re.compile(r"secret|password|passwd|authorization|api_?key|credential|uri$", re.IGNORECASE)
_IN_TEXT = (
    (re.compile(r"(mongodb(?:\+srv)?://)[^@/\s]+@"), r"\1***@"),
    (re.compile(r"(?i)(bearer|basic)\s+[A-Za-z0-9._~+/=-]+"), r"\1 ***"),
    (re.compile(r"whsec_[A-Za-z0-9+/=]+"), "whsec_***"),
)


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Blank values whose name says secret, and credentials inside any text."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name) and value is not None:
            event[name] = "***"
        elif isinstance(value, str):
            event[name] = scrub(value)
    return event


def scrub(text: str) -> str:
    """The text without credentials of the shapes that we know."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def set_up(form: str = "console", level: int = logging.INFO) -> None:
    """Send structlog and the standard library's loggers to stderr in one form (`console` or `json`)."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        ending: list[Processor] = [structlog.processors.format_exc_info, redact, structlog.processors.JSONRenderer()]
    else:
        ending = [
            structlog.processors.format_exc_info,
            redact,
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
