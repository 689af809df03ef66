"""The door to the driver: its errors become ours here, and writes that are safe to repeat are repeated here."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import structlog
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from cluster.core.errors import OutcomeUnknown, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")
log = structlog.get_logger()

_AWAY = (ConnectionFailure, ExecutionTimeout, WTimeoutError)
DUPLICATE_KEY = 11000


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into `StoreUnavailable`, `OutcomeUnknown` or `StoreError`, the cause kept."""
    try:
        yield
    except ServerSelectionTimeoutError as exc:
        # Nothing was sent, so nothing was applied.
        raise StoreUnavailable("no primary could be reached in time") from exc
    except _AWAY as exc:
        raise OutcomeUnknown(_reason(exc)) from exc
    except PyMongoError as exc:
        if exc.timeout or exc.has_error_label("RetryableWriteError") or _lost_concern(exc):
            raise OutcomeUnknown(_reason(exc)) from exc
        raise StoreError(_reason(exc)) from exc


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


async def insist(write: Callable[[], Awaitable[T]], *, seconds: float, event: str) -> T:
    """Repeat a write that is safe to repeat while MongoDB is away, for at most `seconds`; then `StoreUnavailable`.

    The driver never retries a write of many documents; ours name their token or id, so once more does no harm.
    """
    try:
        return await write()
    except StoreUnavailable as exc:
        log.warning("store_away", during=event, error=str(exc))
    async for attempt in AsyncRetrying(
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        retry=retry_if_exception_type(StoreUnavailable),
        reraise=True,
    ):
        with attempt:
            return await write()
    raise StoreUnavailable(event)  # pragma: no cover - tenacity either returns or raises
