"""Output of commands: tables, JSON, times and durations."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.core.documents.json_source import fragment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


USEFUL_COLUMN = 8
"""A column that is cut to less says nothing. Then the last columns are left out."""
TIME = re.compile(r"(\d{4})-(\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z\Z")
GAP = 3
"""What a table takes beside a column."""
COLOURS = dict.fromkeys(("active", "succeeded"), "green")
COLOURS |= dict.fromkeys(("paused", "retrying", "skipped", "cancelled"), "yellow")
COLOURS |= dict.fromkeys(("failed", "dead", "missed"), "red")


def rfc3339(ms: int | None) -> str | None:
    """A time in RFC 3339, UTC, with milliseconds."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(orjson.dumps(value, fragment, orjson.OPT_INDENT_2).decode())


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, fit: bool = False, whole: str = "-o wide"
) -> None:
    """Print a table. Columns of numbers are right-aligned. `fit`: at a terminal one line a row, cut to its width; columns at
    the right that have no room are left out, and named. `whole`: the option that shows all of it.

    States have colours at a terminal, unless NO_COLOR is set.
    """
    console = Console()
    cut = fit and console.is_terminal and sys.stdout.isatty()  # a pipe may have colours (FORCE_COLOR), but no width
    body = [list(row) for row in rows]
    texts = [["-" if cell is None else printable(cell) for cell in row] for row in body]
    natural = _widths(columns, texts)
    times = [
        i for i in range(len(columns)) if {row[i] for row in texts} - {"-"} and all(_is_time(row[i]) for row in texts)
    ]
    if cut and sum(natural) + GAP * len(columns) > console.width:
        texts = [[_short_time(text) if i in times else text for i, text in enumerate(row)] for row in texts]
        natural = _widths(columns, texts)
    # Without its end a time says nothing.
    least = [size if i in times else min(size, USEFUL_COLUMN) for i, size in enumerate(natural)]
    shown = shown_columns(least, console.width) if cut else len(columns)
    left_out, columns = columns[shown:], columns[:shown]
    widths = fitting(natural[:shown], least[:shown], console.width - GAP * shown) if cut else natural
    rendered = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for i, name in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[i], int | float) for row in body)
        rendered.add_column(
            name,
            justify="right" if numeric else "left",
            overflow="ellipsis" if cut else "fold",
            no_wrap=cut,
            width=widths[i] if cut else None,
        )
    for row in texts:
        pairs = zip(columns, row[:shown], strict=True)
        rendered.add_row(*(Text(text, COLOURS.get(text, "") if name == "state" else "") for name, text in pairs))
    # In a pipe or file, a table may be as wide as it needs to be.
    (console if console.is_terminal and sys.stdout.isatty() else Console(width=200)).print(rendered)
    if left_out:
        click.echo(f"left out for want of room: {', '.join(left_out)} ({whole}, or a wider terminal)")


def _widths(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> list[int]:
    return [max([cell_len(name), *(cell_len(row[i]) for row in texts)]) for i, name in enumerate(columns)]


def _is_time(text: str) -> bool:
    return text == "-" or TIME.match(text) is not None


def _short_time(text: str) -> str:
    """A time without its year, if that is this year, and without milliseconds."""
    time = TIME.match(text)
    if time is None:
        return text
    year = "" if time[1] == f"{datetime.now(UTC):%Y}" else f"{time[1]}-"
    return f"{year}{time[2]} {time[3]}Z"


def shown_columns(least: Sequence[int], width: int) -> int:
    """How many of the columns, from the left, have room to be read; one at least."""
    shown, taken = 1, least[0] + GAP if least else 0
    for size in least[1:]:
        taken += size + GAP
        if taken > width:
            break
        shown += 1
    return shown


def fitting(natural: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """The widths of columns that fit into `width` together: the widest are cut to what they need at least, the first one
    last, since it is the name; then those that are left.
    """
    widths = list(natural)
    nothing = [1] * len(widths)
    for first, bounds in ((1, least), (0, least), (0, nothing)):
        while sum(widths) > width:
            cut = [i for i in range(first, len(widths)) if widths[i] > bounds[i]]
            if not cut:
                break
            widths[max(cut, key=widths.__getitem__)] -= 1
    return widths


def printable(cell: object) -> str:
    """The cell without control characters: texts of targets and jobs must not control the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(cell))


def duration(seconds: float) -> str:
    """A duration in one unit: `350ms`, `12.3s`, `5m`, `3h`, `2d`."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    for unit, size, minimum in (("d", 86400, 172800), ("h", 3600, 7200), ("m", 60, 120)):
        if seconds >= minimum:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.1f}s" if seconds >= 1 else f"{seconds * 1000:.0f}ms"
