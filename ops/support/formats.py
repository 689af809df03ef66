"""Lists of commands in the format that the user asks for: `-o table|wide|json|ndjson|yaml|name`, and again and again."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
import orjson
import yaml

from cluster.core.documents.json_source import fragment
from ops.support.client import is_passing
from ops.support.digits import Digits, with_digits
from ops.support.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Row = Mapping[str, Any]
    Columns = Mapping[str, Callable[[Any], object]]

FORMATS = ("table", "wide", "json", "ndjson", "yaml", "name")
WATCH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Listing:
    """How to print a list."""

    output: str = "table"

    def show(
        self, rows: Sequence[Row], *, title: str, name: str, columns: Columns, wide: Columns | None = None
    ) -> None:
        """Print the rows. `name`: the field that names a row; `wide`: the columns that only `-o wide` has."""
        match self.output:
            case "json":
                print_json(list(rows))
            case "ndjson":
                for row in rows:
                    click.echo(orjson.dumps(row, fragment))
            case "yaml":
                click.echo(to_yaml(list(rows)), nl=False)
            case "name":
                for row in rows:
                    click.echo(row[name])
            case _:
                is_wide = self.output == "wide"
                shown = {**columns, **(wide or {})} if is_wide else columns
                cells = [[cell(row) for cell in shown.values()] for row in rows]
                print_table(title, list(shown), cells, fit=not is_wide)

    def show_one(self, row: Row, *, name: str) -> bool:
        """Print one thing; False if it is to be shown as a table, which is up to the caller."""
        match self.output:
            case "json":
                print_json(row)
            case "ndjson":
                click.echo(orjson.dumps(row, fragment))
            case "yaml":
                click.echo(to_yaml(row), nl=False)
            case "name":
                click.echo(row[name])
            case _:
                return False
        return True


class _Dumper(yaml.SafeDumper):
    """Texts of several lines are written as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _digits(dumper: yaml.SafeDumper, number: Digits) -> yaml.ScalarNode:
    kind = "int" if number.text.lstrip("-").isdigit() else "float"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", number.text)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Digits, _digits)
# A text such as 1e5 is a number for those who read YAML 1.2, so it is written in quotes.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z"), list("-0123456789")
)


def to_yaml(value: Any) -> str:
    """A JSON value as YAML, its fields in their order. Numbers keep all their digits."""
    text: str = yaml.dump(with_digits(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def listing_options(command: Callable[..., int | None]) -> Callable[..., None]:
    """Adds `-o`, `--json` and `--watch`; the command gets a `Listing` instead of them, and returns its exit status."""

    @click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="table fits the terminal, wide shows all; name prints one name a line.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON (as -o json).")
    @click.option("--watch", is_flag=True, help="Print again every 2 s, until Ctrl-C.")
    @wraps(command)
    def with_options(*args: Any, output: str, as_json: bool, watch: bool, **options: Any) -> None:
        listing = Listing("json" if as_json else output)

        def once() -> int | None:
            return command(*args, listing=listing, **options)

        if not watch or _has_subcommand():
            status = once()
            if status is not None:
                raise SystemExit(status)
            return
        _watch(once, clears=listing.output in ("table", "wide") and os.environ.get("TERM") != "dumb")

    return with_options


def _watch(once: Callable[[], int | None], *, clears: bool) -> None:
    """Again and again. Once it has worked, an API that does not answer for a while, as a node that restarts, is waited for."""
    worked = False
    while True:
        if clears:
            click.clear()
        try:
            once()
        except click.ClickException as exc:
            if not worked or not is_passing(exc):
                raise
            click.echo(f"{exc.format_message()}\ntrying again every {WATCH_SECONDS:.0f} s", err=True)
        worked = True
        time.sleep(WATCH_SECONDS)


def _has_subcommand() -> bool:
    """Whether the group that is running only leads to another command."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.invoked_subcommand)
