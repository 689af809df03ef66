"""`make bench-peers`: Horae and its peers on one machine in one run, POSTing to one nginx.

python -m ops.bench.peers [--seconds 8] [--start 4000] [--step 1000] [--peer Horae --peer BullMQ ...]

It takes some six minutes, or with `--peer` as long as these peers take. Each result is said as it comes, and all of them in a table at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ops.bench.command import herd
from ops.bench.peers import install, rivals
from ops.bench.peers.rivals import Result
from ops.bench.rates import highest
from ops.bench.testbed import machine_facts, open_testbed
from ops.support.output import print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.testbed import Testbed


AT_ONCE = 20_000


def horae(testbed: Testbed, start: int, seconds: int, step: int) -> Result:
    """The highest rate of recurring jobs that holds, each request recorded by a majority with its attempts.

    As with the others the time to add the jobs is left out.
    """
    row = highest(testbed, start, seconds, step, added_before=True)
    note = f"jobs due on the same instant of each second, {seconds} s, steps of {step}"
    return Result("Horae, MongoDB", row.rate or None, note if row.rate else row.note, row.p99)


def horae_at_once(testbed: Testbed) -> Result:
    """Jobs that are due at one instant: how many a second until the last one has left."""
    row = herd(testbed, AT_ONCE)
    return Result("Horae, MongoDB, at once", row.rate or None, f"{AT_ONCE:,} jobs due at one instant", row.p99)


def measured(testbed: Testbed, args: argparse.Namespace) -> list[Result]:
    """A row for each. One that cannot be measured here has a row that says what is missing."""
    cases: dict[str, Callable[[], Result]] = {
        "BullMQ": lambda: rivals.bullmq_backlog(testbed, append_only=False),
        "BullMQ, append-only file": lambda: rivals.bullmq_backlog(testbed, append_only=True),
        "BullMQ with `delay`": lambda: rivals.bullmq_delayed_highest(testbed, args.start, args.seconds, args.step),
        "Horae": lambda: horae(testbed, args.start, args.seconds, args.step),
        "Horae, at once": lambda: horae_at_once(testbed),
        "Agenda": lambda: rivals.agenda(testbed),
        "APScheduler": lambda: rivals.apscheduler(testbed),
        "BullMQ again": lambda: rivals.bullmq_backlog(testbed, append_only=False),
    }
    results = []
    for name, run in cases.items():
        if args.peers and name not in args.peers:
            continue
        print(f"... {name}", file=sys.stderr, flush=True)
        try:
            results.append(run())
        except install.PeerMissing as exc:
            results.append(Result(name, None, f"skipped: {exc}"))
        found = results[-1]
        print(
            f"    {found.rate and round(found.rate)} a second, p99 {found.p99_ms}: {found.note}",
            file=sys.stderr,
            flush=True,
        )
    return results


def main() -> None:
    """Install, measure and print."""
    parser = argparse.ArgumentParser(description="Horae and its peers, POSTing to one nginx")
    parser.add_argument("--seconds", type=int, default=8, help="duration of a measurement at a rate")
    parser.add_argument("--start", type=int, default=4000, help="first rate of the searches")
    parser.add_argument("--step", type=int, default=1000)
    parser.add_argument("--peer", dest="peers", action="append", help="measure only this one; can be repeated")
    args = parser.parse_args()
    with open_testbed() as testbed:
        if testbed.target.kind != "nginx":
            sys.exit("nginx is not installed (Debian: apt-get install nginx-light)")
        facts = machine_facts(testbed.target)
        results = measured(testbed, args)
    package = json.loads(Path(__file__).with_name("package.json").read_text())["dependencies"]
    print(", ".join(f"{k} {v}" for k, v in {**facts, **package, "horae": version("horae")}.items()))
    in_memory = [r.rate for r in results if r.name == "BullMQ, Redis in memory" and r.rate]
    base = sum(in_memory) / len(in_memory) if in_memory else None
    print_table(
        "POSTs a second",
        ["scheduler", "a second", "of BullMQ in memory", "p99 ms", "how"],
        [
            (
                r.name,
                None if r.rate is None else round(r.rate),
                None if base is None or r.rate is None else f"{r.rate / base:.2f}",
                None if r.p99_ms is None else round(r.p99_ms),
                r.note,
            )
            for r in results
        ],
    )


if __name__ == "__main__":
    main()
