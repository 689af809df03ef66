"""APScheduler 3 on MongoDB as a peer of Horae: one-off jobs that are all due, POSTed with httpx by its asyncio executor.

python apscheduler_peer.py MONGODB_URI DATABASE URL COUNT

It runs in an environment of its own, prints "ready" when the jobs are stored, and works them off after a line of input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta

import httpx
from apscheduler.jobstores.mongodb import MongoDBJobStore  # type: ignore[import-not-found]
from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-not-found]

URL, COUNT = sys.argv[3], int(sys.argv[4])
CLIENT = httpx.AsyncClient(limits=httpx.Limits(max_connections=64, max_keepalive_connections=64), timeout=60)
DONE = asyncio.Event()
LEFT = [COUNT]


async def post(number: int) -> None:
    """One run of a job."""
    (await CLIENT.post(f"{URL}/{number}", json={"n": number})).raise_for_status()
    LEFT[0] -= 1
    if not LEFT[0]:
        DONE.set()


async def main() -> None:
    """Store the jobs, wait, work them off."""
    scheduler = AsyncIOScheduler(
        jobstores={"default": MongoDBJobStore(database=sys.argv[2], host=sys.argv[1])}, timezone=UTC
    )
    scheduler.start(paused=True)
    past = datetime.now(UTC) - timedelta(seconds=1)
    for number in range(COUNT):
        scheduler.add_job(post, "date", run_date=past, args=[number], misfire_grace_time=None)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()
    scheduler.resume()
    await DONE.wait()
    print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    scheduler.shutdown(wait=False)
    await CLIENT.aclose()


if __name__ == "__main__":
    asyncio.run(main())
