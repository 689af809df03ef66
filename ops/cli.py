"""The `horae` command. Exit status: 0 fine, 1 bad news, 2 wrong use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cluster.core.errors import ConfigurationError, StoreError
from config import logs
from config.settings import load_settings
from ops.bench.command import bench_command
from ops.commands.alerts import alerts_command
from ops.commands.api_keys import keys_group
from ops.commands.db import db_group
from ops.commands.executions import backlog_command, executions_group
from ops.commands.explain import explain_command
from ops.commands.herd import herd_command
from ops.commands.jobs import jobs_group
from ops.commands.operate import drain_command, release_command, resign_command, undrain_command
from ops.commands.secrets import secrets_group
from ops.commands.status import leader_command, leases_command, nodes_command
from ops.commands.top import top_command
from ops.commands.verify import verify_command
from ops.support.parent_watch import end_with_parent


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="horae")
def cli() -> None:
    """Scheduled HTTP POST requests: on time, at least once, thousands per second, on MongoDB alone."""
    end_with_parent()


@cli.command()
@click.option("--host", help="Address to listen on (HOST, 127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on (PORT, 5000).")
@click.option("--nodes", type=int, help="How many nodes to run here (HORAE_NODES, 2).")
def serve(host: str | None, port: int | None, nodes: int | None) -> None:
    """Run nodes: the API and the engine. Without MONGODB_URI an embedded MongoDB is started."""
    from ops.server.serve import serve as run

    settings = load_settings(host=host, port=port, nodes=nodes)
    logs.configure_logging(settings.log_format)
    run(settings)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5001, show_default=True, help="Port to listen on.")
@click.option("--log", "log_file", type=click.Path(dir_okay=False), help="Append one JSON line per arrival.")
def receiver(host: str, port: int, log_file: str | None) -> None:
    """Run a local target that answers, fails or dawdles by path, and shows what came."""
    from ops.local.receiver import run

    run(host, port, log_file)


@cli.command()
@click.option("--port", type=int, help="Port of the API (PORT, 5000).")
@click.option("--receiver-port", default=5001, show_default=True, help="Port of the receiver.")
@click.option("--nodes", type=int, help="How many nodes to run (HORAE_NODES, 2).")
def demo(port: int | None, receiver_port: int, nodes: int | None) -> None:
    """Everything at once: embedded MongoDB, nodes, a receiver, the sample jobs, and a live line."""
    from ops.local.demo import run

    raise SystemExit(run(load_settings(port=port, nodes=nodes), receiver_port))


@cli.command()
@click.option("--port", type=int, help="Port of nginx (PORT, 5000); the nodes take those 11, 12 and 13 above it.")
@click.option("--receiver-port", default=5001, show_default=True, help="Port of the receiver.")
@click.option("--mongo-port", default=27_117, show_default=True, help="First of the three members' ports.")
@click.option("--samples/--no-samples", default=True, show_default=True, help="Import the sample jobs.")
def cluster(port: int | None, receiver_port: int, mongo_port: int, *, samples: bool) -> None:
    """A whole cluster on this machine: three mongods, three serves, nginx in front. Ctrl-C ends all of it."""
    from ops.local.local_cluster import Ports, run

    settings = load_settings(port=port)
    run(settings, Ports(settings.port, receiver_port, mongo_port), samples=samples)


@cli.group(context_settings={"help_option_names": ["-h", "--help"]})
def bootstrap() -> None:
    """What docker-compose.yml does once: make secrets, then a replica set with TLS, passwords and our user."""


def _setting_up(command: Any) -> Any:
    """The options that both steps share."""
    for option in (
        click.option("--db-name", default="horae", show_default=True, envvar="DB_NAME", help="Our database."),
        click.option("--members", required=True, help="host:port of each member, with commas between."),
        click.option("--dir", "directory", required=True, help="Where the secrets lie."),
    ):
        command = option(command)
    return command


@bootstrap.command("secrets")
@_setting_up
def bootstrap_secrets(directory: str, members: str, db_name: str) -> None:
    """Make the secrets that are missing; those that exist stay."""
    from ops.local.bootstrap import make_secrets

    made = make_secrets(Path(directory), members.split(","), db_name)
    click.echo(f"made {', '.join(made)}" if made else "every secret was there")


@bootstrap.command("replica-set")
@_setting_up
@click.option("--port", default=27_017, show_default=True, help="The port of the member on this machine.")
def bootstrap_replica_set(directory: str, members: str, db_name: str, port: int) -> None:
    """Make the replica set and its users, if they are not there."""
    from ops.local.bootstrap import make_replica_set

    make_replica_set(Path(directory), members.split(","), db_name, port)
    click.echo("the replica set has its users")


cli.add_command(leases_command)
cli.add_command(leader_command)
cli.add_command(nodes_command)
cli.add_command(alerts_command)
cli.add_command(explain_command)
cli.add_command(executions_group)
cli.add_command(backlog_command)
cli.add_command(db_group)
cli.add_command(herd_command)
cli.add_command(top_command)
cli.add_command(verify_command)
leases_command.add_command(release_command)
leader_command.add_command(resign_command)
nodes_command.add_command(drain_command)
nodes_command.add_command(undrain_command)
cli.add_command(bench_command)
cli.add_command(jobs_group)
cli.add_command(keys_group)
cli.add_command(secrets_group)


def main() -> None:
    """The entry point: our own errors are sentences, not tracebacks."""
    try:
        cli.main(standalone_mode=False)
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
        click.echo(f"horae: the database could not answer: {exc}", err=True)
        sys.exit(1)
