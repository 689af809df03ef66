"""What the fork server of `warm` imports: a node, a receiver, and every command."""

from __future__ import annotations

import click

import ops.local.receiver
import ops.server.serve  # noqa: F401 - for its workers
from api.openapi.document import openapi_document
from ops.cli import cli

openapi_document()

with click.Context(cli) as context:
    for name in cli.list_commands(context):
        cli.get_command(context, name)
