"""The sample jobs of `make run` and `make cluster`, and what is missed on purpose when they are imported for the first time."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import config
from ops.support.client import Refused, Unreachable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from ops.support.client import Client

SAMPLES = Path(config.__file__).parent / "samples" / "jobs.ndjson"
MISSING = b'"jobId":"heartbeat-'
"""The sample jobs with `catchUp: none`, of which each second that nobody sends is missed."""
REST_SECONDS = 15.0
"""More than a batch lease and the moment after which what stood unclaimed is not sent any more."""
DRAINED_SECONDS = 10.0
"""How long nodes may take to notice that they are drained."""


def load_samples(api: Client, receiver_port: int, only: bytes = b"") -> dict[str, Any]:
    """Import the sample jobs (`only`: those with this in their lines), with the receiver as their target.

    Returns the counts of the import. Repeating it changes nothing.
    """
    lines = SAMPLES.read_bytes().replace(b":5001/", f":{receiver_port}/".encode()).splitlines(keepends=True)
    chosen = b"".join(line for line in lines if only in line)
    counts: dict[str, Any] = api.upload("/jobs/import", io.BytesIO(chosen), "application/x-ndjson")
    return counts


def load_with_a_missed_range(
    api: Client, receiver_port: int, stopping: threading.Event, tell: Callable[[str], None]
) -> dict[str, Any]:
    """As `load_samples`. If the cluster has no jobs yet, the nodes rest while heartbeats are due, so that some are missed.

    `tell` gets a sentence about that. If the nodes cannot be drained, nothing is missed. `stopping` ends it early.
    """
    if api.call("GET", "/jobs", query={"limit": 1})["items"]:
        return load_samples(api, receiver_port)
    tell(f"At the first start the nodes rest for {REST_SECONDS:.0f} s while some jobs are due, as in an outage.")
    nodes = [n["nodeId"] for n in api.call("GET", "/cluster")["nodes"]]
    early: dict[str, Any] = {"created": 0}
    try:
        for node in nodes:
            api.call("POST", f"/nodes/{node}/drain")
        deadline = time.monotonic() + DRAINED_SECONDS
        while time.monotonic() < deadline and not _are_drained(api) and not stopping.wait(0.1):
            pass
        early = load_samples(api, receiver_port, MISSING)
        stopping.wait(REST_SECONDS)
    except (Refused, Unreachable):
        pass
    finally:
        for node in nodes:
            with suppress(Refused, Unreachable):  # it has died meanwhile, and the one in its place is not drained
                api.call("POST", f"/nodes/{node}/undrain")
    if stopping.is_set():
        return {**early, "updated": 0, "unchanged": 0}
    counts = load_samples(api, receiver_port)
    return {
        **counts,
        "created": counts["created"] + early["created"],
        "unchanged": counts["unchanged"] - early["created"],
    }


def _are_drained(api: Client) -> bool:
    return all(n["draining"] for n in api.call("GET", "/cluster")["nodes"])
