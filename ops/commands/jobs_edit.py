"""`horae jobs edit`: a job in the user's editor, with its faults told in place."""

from __future__ import annotations

import os
import sys
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

import click

from cluster.core.documents.json_source import JsonText
from ops.commands.completion import complete_jobs
from ops.commands.jobs_apply import definition
from ops.support.client import Client, Refused, job_path
from ops.support.digits import with_digits
from ops.support.job_editing import (
    InvalidText,
    as_request,
    is_empty,
    read_text,
    text_of,
    with_fault_at,
    with_faults,
    without_faults,
)
from ops.support.secret_places import with_removed


class NotEdited(click.ClickException):
    """The editor did not do its work, or its text is no text."""


class EditedFile:
    """The file that the editor opens. It stays if the text is given up."""

    def __init__(self) -> None:
        number, name = tempfile.mkstemp(prefix="horae-job-", suffix=".yaml")
        os.close(number)
        self._path = Path(name)

    def edit(self, text: str) -> str:
        """The text as it was saved. Raises `NotEdited`."""
        self._path.write_text(text, encoding="utf-8")
        try:
            click.edit(filename=str(self._path))
        except (click.ClickException, ValueError) as exc:
            why = exc.message if isinstance(exc, click.ClickException) else str(exc)
            raise NotEdited(f"{why} (the editor is what $VISUAL or $EDITOR names)") from exc
        return self.text()

    def text(self) -> str:
        """What is in the file. Raises `NotEdited`."""
        try:
            return self._path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise NotEdited(f"the edited text cannot be read: {exc}") from exc

    def remove(self) -> None:
        """Nothing of it is needed any more."""
        self._path.unlink(missing_ok=True)

    def give_up(self, why: str, text: str | None = None) -> NoReturn:
        """End, with the text (None: as it is) kept in the file."""
        if text is not None:
            self._path.write_text(text, encoding="utf-8")
        click.echo(f"not changed: {why}\nyour text is in {self._path}", err=True)
        sys.exit(1)


@click.command("edit")
@click.argument("job_id", shell_complete=complete_jobs)
@click.pass_context
def edit_command(context: click.Context, job_id: str) -> None:
    """Edit a job in $VISUAL or $EDITOR. Faults are told in the text, which is opened again; nothing is lost.

    Another change of the job in between is not overwritten. A text that is left as it is, or empty, changes nothing.
    """
    client: Client = context.obj()
    job: dict[str, Any] = client.job(job_path(job_id))
    before = {name: value for name, value in definition(job).items() if name != "jobId"}
    file = EditedFile()
    text = shown = text_of(job_id, before)
    while True:
        opened, is_faulty = shown, shown != text
        edited = _edited(file, opened)
        text = without_faults(edited)
        if is_empty(text) or (text == without_faults(opened) and not is_faulty):
            return _unchanged(file, job_id)
        if text == without_faults(opened):
            file.give_up("the text was left as it was, with its faults", text)
        try:
            wanted = read_text(text)
        except InvalidText as exc:
            shown = with_fault_at(text, exc)
            continue
        if wanted == with_digits(before):
            return _unchanged(file, job_id)
        try:
            changed = _put(client, job, _definition(wanted, before))
        except Refused as exc:
            if exc.status == HTTPStatus.UNPROCESSABLE_ENTITY and exc.problem.get("errors"):
                shown = with_faults(text, [(e["path"], e["message"]) for e in exc.problem["errors"]])
                continue
            again = "; somebody else changed the job meanwhile: edit it once more"
            file.give_up(exc.message + (again if exc.status == HTTPStatus.PRECONDITION_FAILED else ""), text)
        except click.ClickException as exc:  # no node answered
            file.give_up(exc.message, text)
        file.remove()
        click.echo(f"{job_id}: changed, revision {changed['revision']}")
        return None


def _edited(file: EditedFile, opened: str) -> str:
    try:
        return file.edit(opened)
    except NotEdited as exc:
        try:
            is_saved = file.text() != opened
        except NotEdited:
            is_saved = True
        if is_saved:
            file.give_up(exc.message)
        file.remove()
        raise click.ClickException(f"not changed: {exc.message}") from exc


def _unchanged(file: EditedFile, job_id: str) -> None:
    file.remove()
    click.echo(f"{job_id}: unchanged")


def _put(client: Client, job: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    expect = {"If-Match": f'"{job["revision"]}"'}
    changed: dict[str, Any] = client.call("PUT", job_path(job["jobId"]), as_request(wanted), headers=expect)
    return changed


def _definition(wanted: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The whole definition. A body that was not edited keeps its digits and blanks, which YAML does not know."""
    wanted, body = with_removed(wanted, before), before.get("body")
    if isinstance(body, JsonText) and wanted.get("body") == with_digits(body):
        return {**wanted, "body": body}
    return wanted
