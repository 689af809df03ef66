"""`horae leases release`, `leader resign`, `nodes drain|undrain`: requests of an operator to a running cluster.

Each command first says what will happen. A lease is released by compare-and-set on its token. The other requests are
written into the heartbeat document of the node, which reads them every two seconds and acts on them itself.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import click

from cluster.core.audit_entry import new_entry
from cluster.core.execution.model import Batch
from cluster.store import audit, batches, leases, nodes
from ops.commands.status import read_database
from ops.support.output import duration, print_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cluster.store.batches import LeasedBatch
    from cluster.store.mongo.client import Database
    from cluster.store.nodes import NodeStatus

WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.25
YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
WAIT = click.option(
    "--wait",
    "seconds",
    default=WAIT_SECONDS,
    show_default=True,
    type=click.FloatRange(0, 3600),
    help="Seconds to wait for the result; 0: do not wait.",
)
T = TypeVar("T")


class NoMatch(click.ClickException):
    """No item matches a name, or several do. Exit status 1."""

    exit_code = 1


def select_one(kind: str, items: Sequence[T], name: str, name_of: Callable[[T], str]) -> T:
    """The item with this name, or the only one whose name begins with it. Raises `NoMatch`."""
    matches = [x for x in items if name_of(x) == name] or [x for x in items if name and name_of(x).startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NoMatch(f"more than one {kind} begins with '{name}': {', '.join(name_of(x) for x in matches[:5])}")
    known = ", ".join(name_of(x) for x in items[:5]) or "none exists"
    raise NoMatch(f"there is no {kind} '{name}'; existing: {known}")


def confirm(text: str, *, yes: bool) -> None:
    """Print what will happen and ask for confirmation. Without a terminal, `--yes` is needed."""
    click.echo(text, err=True)
    if yes:
        return
    try:
        sure = click.confirm("Continue?", err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo("", err=True)
        raise click.UsageError("standard input is no terminal, so nothing was done: confirm with --yes") from None
    if not sure:
        raise SystemExit(1)


@click.command("release")
@click.argument("batch")
@YES
@JSON
def release_command(batch: str, yes: bool, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Release the lease of BATCH (its id or the beginning of it), so that any node can claim it now.

    Use this for a node that is stuck. The leases of a dead node expire by themselves. Exit status 1 if the lease has
    changed in the meantime.
    """

    async def look(db: Database) -> tuple[list[LeasedBatch], list[NodeStatus], int]:
        return await batches.list_leased(db), *await nodes.nodes_and_clock(db)

    leased, present, now = read_database(look)
    b = select_one("leased batch", leased, batch, lambda x: x.id)
    owner = next((n for n in present if n.id == b.owner), None)
    heartbeat = (
        "has no heartbeat" if owner is None else f"sent its last heartbeat {duration((now - owner.seen_ms) / 1000)} ago"
    )
    expires_in = duration((b.expires_ms - now) / 1000)
    confirm(
        f"Batch {b.id}: {b.executions} execution(s), leased by {b.owner} (token {b.token}), which {heartbeat}. The lease "
        f"expires in {expires_in}.\nAfter the release another node can send the unsent executions at once. Requests that "
        f"{b.owner} is sending now may reach their target twice, with the same Idempotency-Key. {b.owner} sends no more of "
        "this batch.",
        yes=yes,
    )

    async def release(db: Database) -> bool:
        fenced = Batch(
            id=b.id,
            ids=(),
            lane=b.lane,
            attempt=b.attempt,
            send_ms=0,
            claimable_ms=0,
            owner=b.owner,
            token=b.token,
        )
        if not await batches.release(db, fenced, None):
            return False
        # A batch carries no entries: it goes when its work is done. The entry is written before the answer.
        entry = new_entry(f"batch:{b.id}", "release", now)
        await audit.record(db, replace(entry, detail={"owner": b.owner, "token": b.token}))
        return True

    released = read_database(release)
    if as_json:
        print_json({"batch": b.id, "owner": b.owner, "token": b.token, "released": released})
    else:
        click.echo(
            f"released {b.id}"
            if released
            else f"the lease of {b.id} has changed (token {b.token} is no longer valid): nothing was done"
        )
    sys.exit(0 if released else 1)


@click.command("resign")
@YES
@WAIT
@JSON
def resign_command(yes: bool, seconds: float, as_json: bool) -> None:  # noqa: FBT001
    """Ask the leader to resign, so that another node leads. No execution is late because of this.

    Exit status 1 if there is no new leader in time.
    """

    async def look(db: Database) -> tuple[leases.Leadership, list[NodeStatus], int]:
        return await leases.leadership(db), *await nodes.nodes_and_clock(db)

    leader, present, now = read_database(look)
    if leader.node is None:
        raise NoMatch("there is no leader now")
    others = [n for n in present if n.id != leader.node and not n.is_silent(now) and not n.draining]
    successor = (
        f"one of {len(others)} other node(s) leads within seconds"
        if others
        else "THERE IS NO OTHER NODE: executions are not written ahead of time until this node leads again, after one leader lease"
    )
    confirm(
        f"{leader.node} (term {leader.term}) resigns; {successor}. Executions due now are already in the database.",
        yes=yes,
    )
    name, term = leader.node, leader.term

    async def ask(db: Database) -> leases.Leadership:
        if not await nodes.request_resign(db, name, now, term):
            raise NoMatch(f"{name} has no heartbeat: it has stopped, and another node will lead without this command")
        return await poll_until(
            lambda: leases.leadership(db), lambda current: current.term > term and bool(current.node), seconds
        )

    current = read_database(ask)
    changed = current.term > term
    if as_json:
        print_json(
            {"nodeId": name, "term": term, "resigned": changed, "leader": current.node, "leaderTerm": current.term}
        )
    elif changed:
        click.echo(f"{current.node} is the leader in term {current.term}")
    else:
        click.echo(f"the request was sent, but there was no new leader within {seconds:g} s")
    sys.exit(0 if changed or not seconds else 1)


async def poll_until(look: Callable[[], Awaitable[T]], matches: Callable[[T], bool], seconds: float) -> T:
    """Read until the value matches, for at most `seconds`. Returns the last value."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        value = await look()
        if matches(value) or loop.time() >= end:
            return value
        await asyncio.sleep(LOOK_SECONDS)


@click.command("drain")
@click.argument("node")
@YES
@WAIT
@JSON
def drain_command(node: str, yes: bool, seconds: float, as_json: bool) -> None:  # noqa: FBT001
    """Drain NODE (its id or the beginning of it): it claims no batches and does not lead, but keeps running.

    The node releases unsent work to other nodes and finishes the requests in flight; its /readyz answers 503. This lasts
    until `undrain` or a restart of the node. Exit status 1 if the node was not idle in time.
    """
    present, now = read_database(nodes.nodes_and_clock)
    chosen = select_one("node", present, node, lambda n: n.id)
    others = [n for n in present if n.id != chosen.id and not n.is_silent(now) and not n.draining]
    if not others:
        confirm(f"{chosen.id} is the only working node: nothing is sent until it is undrained.", yes=yes)
    _request_drain(chosen.id, now, seconds, as_json=as_json, drain=True)


@click.command("undrain")
@click.argument("node")
@WAIT
@JSON
def undrain_command(node: str, seconds: float, as_json: bool) -> None:  # noqa: FBT001
    """Undrain NODE: it claims batches again. Exit status 1 if it does not in time."""
    present, now = read_database(nodes.nodes_and_clock)
    _request_drain(select_one("node", present, node, lambda n: n.id).id, now, seconds, as_json=as_json, drain=False)


def _request_drain(name: str, now: int, seconds: float, *, as_json: bool, drain: bool) -> None:
    def done(n: NodeStatus | None) -> bool:
        if n is None:
            return True
        return n.draining and not (n.in_flight or n.waiting or n.leading) if drain else not n.draining

    async def ask(db: Database) -> NodeStatus | None:
        async def look() -> NodeStatus | None:
            present, _ = await nodes.nodes_and_clock(db)
            return next((n for n in present if n.id == name), None)

        if not await nodes.request_drain(db, name, now, drain=drain):
            raise NoMatch(f"{name} has no heartbeat: it has stopped")
        return await poll_until(look, done, seconds)

    n = read_database(ask)
    ok = n is not None and done(n)
    what = {"draining": n.draining, "inFlight": n.in_flight, "waiting": n.waiting, "leading": n.leading} if n else {}
    if as_json:
        print_json({"nodeId": name, "done": ok, **what})
    elif n is None:
        click.echo(f"{name} has stopped in the meantime")
    elif ok:
        click.echo(f"{name} {'is drained: it has no work and keeps running' if drain else 'works again'}")
    else:
        left = f"{n.in_flight} in flight, {n.waiting} waiting"
        click.echo(f"the request was sent, but {name} is {'not idle yet' if drain else 'still drained'} ({left})")
    sys.exit(0 if ok or (n is not None and not seconds) else 1)
