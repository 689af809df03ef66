"""`horae import`: definitions of other schedulers as NDJSON for `horae jobs apply`. Nothing is sent to an API."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING, Any

import click

from cluster.core.zones import zone_names
from ops.migrate.cronjobs import NotYaml, translate_cronjobs
from ops.migrate.crontab import translate_crontab
from ops.migrate.eventbridge import NotJson, translate_eventbridge
from ops.migrate.translation import InvalidTemplate, Translation, UrlTemplate, line_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.migrate.crontab import Form


@click.group("import")
def import_group() -> None:
    """Move in: turn crontabs, CronJobs and EventBridge schedules into jobs, as NDJSON for `horae jobs apply`.

    The jobs go to standard output, and remarks to standard error: one for each thing that has no equal. Exit status 1
    if something was not moved. Nothing is sent to an API.
    """


def _template(_: click.Context, __: click.Parameter, value: str) -> UrlTemplate:
    try:
        return UrlTemplate(value)
    except InvalidTemplate as exc:
        raise click.BadParameter(str(exc)) from exc


def _zone(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and value not in zone_names():
        raise click.BadParameter(f"'{value}' is not an IANA time zone; write one such as Europe/Berlin")
    return value


TIMEZONE = click.option(
    "--timezone", callback=_zone, help="Time zone where the file names none, such as Europe/Berlin. [default: UTC]"
)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The file and the options of all three."""
    for parameter in (
        click.option("--tag", "tags", multiple=True, help="Give each job this tag, so that `apply --tag` finds them."),
        click.option(
            "--url-template",
            "template",
            required=True,
            callback=_template,
            help="URL of each job, with {name} (its id) and {command} (percent-encoded), such as "
            "https://jobs.example.org/{name}",
        ),
        click.argument("file", type=click.File("rb")),
    ):
        command = parameter(command)
    return command


@import_group.command("crontab")
@_shared
@TIMEZONE
@click.option(
    "--form",
    type=click.Choice(["auto", "user", "system"]),
    default="auto",
    show_default=True,
    help="user: a user's crontab; system: /etc/crontab and /etc/cron.d, with a column for the user.",
)
def crontab_command(file: IO[bytes], timezone: str | None, form: Form, **options: Any) -> None:
    """Jobs from a crontab (- reads standard input, as in `crontab -l | horae import crontab - ...`)."""
    translation = _translation(options)
    translate_crontab(_text(file, replace=True), translation, timezone=timezone, form=form, path=_name(file))
    _print(translation, file)


@import_group.command("k8s")
@_shared
@TIMEZONE
def k8s_command(file: IO[bytes], timezone: str | None, **options: Any) -> None:
    """Jobs from CronJob manifests, YAML or JSON, such as `kubectl get cronjobs -A -o yaml` prints.

    {command} is the command line of the first container.
    """
    translation = _translation(options)
    try:
        translate_cronjobs(_text(file), translation, timezone=timezone)
    except NotYaml as exc:
        raise click.BadParameter(f"{_name(file)} is not YAML: {exc}", param_hint="FILE") from exc
    _print(translation, file)


@import_group.command("eventbridge")
@_shared
def eventbridge_command(file: IO[bytes], **options: Any) -> None:
    """Jobs from EventBridge schedules and rules (JSON), such as `aws scheduler get-schedule --name X` prints.

    {command} is the ARN of the target.
    """
    translation = _translation(options)
    try:
        translate_eventbridge(_text(file), translation)
    except NotJson as exc:
        raise click.BadParameter(f"{_name(file)} is not JSON: {exc}", param_hint="FILE") from exc
    _print(translation, file)


def _translation(options: dict[str, Any]) -> Translation:
    return Translation(options["template"], time.time_ns() // 1_000_000, options["tags"])


def _text(file: IO[bytes], *, replace: bool = False) -> str:
    try:
        return file.read().decode("utf-8-sig", "replace" if replace else "strict")
    except UnicodeDecodeError as exc:
        raise click.BadParameter(f"{_name(file)} is not UTF-8: {exc}", param_hint="FILE") from exc


def _name(file: IO[bytes]) -> str:
    """How messages call the file."""
    name = str(getattr(file, "name", "<stdin>"))
    return "standard input" if name == "<stdin>" else name


def _print(translation: Translation, file: IO[bytes]) -> None:
    for job in translation.jobs:
        click.echo(line_of(job))
    for remark in translation.remarks:
        click.echo(f"{_name(file)}: {remark.line()}", err=True)
    left_out = translation.left_out
    counts = f"{len(translation.jobs)} job(s), {left_out} not moved, {len(translation.remarks)} remark(s)"
    click.echo(f"{_name(file)}: {counts}", err=True)
    sys.exit(1 if left_out else 0)
