"""The view of `horae top`: fits the height of the terminal, and keeps the last snapshot while MongoDB is unavailable."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.core.errors import StoreUnavailable
from cluster.loops import cancel_and_wait
from ops.support.output import duration, printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from rich.console import Console, JustifyMethod, RenderableType

Snapshot = dict[str, Any]
AROUND = 13
"""Lines that are no table rows: the header (4 to 6), an error, two titles, blank lines, the counts of omitted rows."""
LEAST_ROWS = 2
MINUTE_MS = 60_000
"""From here on the buckets of a histogram are minutes wide, and a quantile is the upper bound of its bucket."""
REDRAW_SECONDS = 1.0
ORDER = ("silent", "leader", "drained", "")


class _Latest:
    """The last snapshot, and since when MongoDB has been unavailable."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.unavailable_since = 0.0
        self.error: str | None = None
        self.changed = asyncio.Event()

    async def refresh(self, read: Callable[[], Awaitable[Snapshot]], interval: float) -> None:
        """Read snapshots until cancelled. An unavailable database is retried; other errors are raised."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + interval
            try:
                self.snapshot = await read()
                self.error = None
            except StoreUnavailable as exc:
                if self.error is None:
                    self.unavailable_since = time.monotonic()
                self.error = str(exc)
            self.changed.set()
            await asyncio.sleep(max(0.0, due - loop.time()))

    def view(self, height: int | None) -> RenderableType:
        """The view, in at most `height` lines (None: any number)."""
        parts: list[RenderableType] = []
        if self.error is not None:
            unavailable = duration(time.monotonic() - self.unavailable_since)
            parts.append(
                Text(f"MONGODB UNAVAILABLE for {unavailable}: {printable(self.error)}", "bold red", no_wrap=True)
            )
        if self.snapshot is None:
            parts.append(Text("waiting for the first data"))
        else:
            parts.append(render(self.snapshot, height))
        return Group(*parts)


async def watch(read: Callable[[], Awaitable[Snapshot]], interval: float, console: Console) -> None:
    """Read and show a snapshot every `interval` seconds, until SIGINT or SIGTERM. Without a terminal, each one is printed.

    The first signal is noted and not thrown into what runs: on Python 3.11 `wait_for`, which the driver uses, loses a
    cancellation that arrives together with the result it waits for. A second one ends what has not ended by then.
    """
    latest = _Latest()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    asked: list[int] = []

    def end() -> None:
        ended.set()
        latest.changed.set()

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(end)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    refreshing = asyncio.create_task(latest.refresh(read, interval))
    refreshing.add_done_callback(lambda _: latest.changed.set())
    try:
        if not console.is_terminal:
            while not refreshing.done():
                await latest.changed.wait()
                latest.changed.clear()
                if ended.is_set():
                    break
                console.print(latest.view(None))
        else:
            loop.add_signal_handler(signal.SIGWINCH, latest.changed.set)
            with Live(latest.view(None), console=console, screen=True, auto_refresh=False) as live:
                while not (refreshing.done() or ended.is_set()):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(REDRAW_SECONDS):
                            await latest.changed.wait()
                    latest.changed.clear()
                    live.update(latest.view(console.size.height), refresh=True)
        if refreshing.done():
            refreshing.result()
    finally:
        await cancel_and_wait([refreshing])
        if not refreshing.cancelled():
            refreshing.exception()  # it was shown, or came as this ended
        for number, handler in before.items():
            signal.signal(number, handler)


def render(snapshot: Snapshot, height: int | None = None) -> RenderableType:
    """One snapshot. If `height` is too small, healthy nodes and hosts are omitted first, and counted."""
    rates, drift, waiting = snapshot["ratesPerSecond"], snapshot["driftMs"], snapshot["backlog"]
    age = waiting["oldestAgeMs"]
    lines = [
        Text(f"{snapshot['at']}   ").append(*_leader(snapshot["leader"])),
        Text("per second: " + ", ".join(f"{n:,} {name}" for name, n in rates.items())),
        Text(f"lateness: p50 {_ms(drift['p50'])}, p99 {_ms(drift['p99'])}"),
        Text(
            f"backlog: {waiting['ready']:,} due"
            + (f" ({held:,} held back)" if (held := waiting.get("heldBack")) else "")
            + f", {waiting['leased']:,} with nodes, {waiting['late']:,} late work"
            + (f", the oldest waits {duration(age / 1000)}" if age is not None else "")
        ),
    ]
    rows = None if height is None else max(2 * LEAST_ROWS, height - AROUND)
    hosts = snapshot["failingHosts"]
    most_hosts = None if rows is None else max(LEAST_ROWS, min(len(hosts), rows // 2))
    most_nodes = None if rows is None else max(LEAST_ROWS, rows - min(len(hosts), most_hosts or 0))
    parts: list[RenderableType] = [*lines, Text(""), *_nodes(snapshot["nodes"], most_nodes), Text("")]
    parts += _hosts(hosts[:most_hosts], snapshot["failingHostsInAll"])
    return Group(*parts)


def _leader(leader: Snapshot) -> tuple[str, str]:
    if leader["nodeId"] is None:
        return "NO LEADER", "bold red"
    renewed = f"renewed {duration(leader['renewedAgoMs'] / 1000)} ago"
    if not leader["sound"]:
        return (
            f"NO LEADER: {leader['nodeId']} does not renew term {leader['term']} ({renewed})",
            "bold red",
        )
    return f"{leader['nodeId']} leads in term {leader['term']}, {renewed}", ""


def _table(*columns: str) -> Table:
    """A table whose first column may be cut, but not its numbers."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        numeric = name in ("in flight", "waiting", "offset ms", "bad in 5 min", "wait for retry")
        width = len(name) if numeric else 8
        justify: JustifyMethod = "right" if numeric else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", min_width=width)
    return table


def _nodes(nodes: list[Snapshot], most: int | None) -> list[RenderableType]:
    if not nodes:
        return [Text("NO NODES", "bold red")]
    table = _table("node", "seen", "in flight", "waiting", "offset ms", "role")
    ordered = sorted(nodes, key=lambda n: (ORDER.index(n["role"]), n["nodeId"]))
    for n in ordered[:most]:
        cells = (
            n["nodeId"],
            f"{duration(n['silentMs'] / 1000)} ago",
            n["inFlight"],
            n["waiting"],
            n["clockOffsetMs"],
            n["role"],
        )
        table.add_row(*(Text(printable(c)) for c in cells), style="red" if n["role"] == "silent" else None)
    left_out = ordered[len(ordered) if most is None else most :]
    return [table, Text(f"and {len(left_out)} more node(s)")] if left_out else [table]


def _hosts(hosts: list[Snapshot], in_all: int) -> list[RenderableType]:
    if not hosts:
        return [Text("no failing hosts")]
    table = _table("failing host", "bad in 5 min", "wait for retry", "breaker")
    for h in hosts:
        cells = (h["host"], h["endedBadly"], h["waitForRetry"], h["breaker"] or "closed")
        table.add_row(*(Text(printable(c)) for c in cells))
    return [table, Text(f"and {in_all - len(hosts)} more host(s)")] if in_all > len(hosts) else [table]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"under {value / MINUTE_MS:.0f} min" if value >= MINUTE_MS else f"{value:,.0f} ms"
