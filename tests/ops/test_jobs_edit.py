"""`horae jobs edit`: a job in an editor, against a live node."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from cluster.core.documents.json_source import JsonText
from ops.cli import cli
from ops.support.client import Client, Unreachable
from ops.support.job_editing import InvalidText, read_text, text_of, with_fault_at, with_faults, without_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

TARGET = "http://127.0.0.1:1/x"
TEXT = "schedule: '@daily'\nretry:\n  maxAttempts: 3\ntags:\n- a\n- b\n"


@pytest.fixture
def client(node_url: str) -> Iterator[Client]:
    found = Client(node_url)
    body = {"n": 1.5}
    found.call("PUT", "/jobs/edited", {"schedule": "@daily", "api": TARGET, "body": body, "description": "two\nlines"})
    yield found
    found.call("DELETE", "/jobs/edited")


@pytest.fixture
def edit(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command with an editor that does these replacements, one at each opening, and keeps what it was shown."""
    monkeypatch.delenv("VISUAL", raising=False)

    def run(*replacements: tuple[str, str], before_saving: str = "", **environment: str) -> Result:
        editor = tmp_path / "editor"
        editor.write_text(
            "#!/usr/bin/env python3\nimport pathlib, sys\n"
            f"replacements = {list(replacements)!r}\n"
            f"shown = pathlib.Path({str(tmp_path)!r})\n"
            "count = len(list(shown.glob('shown-*')))\n"
            "file = pathlib.Path(sys.argv[1]); text = file.read_text()\n"
            "(shown / f'shown-{count}').write_text(text)\n"
            "if count < len(replacements): file.write_text(text.replace(*replacements[count]))\n"
            f"{before_saving}\n"
        )
        editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
        for old in tmp_path.glob("shown-*"):
            old.unlink()
        known = {"HORAE_URL": client.url, "EDITOR": str(editor), "TMPDIR": str(tmp_path)}
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        return CliRunner().invoke(cli, ["jobs", "edit", "edited"], env={**known, **environment})

    return run


def job(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.call("GET", "/jobs/edited")
    return found


def test_an_edited_job_is_changed_and_an_untouched_one_is_not(edit: Callable[..., Result], client: Client) -> None:
    """Only what was edited differs."""
    before = job(client)
    assert edit().stdout == "edited: unchanged\n"
    assert edit(("# Job", "# The job")).stdout == "edited: unchanged\n"
    assert job(client)["revision"] == before["revision"]
    done = edit(("'@daily'", "'@hourly'"))
    assert (done.exit_code, "edited: changed" in done.stdout) == (0, True), done.output
    after = job(client)
    assert (after["schedule"], after["body"], after["description"]) == ("@hourly", {"n": 1.5}, "two\nlines")


def test_faults_are_told_below_their_lines_and_the_text_is_opened_again(
    edit: Callable[..., Result], client: Client, tmp_path: Path
) -> None:
    """First what is no YAML, then what the API refuses, then it is right."""
    done = edit(("'@daily'", "'@dai"), ("'@dai", "'nonsense'"), ("'nonsense'", "'@weekly'"))
    assert (done.exit_code, job(client)["schedule"]) == (0, "@weekly"), done.output
    first, second, third = (tmp_path / f"shown-{n}" for n in range(3))
    assert "#^ horae: " not in first.read_text()
    assert "#^ horae: " in second.read_text()
    lines = third.read_text().splitlines()
    at = lines.index("schedule: 'nonsense'")
    assert lines[at + 1].startswith("#^ horae: schedule: ")


def test_a_text_that_is_given_up_is_kept(edit: Callable[..., Result], client: Client) -> None:
    """With faults and closed without a change, or after somebody else changed the job: nothing is overwritten."""
    done = edit(("'@daily'", "'nonsense'"))
    assert done.exit_code == 1
    name = done.stderr.rpartition("your text is in ")[2].strip()
    kept = Path(name)
    assert "nonsense" in kept.read_text()
    kept.unlink()
    assert job(client)["schedule"] == "@daily"
    other = (
        "import urllib.request as u; r = u.Request("
        f"'{client.url}/jobs/edited', b'{{\"name\": \"other\"}}', "
        "{'Content-Type': 'application/merge-patch+json'}, method='PATCH'); u.urlopen(r)"
    )
    raced = edit(("'@daily'", "'@hourly'"), before_saving=other)
    assert raced.exit_code == 1
    assert "your text is in" in raced.stderr
    assert (job(client)["schedule"], job(client)["name"]) == ("@daily", "other")


LONG = '{"n": 12345678901234567890123, "d": 1.10}'


@pytest.mark.parametrize(
    ("ending", "editor", "is_kept"),
    [
        ("sys.exit(1)", None, True),
        ("file.write_bytes(bytes([255]))", None, True),
        ("file.unlink()", None, True),
        ("", "/no/such/editor", False),
        ("", "an 'open quote", False),
    ],
)
def test_an_editor_that_fails_loses_no_text(
    edit: Callable[..., Result], client: Client, tmp_path: Path, ending: str, editor: str | None, *, is_kept: bool
) -> None:
    """It ends with a status, leaves no text, or does not start: nothing is changed, and what was typed is kept."""
    environment = {} if editor is None else {"EDITOR": editor}
    done = edit(("'@daily'", "'@hourly'"), before_saving=ending, **environment)
    assert (done.exit_code, "not changed: " in done.stderr) == (1, True), done.output
    assert isinstance(done.exception, SystemExit)
    assert ("your text is in" in done.stderr) is is_kept
    assert is_kept or "$EDITOR" in done.stderr
    if ending == "sys.exit(1)":
        assert "@hourly" in Path(done.stderr.rpartition("your text is in ")[2].strip()).read_text()
    assert bool(list(tmp_path.glob("horae-job-*"))) is (is_kept and ending != "file.unlink()")
    assert (job(client)["schedule"], job(client)["revision"]) == (
        "@daily",
        client.call("GET", "/jobs/edited")["revision"],
    )


def test_a_node_that_is_away_while_the_text_is_saved_loses_no_text(
    edit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer, or one that the database is away: the text is kept, and the file is named."""

    def away(*_: Any, **__: Any) -> None:
        raise Unreachable("no API answers")

    monkeypatch.setattr("ops.commands.jobs_edit._put", away)
    done = edit(("'@daily'", "'@hourly'"))
    assert (done.exit_code, "no API answers" in done.stderr) == (1, True)
    assert "@hourly" in Path(done.stderr.rpartition("your text is in ")[2].strip()).read_text()


def test_an_emptied_text_changes_nothing(edit: Callable[..., Result], client: Client, tmp_path: Path) -> None:
    before = job(client)["revision"]
    done = edit(before_saving="file.write_text('# nothing')")
    assert (done.exit_code, done.stdout) == (0, "edited: unchanged\n")
    assert job(client)["revision"] == before
    assert not list(tmp_path.glob("horae-job-*"))


def test_another_field_is_edited_and_the_body_keeps_its_bytes(edit: Callable[..., Result], client: Client) -> None:
    """Digits of any length; and where the body itself is edited, the other numbers keep theirs."""
    raw = {"schedule": "@daily", "api": TARGET, "bodyType": "json", "body": LONG}
    client.call("PUT", "/jobs/edited", raw)
    assert edit(("'@daily'", "'@hourly'")).exit_code == 0
    assert client.job("/jobs/edited")["body"] == JsonText(LONG.encode())
    assert edit(("d: 1.10", "d: 2")).exit_code == 0
    assert client.job("/jobs/edited")["body"] == JsonText(b'{"n":12345678901234567890123,"d":2}')


@pytest.mark.parametrize(
    "number",
    ["12345678901234567.89", "1.50", "1E5", "-0", "-0.0", "1e-400", "1e999", "0.1000000000000000055511151231257827"],
)
def test_where_a_body_is_edited_its_other_numbers_keep_their_digits(
    edit: Callable[..., Result], client: Client, number: str
) -> None:
    """As a double they would be others, and the target would get what nobody wrote."""
    client.call(
        "PUT",
        "/jobs/edited",
        {"schedule": "@daily", "api": TARGET, "body": JsonText(b'{"a":[%b],"b":1}' % number.encode())},
    )
    assert edit(("b: 1", "b: 2")).exit_code == 0
    assert client.job("/jobs/edited")["body"] == JsonText(b'{"a":[%b],"b":2}' % number.encode())
    assert edit((number, "12345678901234567.88")).exit_code == 0
    assert client.job("/jobs/edited")["body"] == JsonText(b'{"a":[12345678901234567.88],"b":2}')


def test_a_signing_secret_is_kept_by_its_line_and_removed_with_it(edit: Callable[..., Result], client: Client) -> None:
    """The text is the whole job."""
    secret = f"whsec_{'A' * 32}"
    callback = {"api": TARGET, "signingSecret": secret}
    client.call(
        "PUT", "/jobs/edited", {"schedule": "@daily", "api": TARGET, "signingSecret": secret, "onFailure": callback}
    )
    assert edit(("'@daily'", "'@hourly'")).exit_code == 0
    kept = job(client)
    assert (kept["signingSecret"], kept["onFailure"]["signingSecret"]) == ({"secret": True}, {"secret": True})
    assert edit(("signingSecret:\n  secret: true\n", "")).exit_code == 0
    assert ("signingSecret" in job(client), "signingSecret" in job(client)["onFailure"]) == (False, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schedule: @daily\n", "must stand in quotes"),
        ("api: x\nschedule: */5 * * * *\n", "must stand in quotes"),
        ("api: x\napi: y\n", "the field api occurs twice"),
        ("retry:\n  maxAttempts: 1\n  maxAttempts: 2\n", "maxAttempts occurs twice"),
        ("body:\n  1: x\n", "body: the name 1 must stand in quotes"),
        ("body: &a [*a]\n", "contains itself"),
        ("body: !!binary aGk=\n", "body: must be a value that JSON has"),
        ("body: !!float nan\n", "is no number that JSON has"),
        ("body: !!float 1_000\n", "is no number that JSON has"),
        ("body: !!int 0x1f\n", "is no number that JSON has"),
        ("a:\t1\n\tb: 2\n", "cannot start any token"),
        ("just words\n", "must be one object"),
    ],
)
def test_a_text_that_is_no_job_is_told_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(InvalidText, match=re.escape(words)):
        read_text(text)


@pytest.mark.parametrize(
    "text", ["1e5", "12:30", "on", "yes", "0777", "1_000", "2031-01-01", "~x", "null", "true", "-1", "=", "0x1f"]
)
def test_a_text_is_read_as_the_text_that_was_shown(text: str) -> None:
    """Numbers, words and times of YAML 1.1 that JSON has as texts."""
    assert read_text(text_of("x", {"name": text, "n": [1, -2.5, 1e22, True, None]})) == {
        "name": text,
        "n": [1, -2.5, 1e22, True, None],
    }


def test_a_fault_stands_below_its_field() -> None:
    """Nested fields and elements of arrays; what the text does not have, and what is about all of it, at the top."""
    faults = [("retry.maxAttempts", "A"), ("tags.1", "B"), ("api", "C"), ("", "D"), ("schedule", "E")]
    told = with_faults(TEXT, faults)
    assert told.splitlines() == [
        *(
            "#^ horae: api: C",
            "#^ horae: D",
            "schedule: '@daily'",
            "#^ horae: schedule: E",
            "retry:",
            "  maxAttempts: 3",
        ),
        *("#^ horae: retry.maxAttempts: A", "tags:", "- a", "- b", "#^ horae: tags.1: B"),
    ]
    assert without_faults(told) == TEXT
    with pytest.raises(InvalidText) as seen:
        read_text("a: 1\nb: [\n")
    assert "#^ horae: " in with_fault_at("a: 1\nb: [\n", seen.value)


def test_yaml_says_what_json_said() -> None:
    """Times stay texts; several lines, odd characters and numbers come back as they were."""
    definition = {
        "startAt": "2031-01-01T00:00:00.000Z",
        "body": {"on": "yes", "n": [1, 2.5, None]},
        "name": "ä: #1\n\n2",
    }
    assert read_text(text_of("x", definition)) == definition
    assert read_text("startAt: 2031-01-01T00:00:00Z") == {"startAt": "2031-01-01T00:00:00Z"}
    for text in ("", "- 1", "1: 2", "a: !!python/name:os.system x"):
        with pytest.raises(InvalidText):
            read_text(text)
