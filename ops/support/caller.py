"""What commands say about themselves: to the API in the User-Agent, to the database in the audit log."""

from __future__ import annotations

import getpass
import platform
from importlib.metadata import version

import click

from cluster.core.actor import Actor

AGENT = "Horae-CLI/"
"""Begins the User-Agent of commands; the name of the command follows in brackets."""


def command_name() -> str:
    """The command that runs, such as `jobs pause`; empty outside of one."""
    context = click.get_current_context(silent=True)
    return "" if context is None else " ".join(context.command_path.split()[1:])


def user_agent() -> str:
    """The User-Agent of requests to the API."""
    name = command_name()
    return f"{AGENT}{version('horae')}" + (f" ({name})" if name else "")


def command_actor() -> Actor:
    """Who acts on the database without the API: the user of this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return Actor("command", address=f"{user}@{platform.node()}"[:200], command=command_name() or None)
