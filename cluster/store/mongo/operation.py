"""Every database operation runs in `operation()`: driver errors become errors of `core.errors`, and the query is timed.

`retry_while_unavailable` repeats writes that are safe to repeat.
"""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, TypeVar

import structlog
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from cluster.core.errors import OutcomeUnknown, StoreError, StoreUnavailable
from cluster.core.histogram import COARSE_MS, Histogram

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import CodeType, TracebackType

T = TypeVar("T")
log = structlog.get_logger()

_UNCERTAIN = (ConnectionFailure, ExecutionTimeout, WriteConcernError)
"""Errors after which an operation may or may not have been applied. A write concern error means that a write was applied,
but that no majority confirmed it in time or the primary stepped down: it may still be rolled back."""
_MAY_BE_REPEATED = frozenset({6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436})
"""The codes of errors of a member that stops, steps down, or loses its connections: those of which MongoDB says that a write
may be repeated. It says so itself, by a label, only of writes that the driver would have repeated."""
DUPLICATE_KEY = 11000
ONE_REPLY = 10_000
"""The `batch_size` of a read that comes in one reply: by default the driver asks a second time for what follows 101
documents, which is a batch of executions. Replies are bounded by their bytes all the same."""


class OperationTimings:
    """Durations (ms) of one query in this process, and its errors by kind."""

    __slots__ = ("errors", "name", "times")

    def __init__(self, name: str) -> None:
        self.name = name
        self.times = Histogram(bounds=COARSE_MS)
        self.errors: dict[str, int] = {}


_timings: dict[CodeType, OperationTimings] = {}


def timings() -> dict[str, OperationTimings]:
    """The timings of every query since the process began, by `module.function`."""
    return {t.name: t for t in _timings.values()}


class operation:  # noqa: N801 - reads as `with operation():`
    """Raise driver errors as `StoreUnavailable`, `OutcomeUnknown` or `StoreError`, with the cause, and time the caller."""

    __slots__ = ("_started", "_timing")

    def __init__(self) -> None:
        caller = sys._getframe(1)  # noqa: SLF001 - the name of the calling query, so that no query repeats it
        timing = _timings.get(caller.f_code)
        if timing is None:
            module = caller.f_globals["__name__"].rpartition(".")[2]
            timing = _timings[caller.f_code] = OperationTimings(f"{module}.{caller.f_code.co_name.strip('_')}")
        self._timing = timing

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, _: type[BaseException] | None, exc: BaseException | None, __: TracebackType | None) -> None:
        self._timing.times.add((time.monotonic() - self._started) * 1000)
        if not isinstance(exc, PyMongoError):
            return
        error = _store_error(exc)
        errors, name = self._timing.errors, _ERROR_NAMES[type(error)]
        errors[name] = errors.get(name, 0) + 1
        raise error from exc


_ERROR_NAMES = {StoreUnavailable: "away", OutcomeUnknown: "outcome_unknown", StoreError: "refused"}


def _store_error(exc: PyMongoError) -> StoreError:
    if isinstance(exc, ServerSelectionTimeoutError):
        # Nothing was sent, so nothing was applied.
        return StoreUnavailable(f"no primary could be reached in time ({_first_cause(exc)})")
    if isinstance(exc, InvalidOperation) and "after close" in str(exc):
        return StoreUnavailable("this node is shutting down and has closed its connections to the database")
    if isinstance(exc, _UNCERTAIN) or exc.timeout or _may_be_repeated(exc) or _lost_concern(exc):
        return OutcomeUnknown(_reason(exc))
    return StoreError(_reason(exc))


def _first_cause(exc: PyMongoError) -> str:
    """The errors of the servers that were tried (refused, unknown name, certificate), without the topology description."""
    text = str(exc).partition(", Timeout: ")[0]
    return re.sub(r" \(configured timeouts: [^)]*\)", "", text)[:200]


def _may_be_repeated(exc: PyMongoError) -> bool:
    return exc.has_error_label("RetryableWriteError") or (
        isinstance(exc, OperationFailure) and exc.code in _MAY_BE_REPEATED
    )


def _lost_concern(exc: PyMongoError) -> bool:
    """Whether a write was applied on the primary but not confirmed by a majority."""
    return isinstance(exc, BulkWriteError | OperationFailure) and bool((exc.details or {}).get("writeConcernErrors"))


def _reason(exc: PyMongoError) -> str:
    """The driver's message, cut to 300 characters: topology descriptions run to kilobytes."""
    return str(exc)[:300]


def duplicates(exc: BulkWriteError) -> list[int] | None:
    """The positions of documents that existed already; None if there was any other error."""
    if exc.details.get("writeConcernErrors"):
        return None
    errors = exc.details.get("writeErrors", [])
    if any(e["code"] != DUPLICATE_KEY for e in errors):
        return None
    return [e["index"] for e in errors]


async def retry_while_unavailable(write: Callable[[], Awaitable[T]], *, seconds: float, during: str) -> T:
    """Repeat a write that is safe to repeat while MongoDB is unavailable, for about `seconds`; then `StoreUnavailable`.

    The driver does not retry writes of many documents. Writes passed here filter on token or id, so repeating them is
    harmless. `during` names the write in the log.
    """
    try:
        return await write()
    except StoreUnavailable as exc:
        log.warning("database_unavailable", during=during, error=str(exc))
    async for attempt in AsyncRetrying(
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        retry=retry_if_exception_type(StoreUnavailable),
        reraise=True,
    ):
        with attempt:
            return await write()
    raise StoreUnavailable(during)  # pragma: no cover - tenacity either returns or raises
