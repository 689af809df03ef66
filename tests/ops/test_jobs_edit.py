"""`horae jobs edit`: a job in an editor, against a live node."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from ops.cli import cli
from ops.support.client import Client
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

    def run(*replacements: tuple[str, str], before_saving: str = "") -> Result:
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
        return CliRunner().invoke(cli, ["jobs", "edit", "edited"], env={"HORAE_URL": client.url, "EDITOR": str(editor)})

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
