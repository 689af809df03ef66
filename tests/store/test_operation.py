"""Errors of the driver become errors of the store: not applied, outcome unknown, or refused."""

from __future__ import annotations

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from cluster.core.errors import OutcomeUnknown, StoreError, StoreUnavailable
from cluster.store.mongo.operation import operation

INTERRUPTED = {"code": 11602, "codeName": "InterruptedDueToReplStateChange", "errmsg": "operation was interrupted"}


@pytest.mark.parametrize(
    ("exc", "ours"),
    [
        (ServerSelectionTimeoutError("no primary"), StoreUnavailable),
        (AutoReconnect("closed"), OutcomeUnknown),
        (ExecutionTimeout("too long"), OutcomeUnknown),
        (OperationFailure("interrupted: the storage changes", 262), OutcomeUnknown),
        (OperationFailure("a host cannot be reached", 6), OutcomeUnknown),
        (WTimeoutError("waiting for replication timed out", 64, {}), OutcomeUnknown),
        (WriteConcernError("operation was interrupted", 11602, INTERRUPTED), OutcomeUnknown),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [INTERRUPTED]}), OutcomeUnknown),
        (OperationFailure("not authorized", 13), StoreError),
        (DuplicateKeyError("E11000", 11000), StoreError),
        (InvalidOperation("no operations to execute"), StoreError),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else str(x)[:30],
)
def test_each_driver_error_becomes_the_right_store_error(exc: PyMongoError, ours: type[StoreError]) -> None:
    """A write whose primary steps down may still be rolled back, so its outcome is unknown."""
    with pytest.raises(StoreError) as caught, operation():
        raise exc
    assert type(caught.value) is ours
    assert caught.value.__cause__ is exc


async def test_an_operation_after_shutdown_is_store_unavailable() -> None:
    """The API answers 503 and not 500."""
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(
        "mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100
    )
    await client.close()
    with pytest.raises(StoreUnavailable, match="shutting down"), operation():
        await client.horae.jobs.find_one({})
