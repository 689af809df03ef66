"""A large import over a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import orjson
import psutil

from tests.support import live
from tests.support.api_client import job

if TYPE_CHECKING:
    from collections.abc import Iterator


def lines(count: int, size: int) -> Iterator[bytes]:
    for i in range(count):
        yield orjson.dumps(job(jobId=f"big{i % 20}", body="x" * size)) + b"\n"


def test_a_large_import_takes_little_memory(mongodb_uri: str, db_name: str) -> None:
    """100 MB of long lines add less than 80 MB to the memory of the node."""
    with live.process(mongodb_uri, db_name) as (url, pid):
        workers = psutil.Process(pid).children()
        before = sum(w.memory_info().rss for w in workers)
        most = before

        def watched() -> Iterator[bytes]:
            nonlocal most
            for line in lines(400, 256 * 1024):
                most = max(most, sum(w.memory_info().rss for w in workers))
                yield line

        headers = {"Content-Type": "application/x-ndjson"}
        answer = httpx.post(f"{url}/jobs/import", content=watched(), headers=headers, timeout=60)
        assert answer.json()["failed"] == 0
        assert answer.json()["created"] == 20
        assert most - before < 80 * 2**20
