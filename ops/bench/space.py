"""The bytes per execution in history, indexes and oplog: `python -m ops.bench.space`.

The capacity planning in ops/RUNBOOK.md uses these figures. Real nodes on a fresh embedded MongoDB, with small bodies and
short responses. Up to 2 KiB of each response are stored too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ops.bench.testbed import open_testbed, running_cluster
from ops.support.output import print_json

if TYPE_CHECKING:
    from pymongo import MongoClient


def _size(client: MongoClient[dict[str, Any]], database: str, collection: str) -> dict[str, float]:
    statistics = client[database].command("collStats", collection)
    return {k: float(statistics.get(k, 0)) for k in ("count", "size", "storageSize", "totalIndexSize")}


@click.command()
@click.option("--rate", default=500, show_default=True, help="Jobs due every second.")
@click.option("--seconds", default=40, show_default=True, help="Duration of the measurement in seconds.")
def main(rate: int, seconds: int) -> None:
    """Measure bytes per execution."""
    with open_testbed() as testbed, running_cluster(testbed) as cluster:
        client, name = cluster.client, cluster.db.name
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        time.sleep(5)  # the import also writes to the oplog, which must not be counted
        before, recorded = _size(client, "local", "oplog.rs"), _size(client, name, "history")["count"]
        time.sleep(seconds)
        after, final = _size(client, "local", "oplog.rs"), _size(client, name, "history")["count"]
        client.admin.command("fsync")
        history = _size(client, name, "history")
        count = final - recorded
        print_json(
            {
                "executions": int(count),
                "historyBytes": round(history["size"] / history["count"]),
                "historyBytesOnDisk": round(history["storageSize"] / history["count"]),
                "historyIndexBytesOnDisk": round(history["totalIndexSize"] / history["count"]),
                "oplogBytes": round((after["size"] - before["size"]) / count),
                "owedBytesAtOnce": int(_size(client, name, "executions")["size"]),
            }
        )


if __name__ == "__main__":
    main()
