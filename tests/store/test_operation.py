"""What the driver says becomes what the engine understands: not done, perhaps done, or a fault of ours."""

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
        (WTimeoutError("waiting for replication timed out", 64, {}), OutcomeUnknown),
        (WriteConcernError("operation was interrupted", 11602, INTERRUPTED), OutcomeUnknown),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [INTERRUPTED]}), OutcomeUnknown),
        (OperationFailure("not authorized", 13), StoreError),
        (DuplicateKeyError("E11000", 11000), StoreError),
        (InvalidOperation("no operations to execute"), StoreError),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else str(x)[:30],
)
def test_what_the_driver_says(exc: PyMongoError, ours: type[StoreError]) -> None:
    """A primary that steps down in the middle of a write says that it was done, and it may be undone yet: unknown."""
    with pytest.raises(StoreError) as caught, operation():
        raise exc
    assert type(caught.value) is ours
    assert caught.value.__cause__ is exc


async def test_a_request_to_a_node_that_is_stopping_is_no_fault() -> None:
    """Its connections are closed: 503 and not 500."""
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(
        "mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100
    )
    await client.close()
    with pytest.raises(StoreUnavailable, match="shutting down"), operation():
        await client.horae.jobs.find_one({})
