"""One run under faults: a three-member MongoDB, nodes, a receiver that logs; saved, drawn and judged."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.support.embedded_mongodb import free_port
from tests.chaos.checker import figures
from tests.chaos.evidence import Bounds
from tests.chaos.faults import Faults, group
from tests.chaos.hand import Cluster
from tests.chaos.hooks import FAKETIME, clocked, hooked
from tests.chaos.observe import Watch, collect, now_ms, steady_jobs
from tests.chaos.of_members import no_disk, small_disk
from tests.chaos.saved import save, timeline
from tests.chaos.second_opinion import verify_report, wrong_findings
from tests.chaos.wire import Wire
from tests.support.cluster_progress import next_second, recorded_until, settle, wait_past
from tests.support.mongo import ReplicaSet
from tests.support.processes import Nodes, Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.chaos.evidence import Fault, Run


SEED = int(os.environ.get("SEED") or time.time())
MINUTES = float(os.environ.get("MINUTES") or 5)
RATE = int(os.environ.get("RATE") or 100)
NODES = int(os.environ.get("NODES") or 3)
MESSAGES = int(os.environ.get("MESSAGES") or 0)
"""Messages with callbacks a second, beside the few that are posted one by one."""
CHOSEN = frozenset((os.environ.get("FAULTS") or "").replace(",", " ").split())
SAVED = Path(".chaos")
DEFAULT_BOUNDS = Bounds()
CALM_AFTER, CALM = 450, 100
"""Seconds after which there is a calm of so many."""
FULL = bool({"wrong_clock", "full_disk"} & CHOSEN) or not CHOSEN
"""Whether nodes run under libfaketime, and a member gets a small disk: both cost a little."""
OF_MESSAGES = {"_id": {"$regex": r"^(msg|cb)\."}}
DIRECT = bool(CHOSEN) and {"kill_leader", "kill_node", "kill_all", "kill_primary"} >= CHOSEN
"""Whether nothing goes through the wire: deaths do not need it, and a thousand requests a second take most of a core there."""


def inject_mixed_faults(faults: Faults, dice: random.Random) -> None:
    """One fault after the other for `MINUTES`; every third comes with another one, done to something else meanwhile.

    Now and then there is a calm, in which nothing is excused after the first half minute.
    """
    # The second hand has dice of its own, or the choice would depend on which of the two threw first.
    second = Faults(replace(faults.cluster, dice=random.Random(dice.random())))
    began = calm = time.monotonic()
    with ThreadPoolExecutor(1) as hand:
        while time.monotonic() - began < MINUTES * 60:
            fault, other = dice.choice(faults.kinds(CHOSEN)), dice.choice(second.kinds(CHOSEN))
            together = dice.randrange(3) == 0 and group(fault.__name__) != group(other.__name__)
            names = f"{fault.__name__} with {other.__name__}" if together else fault.__name__
            print(round(time.monotonic() - began, 1), names, flush=True)
            meanwhile = hand.submit(second.done, other) if together else None
            faults.done(fault)
            if meanwhile is not None:
                meanwhile.result()
            time.sleep(dice.uniform(2, 15))
            if time.monotonic() - calm > CALM_AFTER:
                time.sleep(CALM)
                calm = time.monotonic()


def judge(run: Run) -> None:
    """Save the run, its picture and its verdict, and fail if there is a violation."""
    file = SAVED / f"run-{SEED}.json"
    found = save(run, file)
    file.with_suffix(".svg").write_text(timeline(run))
    asked = Counter(f"{c.verb}: {c.outcome}" for c in run.calls)
    asked["trigger"] = len(run.triggers)
    print(json.dumps({"seed": SEED, **figures(run), "violations": len(found), "calls": asked}, indent=2))
    print(f"saved: {file}; check it again with: python -m tests.chaos.saved {file}")
    assert not found, found[:20]


def done_by(nodes: Nodes, receiver: Receiver, finish: int, last: str) -> None:
    """Wait until nothing due before an instant is owed, and the last arrival is in the receiver's log.

    What is still owed is printed with its owner; the checker will find it.
    """
    with suppress(AssertionError):
        # Two cores do not send a flood as fast as it came while nodes were dead; callbacks come due when it is sent. A slow
        # machine needs ten minutes for what another one sends in four, so the bound is for a cluster that is stuck.
        wait_until(lambda: recorded_until(nodes, finish), 60 + 3 * MESSAGES, "everything due is recorded")
        wait_until(
            lambda: not nodes.db["executions"].find_one(OF_MESSAGES, {}), 10 + 3 * MESSAGES, "what follows messages"
        )
        wait_until(lambda: last in receiver.by_execution() or None, 10, "the receiver's log")
        time.sleep(1)  # the log is written a few times a second, and the last arrival need not be the last one due
        return
    owed = list(nodes.db["executions"].find().sort("due_at", 1).limit(5))
    batches = list(nodes.db["batches"].find({"_id": {"$in": [e["batch"] for e in owed]}}))
    print("owed:", owed, "in:", batches, "breakers:", list(nodes.db["breakers"].find()), sep="\n", flush=True)


def between_faults(faults: Iterable[Fault]) -> int:
    """How long (ms) no fault was going on between the first and the last one."""
    pauses, until = 0, None
    for f in sorted(faults, key=lambda f: f.start_ms):
        pauses += 0 if until is None else max(0, f.start_ms - until)
        until = f.end_ms if until is None else max(until, f.end_ms)
    return pauses


def run_under_faults(
    directory: Path,
    rate: int,
    count: int,
    seed: int,
    inject: Callable[[Faults, random.Random], None],
    *,
    full: bool = False,
    dice: random.Random | None = None,
    calls: bool = True,
    members: Mapping[int, dict[str, str]] | None = None,
    before: Callable[[ReplicaSet], None] = lambda _: None,
    jobs: Callable[[Receiver, int], list[dict[str, Any]]] = steady_jobs,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Run:
    """The evidence of a cluster of `count` nodes with `rate` jobs a second while `inject` injects faults.

    `full`: with libfaketime and a small disk, which some faults need. `members`: the environment of members of the
    database, by their place; `before`: called with the database before the nodes start.
    """
    dice = dice or random.Random(seed)
    ports = [free_port() for _ in range(4)]
    wire = Wire(ports)
    small = directory / f"db{ports[2]}"
    mounted = full and small_disk(small)
    mongo, receiver, nodes, watch, start = None, None, None, None, 0
    faults_so_far: list[Fault] = []
    try:
        own = {ports[place]: values for place, values in (members or {}).items()}
        front = {} if DIRECT else wire.front
        mongo = ReplicaSet(directory, ports[:3], front, own)
        before(mongo)
        receiver = Receiver(directory, ports[3], front.get(ports[3], ports[3]))
        points, clocks = directory / "points", directory / "clocks"
        points.mkdir()
        clocks.mkdir()
        environment = hooked(points) | (clocked(clocks) if full and FAKETIME.exists() else {})
        nodes = Nodes(directory, mongo.uri, "chaos", count, **environment)
        watch = Watch(nodes, receiver, mongo.uri, seed, rate, calls=calls, messages=MESSAGES)
        nodes.load(jobs(receiver, rate))
        settle(nodes)
        start = next_second(nodes) + 2000
        wait_past(nodes, start + 3000)
        cluster = Cluster(
            nodes, mongo, receiver, wire, points, clocks, dice, ports[2] if mounted else None, faults_so_far
        )
        inject(Faults(cluster), dice)
        wait_until(mongo.primary, 60, "a primary")
        wait_until(lambda: len(nodes.alive()) == count, 60, "all nodes")
        # The effect of the last fault may last so long; occurrences due after that must arrive on time and once.
        healed = max(f.end_ms + f.after_ms for f in faults_so_far)
        over = max(wait_until(lambda: next_second(nodes), 60, "time"), healed // 1000 * 1000)
        finish = over + bounds.recovery_ms + 10_000
        wait_past(nodes, finish, (finish - over) / 1000 + 90)
        watch.end()
        done_by(nodes, receiver, finish, f"j{rate - 1}:{finish - 1000}")
        if MESSAGES:
            # The flood is more than two cores carry between deaths: what these left behind grows from one to the next, and
            # is felt until it was worked off. So what waited may have waited in each pause between two faults too.
            worked_off = next_second(nodes) - over
            print(f"worked off {worked_off / 1000} s after the last fault")
            felt_ms = worked_off + between_faults(faults_so_far)
            bounds = replace(bounds, late_ms=5000, recovery_ms=max(bounds.recovery_ms, felt_ms))
        run = collect(nodes, receiver, watch, rate, (start, finish), faults_so_far, bounds=bounds)
        report = verify_report(mongo.uri, "chaos", start - 60_000, 60)
        print(json.dumps({"verify": report.counts.findings, "occurrences": report.counts.occurrences}))
        findings = (f"{f.kind} {f.execution}: {f.text}" for f in wrong_findings(report, late=True))
        return replace(run, verified=tuple(findings))
    except BaseException:
        if receiver is not None and nodes is not None and watch is not None and start:
            # The evidence until the failure is worth a look. The occurrences due last need not have arrived.
            with suppress(Exception):
                watch.end()
            file = SAVED / f"run-{SEED}.json"
            try:
                save(collect(nodes, receiver, watch, rate, (start, now_ms() // 1000 * 1000), faults_so_far), file)
                print(f"broken off, and saved: {file}", flush=True)
            except Exception as exc:
                print(f"broken off, and not saved: {exc!r}", flush=True)
        raise
    finally:
        wire.rule()
        if watch is not None:
            with suppress(BaseException):  # an error of the watch was raised above
                watch.end()
        if nodes is not None:
            SAVED.mkdir(exist_ok=True)
            (SAVED / f"run-{SEED}.log").write_text(nodes.log())
            nodes.close()
        if receiver is not None:
            end(receiver.process)
        if mongo is not None:
            mongo.stop()
        wire.close()
        if mounted:
            no_disk(small)
