"""`horae leases release`, `leader resign`, `nodes drain|undrain`: what an operator may ask of a live cluster.

Each says first what will happen. Nothing here acts for a node: a lease is released by compare-and-set on its token, and
the rest is asked of the node by a mark in its heartbeat document, which it looks at every two seconds.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, TypeVar

import click

from cluster.core.execution.model import Batch
from cluster.store import batches, leases, nodes
from ops.commands.status import SILENT_MS, read_database
from ops.support.output import duration, print_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cluster.store.batches import LeasedBatch
    from cluster.store.mongo.client import Database
    from cluster.store.nodes import NodeStatus

WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.25
YES = click.option("--yes", is_flag=True, help="Do not ask.")
JSON = click.option("--json", "form", is_flag=True, help="Print JSON.")
WAIT = click.option(
    "--wait",
    "seconds",
    default=WAIT_SECONDS,
    show_default=True,
    type=click.FloatRange(0, 3600),
    help="Seconds to wait; 0: do not.",
)
T = TypeVar("T")


class NoMatch(click.ClickException):
    """There is no such thing, or several. Exit status 1."""

    exit_code = 1


def select_one(kind: str, found: Sequence[T], name: str, named: Callable[[T], str]) -> T:
    """The one of this name, or the only one that begins so. Raises `Unknown`."""
    fits = [x for x in found if named(x) == name] or [x for x in found if name and named(x).startswith(name)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise NoMatch(f"more than one {kind} begins with '{name}': {', '.join(named(x) for x in fits[:5])}")
    known = ", ".join(named(x) for x in found[:5]) or "there is none"
    raise NoMatch(f"there is no {kind} '{name}' now ({known})")


def confirm(text: str, *, yes: bool) -> None:
    """Say what will happen and ask. Without a terminal, `--yes` is needed."""
    click.echo(text, err=True)
    if yes:
        return
    try:
        sure = click.confirm("Do it?", err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo("", err=True)
        raise click.UsageError("nobody was there to be asked, so nothing was done: say --yes") from None
    if not sure:
        raise SystemExit(1)


@click.command("release")
@click.argument("batch")
@YES
@JSON
def release_command(batch: str, yes: bool, form: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Take BATCH (its id, or how it begins) from the node that holds it, so that any node may claim it now.

    For a node that is stuck; a dead one loses its leases by itself. Exit 1 if the lease has changed meanwhile.
    """

    async def look(db: Database) -> tuple[list[LeasedBatch], list[NodeStatus], int]:
        return await batches.list_leased(db), *await nodes.nodes_and_clock(db)

    held, present, now = read_database(look)
    b = select_one("leased batch", held, batch, lambda x: x.id)
    owner = next((n for n in present if n.id == b.owner), None)
    sign = (
        "has no heartbeat"
        if owner is None
        else f"showed its last heartbeat {duration((now - owner.seen_ms) / 1000)} ago"
    )
    ends = duration((b.expires_ms - now) / 1000)
    confirm(
        f"Batch {b.id}: {b.executions} execution(s), held by {b.owner} (token {b.token}), which {sign}. The lease ends by "
        f"itself in {ends}.\nReleased, another node may send what is left of it at once. What {b.owner} is sending now may "
        "reach the target twice, under the same Idempotency-Key; what it has not sent it will not send.",
        yes=yes,
    )

    async def release(db: Database) -> bool:
        fenced = Batch(b.id, (), b.lane, b.attempt, 0, 0, owner=b.owner, token=b.token)
        return await batches.release(db, fenced, None)

    done = read_database(release)
    if form:
        print_json({"batch": b.id, "owner": b.owner, "token": b.token, "released": done})
    else:
        click.echo(f"released {b.id}" if done else f"{b.id} is no longer held under token {b.token}: nothing was done")
    sys.exit(0 if done else 1)


@click.command("resign")
@YES
@WAIT
@JSON
def resign_command(yes: bool, seconds: float, form: bool) -> None:  # noqa: FBT001
    """Ask the leader to give up leading; another node takes over. Nothing is late by that. Exit 1 if it did not."""

    async def look(db: Database) -> tuple[leases.Leadership, list[NodeStatus], int]:
        return await leases.leadership(db), *await nodes.nodes_and_clock(db)

    leader, present, now = read_database(look)
    if leader.node is None:
        raise NoMatch("nobody leads now")
    others = [n for n in present if n.id != leader.node and now - n.seen_ms < SILENT_MS and not n.draining]
    heir = (
        f"one of {len(others)} other node(s) takes over within seconds"
        if others
        else "THERE IS NO OTHER NODE: nobody writes ahead until this one stands again, a leader lease later"
    )
    confirm(f"{leader.node} (term {leader.term}) resigns; {heir}. What is due now has been written ahead.", yes=yes)
    name, term = leader.node, leader.term

    async def ask(db: Database) -> leases.Leadership:
        if not await nodes.request_resign(db, name, term):
            raise NoMatch(f"{name} has no heartbeat document: it is gone, and the next leader takes over by itself")
        return await poll_until(
            lambda: leases.leadership(db), lambda seen: seen.term > term and bool(seen.node), seconds
        )

    seen = read_database(ask)
    changed = seen.term > term
    if form:
        print_json({"nodeId": name, "term": term, "resigned": changed, "leader": seen.node, "leaderTerm": seen.term})
    elif changed:
        click.echo(f"{seen.node} leads in term {seen.term}")
    else:
        click.echo(f"asked; no newer term was seen within {seconds:g} s")
    sys.exit(0 if changed or not seconds else 1)


async def poll_until(look: Callable[[], Awaitable[T]], fits: Callable[[T], bool], seconds: float) -> T:
    """Look until it fits, at most so long. Returns the last look."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        seen = await look()
        if fits(seen) or loop.time() >= end:
            return seen
        await asyncio.sleep(LOOK_SECONDS)


@click.command("drain")
@click.argument("node")
@YES
@WAIT
@JSON
def drain_command(node: str, yes: bool, seconds: float, form: bool) -> None:  # noqa: FBT001
    """Ask NODE (its id, or how it begins) to stand aside: it claims and leads no more, and stays up.

    What it has not sent is handed to others, what it is sending is finished, its /readyz answers 503. It lasts until
    `undrain`, or until the node is started anew. Exit 1 if it was not idle in time.
    """
    present, now = read_database(nodes.nodes_and_clock)
    found = select_one("node", present, node, lambda n: n.id)
    others = [n for n in present if n.id != found.id and now - n.seen_ms < SILENT_MS and not n.draining]
    if not others:
        confirm(f"{found.id} is the only node that works: nothing is sent until it is undrained.", yes=yes)
    _ask(found.id, seconds, form=form, drain=True)


@click.command("undrain")
@click.argument("node")
@WAIT
@JSON
def undrain_command(node: str, seconds: float, form: bool) -> None:  # noqa: FBT001
    """Let NODE work again. Exit 1 if it did not in time."""
    present, _ = read_database(nodes.nodes_and_clock)
    _ask(select_one("node", present, node, lambda n: n.id).id, seconds, form=form, drain=False)


def _ask(name: str, seconds: float, *, form: bool, drain: bool) -> None:
    def done(n: NodeStatus | None) -> bool:
        if n is None:
            return True
        return n.draining and not (n.in_flight or n.waiting or n.leading) if drain else not n.draining

    async def ask(db: Database) -> NodeStatus | None:
        async def look() -> NodeStatus | None:
            present, _ = await nodes.nodes_and_clock(db)
            return next((n for n in present if n.id == name), None)

        if not await nodes.request_drain(db, name, drain=drain):
            raise NoMatch(f"{name} is gone")
        return await poll_until(look, done, seconds)

    n = read_database(ask)
    ok = n is not None and done(n)
    what = {"draining": n.draining, "inFlight": n.in_flight, "waiting": n.waiting, "leading": n.leading} if n else {}
    if form:
        print_json({"nodeId": name, "done": ok, **what})
    elif n is None:
        click.echo(f"{name} has stopped meanwhile")
    elif ok:
        click.echo(f"{name} {'is drained: it holds nothing and stays up' if drain else 'works again'}")
    else:
        left = f"{n.in_flight} in flight, {n.waiting} waiting"
        click.echo(f"asked; {name} is {'not idle yet' if drain else 'still drained'} ({left})")
    sys.exit(0 if ok or (n is not None and not seconds) else 1)
