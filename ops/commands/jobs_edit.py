"""`horae jobs edit`: a job in the user's editor, with its faults told in place."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import orjson

from cluster.core.documents.json_source import JsonText, fragment
from ops.commands.completion import complete_jobs
from ops.commands.jobs_apply import definition
from ops.support.client import Client, Refused
from ops.support.job_editing import InvalidText, read_text, text_of, with_fault_at, with_faults, without_faults
from ops.support.secret_places import with_removed


@click.command("edit")
@click.argument("job_id", shell_complete=complete_jobs)
@click.pass_context
def edit_command(context: click.Context, job_id: str) -> None:
    """Edit a job in $VISUAL or $EDITOR. Faults are told in the text, which is opened again; nothing is lost.

    Another change of the job in between is not overwritten.
    """
    client: Client = context.obj()
    path = "/jobs/" + quote(job_id, safe="")
    job: dict[str, Any] = client.call("GET", path)
    before = {name: value for name, value in definition(job).items() if name != "jobId"}
    text = shown = text_of(job_id, before)
    while True:
        edited = click.edit(shown, extension=".yaml", require_save=False)
        edited = shown if edited is None else edited
        faulty = shown != text
        text = without_faults(edited)
        if text == without_faults(shown):
            if not faulty:
                click.echo(f"{job_id}: unchanged")
                return
            _give_up(text, "the text was left as it was, with its faults")
        try:
            wanted = read_text(text)
        except InvalidText as exc:
            shown = with_fault_at(text, exc)
            continue
        if wanted == orjson.loads(orjson.dumps(before, fragment)):
            click.echo(f"{job_id}: unchanged")
            return
        try:
            changed = client.call(
                "PUT", path, _definition(wanted, before), headers={"If-Match": f'"{job["revision"]}"'}
            )
        except Refused as exc:
            if exc.status == 422:
                shown = with_faults(text, [(e["path"], e["message"]) for e in exc.problem.get("errors", [])])
                continue
            _give_up(text, exc.message)
        click.echo(f"{job_id}: changed, revision {changed['revision']}" if changed else f"{job_id}: changed")
        return


def _definition(wanted: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The whole definition. A body that was not edited keeps its digits and blanks, which YAML does not know."""
    wanted, body = with_removed(wanted, before), before.get("body")
    if isinstance(body, JsonText) and wanted.get("body") == orjson.loads(body.text):
        return {**wanted, "body": body}
    return wanted


def _give_up(text: str, why: str) -> None:
    """End with the text kept in a file."""
    with tempfile.NamedTemporaryFile("w", prefix="horae-job-", suffix=".yaml", delete=False) as file:
        file.write(text)
    click.echo(f"not changed: {why}\nyour text is in {Path(file.name)}", err=True)
    sys.exit(1)
