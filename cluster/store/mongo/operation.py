"""The door to the driver: its errors become ours here, and writes that are safe to repeat are repeated here.

Whoever passes is timed under the name of the query that came in: two readings of a clock and one addition each.
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

_AWAY = (ConnectionFailure, ExecutionTimeout, WriteConcernError)
"""What leaves open whether it was done. A write concern error says that it was, on a primary that no majority follows any
more (it stepped down meanwhile) or not soon enough: it may be undone yet."""
DUPLICATE_KEY = 11000


class OperationTimings:
    """How long one query of this process took, and how often which error came of it."""

    __slots__ = ("errors", "name", "times")

    def __init__(self, name: str) -> None:
        self.name = name
        self.times = Histogram(bounds=COARSE_MS)
        self.errors: dict[str, int] = {}


_timings: dict[CodeType, OperationTimings] = {}


def timings() -> dict[str, OperationTimings]:
    """By `collection.query`: everything that passed this door since the process began."""
    return {t.name: t for t in _timings.values()}


class operation:  # noqa: N801 - it reads as a word: `with translated():`
    """Turn the driver's errors into `StoreUnavailable`, `OutcomeUnknown` or `StoreError`, the cause kept."""

    __slots__ = ("_started", "_timing")

    def __init__(self) -> None:
        caller = sys._getframe(1)  # noqa: SLF001 - the query's own name, so that nobody has to say it twice
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
        ours = _ours(exc)
        errors, name = self._timing.errors, _ERROR_NAMES[type(ours)]
        errors[name] = errors.get(name, 0) + 1
        raise ours from exc


_ERROR_NAMES = {StoreUnavailable: "away", OutcomeUnknown: "outcome_unknown", StoreError: "refused"}


def _ours(exc: PyMongoError) -> StoreError:
    if isinstance(exc, ServerSelectionTimeoutError):
        # Nothing was sent, so nothing was applied.
        return StoreUnavailable(f"no primary could be reached in time ({_first_cause(exc)})")
    if isinstance(exc, InvalidOperation) and "after close" in str(exc):
        return StoreUnavailable("this node is stopping, and has no connection to the database any more")
    if isinstance(exc, _AWAY) or exc.timeout or exc.has_error_label("RetryableWriteError") or _lost_concern(exc):
        return OutcomeUnknown(_reason(exc))
    return StoreError(_reason(exc))


def _first_cause(exc: PyMongoError) -> str:
    """What the first servers said: refused, a name that is none, a certificate. Topology descriptions are left out."""
    text = str(exc).partition(", Timeout: ")[0]
    return re.sub(r" \(configured timeouts: [^)]*\)", "", text)[:200]


def _lost_concern(exc: PyMongoError) -> bool:
    """Whether a write was applied on the primary alone, as far as we know: the majority did not confirm it."""
    return isinstance(exc, BulkWriteError | OperationFailure) and bool((exc.details or {}).get("writeConcernErrors"))


def _reason(exc: PyMongoError) -> str:
    """The driver's sentence, cut: topology descriptions run to kilobytes."""
    return str(exc)[:300]


def duplicates(exc: BulkWriteError) -> list[int] | None:
    """The positions of the documents that existed already, or None if anything else went wrong."""
    if exc.details.get("writeConcernErrors"):
        return None
    errors = exc.details.get("writeErrors", [])
    if any(e["code"] != DUPLICATE_KEY for e in errors):
        return None
    return [e["index"] for e in errors]


async def retry_while_unavailable(write: Callable[[], Awaitable[T]], *, seconds: float, during: str) -> T:
    """Repeat a write that is safe to repeat while MongoDB is away, for at most `seconds`; then `StoreUnavailable`.

    The driver never retries a write of many documents; ours name their token or id, so once more does no harm.
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
