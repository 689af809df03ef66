"""The `horae` command. Exit status: 0 success, 1 failure or a problem found, 2 wrong usage or settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cluster.core.errors import ConfigurationError, StoreError
from config import logs
from config.settings import load_settings
from ops.support.lazy_group import LazyGroup
from ops.support.parent_watch import end_with_parent

_PLACES = {
    "alerts": ("ops.commands.alerts:alerts_command",),
    "audit": ("ops.commands.audit:audit_command",),
    "backlog": ("ops.commands.executions:backlog_command",),
    "bench": ("ops.bench.command:bench_command",),
    "calendars": ("ops.commands.calendars:calendars_group",),
    "completion": ("ops.commands.completion:completion_command",),
    "config": ("ops.commands.profiles:config_group",),
    "db": ("ops.commands.db:db_group",),
    "executions": ("ops.commands.executions:executions_group",),
    "explain": ("ops.commands.explain:explain_command",),
    "herd": ("ops.commands.herd:herd_command",),
    "import": ("ops.commands.imports:import_group",),
    "jobs": (
        "ops.commands.jobs:jobs_group",
        "ops.commands.jobs_edit:edit_command",
        "ops.commands.jobs_files:export_command",
        "ops.commands.jobs_files:apply_command",
        "ops.commands.jobs_revisions:revisions_command",
        "ops.commands.jobs_revisions:revert_command",
    ),
    "keys": ("ops.commands.api_keys:keys_group",),
    "leader": (
        "ops.commands.status:leader_command",
        "ops.commands.operate:resign_command",
    ),
    "leases": (
        "ops.commands.status:leases_command",
        "ops.commands.operate:release_command",
    ),
    "nodes": (
        "ops.commands.status:nodes_command",
        "ops.commands.operate:drain_command",
        "ops.commands.operate:undrain_command",
    ),
    "secrets": ("ops.commands.secrets:secrets_group",),
    "send": ("ops.commands.send:send_command",),
    "stats": ("ops.commands.stats:stats_command",),
    "tail": ("ops.commands.tail:tail_command",),
    "top": ("ops.commands.top:top_command",),
    "verify": ("ops.commands.verify:verify_command",),
    "windows": ("ops.commands.windows:windows_group",),
}


@click.group(
    cls=LazyGroup, places=_PLACES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="horae")
def cli() -> None:
    """Scheduled HTTP POST requests: on time, at least once, thousands per second. All it needs is MongoDB."""
    end_with_parent()


@cli.command()
@click.option("--host", help="Address to listen on. [default: HOST, or 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on. [default: PORT, or 5000]")
@click.option("--nodes", type=int, help="Number of nodes to run on this machine. [default: HORAE_NODES, or 2]")
def serve(host: str | None, port: int | None, nodes: int | None) -> None:
    """Run nodes: the REST API and the scheduler. Without MONGODB_URI, an embedded MongoDB is started too."""
    from ops.server.serve import serve as run

    settings = load_settings(host=host, port=port, nodes=nodes)
    logs.configure_logging(settings.log_format)
    run(settings)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5001, show_default=True, help="Port to listen on.")
@click.option(
    "--log", "log_file", type=click.Path(dir_okay=False), help="Append one JSON line per request to this file."
)
def receiver(host: str, port: int, log_file: str | None) -> None:
    """Run a local target for test jobs. The path decides whether it succeeds, fails, delays or hangs."""
    from ops.local.receiver import run

    run(host, port, log_file)


@cli.command()
@click.option("--port", type=int, help="Port of the API. [default: PORT, or 5000]")
@click.option(
    "--receiver-port", default=5001, show_default=True, type=click.IntRange(1, 65_535), help="Port of the receiver."
)
@click.option("--nodes", type=int, help="Number of nodes to run. [default: HORAE_NODES, or 2]")
def demo(port: int | None, receiver_port: int, nodes: int | None) -> None:
    """Run a demo: embedded MongoDB, nodes, a receiver, sample jobs and a live status line."""
    from ops.local.demo import run

    raise SystemExit(run(load_settings(port=port, nodes=nodes), receiver_port))


@cli.command()
@click.option(
    "--port", type=int, help="Port of nginx; the nodes use the ports 11, 12 and 13 above it. [default: PORT, or 5000]"
)
@click.option("--receiver-port", default=5001, show_default=True, help="Port of the receiver.")
@click.option(
    "--mongo-port",
    default=27_117,
    show_default=True,
    help="Port of the first MongoDB member; the others use the next two.",
)
@click.option("--samples/--no-samples", default=True, show_default=True, help="Import the sample jobs.")
def cluster(port: int | None, receiver_port: int, mongo_port: int, *, samples: bool) -> None:
    """Run a whole cluster on this machine: three MongoDB members, three nodes and nginx. Ctrl-C stops all."""
    from ops.local.local_cluster import Ports, run

    settings = load_settings(port=port)
    run(settings, Ports(settings.port, receiver_port, mongo_port), samples=samples)


@cli.group(context_settings={"help_option_names": ["-h", "--help"]})
def bootstrap() -> None:
    """Set up what docker-compose.yml needs: secrets, then a replica set with TLS, passwords and a user for Horae."""


def _setup_options(command: Any) -> Any:
    """Adds the options that both steps share."""
    for option in (
        click.option("--db-name", default="horae", show_default=True, envvar="DB_NAME", help="Name of the database."),
        click.option("--members", required=True, help="host:port of each member, separated by commas."),
        click.option("--dir", "directory", required=True, help="Directory of the secrets."),
    ):
        command = option(command)
    return command


@bootstrap.command("secrets")
@_setup_options
def bootstrap_secrets(directory: str, members: str, db_name: str) -> None:
    """Create the missing secrets. Existing ones are kept."""
    from ops.local.bootstrap import make_secrets

    created = make_secrets(Path(directory), members.split(","), db_name)
    click.echo(f"created {', '.join(created)}" if created else "all secrets exist already")


@bootstrap.command("replica-set")
@_setup_options
@click.option("--port", default=27_017, show_default=True, help="Port of the member on this machine.")
def bootstrap_replica_set(directory: str, members: str, db_name: str, port: int) -> None:
    """Create the replica set and its users, if they do not exist yet."""
    from ops.local.bootstrap import make_replica_set

    make_replica_set(Path(directory), members.split(","), db_name, port)
    click.echo("the replica set and its users exist")


def main() -> None:
    """The entry point. Expected errors are printed as sentences, without a traceback."""
    try:
        cli.main(standalone_mode=False, complete_var="_HORAE_COMPLETE")
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.Abort:
        sys.exit(130)
    except ConfigurationError as exc:
        for problem in exc.problems:
            click.echo(f"horae: {problem}", err=True)
        sys.exit(2)
    except StoreError as exc:
        click.echo(f"horae: database error: {exc}", err=True)
        sys.exit(1)
