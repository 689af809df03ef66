"""A group of commands whose modules are imported when the command is asked for.

All commands together import a thousand modules, which takes half a second of CPU: a node, and most commands, need few.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class LazyGroup(click.Group):
    """A group that knows where its commands are.

    `places` maps the name of a command to `module:name` of its definition. Where more than one place is given, the first
    is a group and the others are its subcommands that live in other modules.
    """

    def __init__(self, *arguments: Any, places: Mapping[str, tuple[str, ...]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands; nothing is imported."""
        return sorted({*super().list_commands(ctx), *self._places})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, with its module imported; None if there is none."""
        if cmd_name not in self.commands and cmd_name in self._places:
            command, *subcommands = [_load(place) for place in self._places[cmd_name]]
            for subcommand in subcommands:
                assert isinstance(command, click.Group), f"{cmd_name} is not a group"
                command.add_command(subcommand)
            self.add_command(command, cmd_name)
        return super().get_command(ctx, cmd_name)


def _load(place: str) -> click.Command:
    module, _, name = place.partition(":")
    command = getattr(import_module(module), name)
    assert isinstance(command, click.Command), f"{place} is not a command"
    return command
