"""`-o`, `--watch`, tables at a terminal, and completion."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import yaml
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from rich.cells import cell_len

from cluster.core.documents.json_source import JsonText
from ops.cli import cli
from ops.commands import completion
from ops.support import formats
from ops.support.client import Refused, Unreachable
from ops.support.formats import Listing
from ops.support.output import print_table
from tests.support.commands import run_horae

if TYPE_CHECKING:
    from pathlib import Path

ROWS: list[dict[str, Any]] = [
    {"id": "a", "state": "active", "body": JsonText(b'{"n": 1.50}'), "url": "https://example.org/" + "x" * 300},
    {"id": "b", "state": "dead", "body": None, "url": "https://example.org/y"},
]


def shown(output: str, capsys: pytest.CaptureFixture[str]) -> str:
    Listing(output).show(
        ROWS,
        title="2 things",
        name="id",
        columns={"thing": lambda r: r["id"], "state": lambda r: r["state"]},
        wide={"url": lambda r: r["url"]},
    )
    return capsys.readouterr().out


def test_each_format_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Bodies keep their digits in JSON; a table without a terminal is not cut."""
    assert shown("name", capsys) == "a\nb\n"
    assert orjson.loads(shown("json", capsys))[0]["body"] == {"n": 1.5}
    lines = shown("ndjson", capsys).splitlines()
    assert '{"n": 1.50}' in lines[0]
    assert len(lines) == 2
    assert [row["id"] for row in yaml.safe_load(shown("yaml", capsys))] == ["a", "b"]
    assert "example.org" not in shown("table", capsys)
    wide = re.sub(r"\s", "", shown("wide", capsys))
    assert "x" * 300 in wide


def at_a_terminal(program: str, **environment: str) -> str:
    """What this program prints at a terminal."""
    known = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    mine, its = pty.openpty()
    wanted = {**known, "TERM": "xterm-256color", **environment}
    done = subprocess.run([sys.executable, "-c", program], stdout=its, stderr=its, env=wanted, timeout=30, check=False)
    os.close(its)
    text = ""
    with os.fdopen(mine, "rb", buffering=0) as screen, suppress(OSError):  # Linux ends a terminal with an error
        while piece := screen.read(65_536):
            text += piece.decode()
    assert done.returncode == 0, text
    return text


TABLE = (
    "from ops.support.output import print_table; "
    "print_table('t', ['job', 'state', 'url'], [('j', 'dead', 'https://example.org/' + 'x' * 300)], fit=True)"
)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_table_at_a_terminal_fits_it_and_has_colours_unless_they_are_unwanted(environment: dict[str, str]) -> None:
    """Forty columns: one line a row. With NO_COLOR, no escape sequence."""
    text = at_a_terminal(TABLE, COLUMNS="40", **environment)
    assert ("\x1b[31m" in text) == (not environment)
    plain = [line for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines() if "dead" in line]
    assert len(plain) == 1
    assert len(plain[0]) <= 40
    assert "…" in plain[0]


def test_a_table_in_a_pipe_is_not_cut_although_colours_are_forced() -> None:
    """FORCE_COLOR is what many systems for builds set."""
    known = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "40"}
    done = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, env=known, check=True)
    assert "x" * 300 in re.sub(r"\s|\x1b\[[\d;]*m", "", done.stdout)


NARROW = {
    "job": "invoices-of-shop-4711",
    "name": "漢字 " * 30,
    "state": "active",
    "schedule": "0 30 9 * * *",
    "time zone": "Europe/Berlin",
    "next run": "2026-11-28T08:30:00.000Z",
    "api": "https://api.example.com/hooks/4711",
}


@pytest.mark.parametrize(("width", "shown"), [(8, 1), (20, 1), (40, 3), (60, 5), (80, 6), (100, 7), (200, 7)])
def test_what_has_no_room_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, shown: int
) -> None:
    """However narrow the terminal is, each row has its name; no line is wider; what is shown can be read."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table("1 job(s)", list(NARROW), [tuple(NARROW.values())], fit=True)
    plain = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    table, _, left_out = plain.partition("left out for want of room: ")
    assert max(cell_len(line) for line in table.splitlines()) <= width
    assert left_out.partition(" (")[0] == ", ".join(list(NARROW)[shown:])
    rows = [line.strip() for line in table.splitlines() if line.strip().startswith("in")]
    assert len(rows) == 1
    assert width < 40 or rows[0].startswith("invoices")
    assert shown < 6 or "2026-11-28T08:30:00.000Z" in table or "11-28 08:30:00Z" in table


@pytest.mark.parametrize(
    ("width", "shown", "first"),
    [(120, 4, "2020-01-28T08:30:00.000Z"), (80, 4, "2020-01-28 08:30:00Z"), (60, 3, "2020-01-28 08:30:00Z")],
)
def test_a_time_is_shortened_and_never_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, shown: int, first: str
) -> None:
    """Its end says more than its beginning. The year is left out of times of this year only."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    this_year = f"{datetime.now(UTC):%Y}-02-03T04:05:06.789Z"
    row = ("execution-of-a-job:1234567890123", "2020-01-28T08:30:00.000Z", this_year, "failed")
    print_table(
        "t", ["execution", "scheduled", "sent", "state"], [row, ("e", None, None, "dead")], fit=True, whole="--json"
    )
    plain = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    table, _, left_out = plain.partition("left out for want of room: ")
    assert max(cell_len(line) for line in table.splitlines()) <= width
    assert first in table
    assert shown < 4 or this_year in table or "02-03 04:05:06Z" in table
    assert (left_out != "") == (shown < 4)
    assert shown == 4 or "(--json, or a wider terminal)" in left_out


def test_watch_prints_again_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C ends it."""
    monkeypatch.setenv("HORAE_CONFIG", str(tmp_path / "none"))
    times: list[float] = []

    def sleep(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():  # others sleep too, at other times
            times.append(seconds)
            if len(times) >= 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    done = CliRunner().invoke(cli, ["config", "list", "--watch"])
    assert done.stdout.count("0 profile(s)") == 3
    assert times == [formats.WATCH_SECONDS] * 3


def test_a_watch_outlives_a_node_that_restarts(monkeypatch: pytest.MonkeyPatch, node_url: str) -> None:
    """No answer, or 503, is told and tried again; what no waiting helps against ends it, and so does a wrong beginning."""
    answers: list[object] = [
        iter(()),
        Unreachable("no API answers"),
        Refused(503, {"title": "Unavailable"}),
        Refused(429, {"title": "Too many requests"}),
        iter(()),
        Refused(401, {"title": "No such key"}),
    ]

    def jobs(*_: object, **__: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("ops.support.client.Client.jobs", jobs)
    monkeypatch.setattr(formats, "WATCH_SECONDS", 0.0)
    done = CliRunner().invoke(cli, ["jobs", "list", "--watch"], env={"HORAE_URL": node_url})
    assert (done.exit_code, answers) == (1, [])
    assert done.stdout.count("0 job(s)") == 2
    assert done.stderr.count("trying again") == 3
    answers[:] = [Unreachable("no API answers"), iter(())]
    first = CliRunner().invoke(cli, ["jobs", "list", "--watch"], env={"HORAE_URL": node_url})
    assert (first.exit_code, len(answers), "trying again" in first.stderr) == (1, 1, False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(shell: str, tmp_path: Path) -> None:
    """The script names the command; without an API, and in a line that is half typed, nothing else is printed."""
    made = run_horae("completion", shell, cwd=tmp_path)
    assert made.returncode == 0
    assert f"_HORAE_COMPLETE={shell}_complete" in made.stdout
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=made.stdout, text=True, check=False).returncode == 0


def complete(words: str, cwd: Path, **environment: str) -> list[str]:
    done = run_horae(
        cwd=cwd,
        _HORAE_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
        **environment,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_names_are_completed_wherever_a_command_takes_one(
    node_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of jobs, calendars, windows and profiles. `--url` may be an option of the command or of its group."""
    monkeypatch.setattr(completion, "PATIENCE_SECONDS", 30.0)
    monkeypatch.setenv("HORAE_CONFIG", str(tmp_path / "profiles.json"))
    monkeypatch.setenv("HORAE_URL", "http://127.0.0.1:1")
    (tmp_path / "days.json").write_text('{"weekdays": ["SAT"]}')
    for line in (
        f"jobs --url {node_url} create --id n-job --schedule @daily --to http://127.0.0.1:1/x",
        f"calendars --url {node_url} import n-weekends {tmp_path / 'days.json'}",
        f"windows --url {node_url} set n-night --mode hold --tag x --duration 60 --schedule @daily",
        f"config set n-prod --url {node_url}",
    ):
        done = CliRunner().invoke(cli, line.split(" "))
        assert done.exit_code == 0, done.output

    def completed(line: str) -> list[str]:
        shell = ShellComplete(cli, {}, "horae", "_HORAE_COMPLETE")
        return [item.value for item in shell.get_completions(line.split(" "), "n-")]

    assert completed("jobs show") == []  # HORAE_URL is of no node
    assert completed(f"stats --url {node_url} --job") == ["n-job"]
    assert completed(f"jobs --url {node_url} show") == ["n-job"]
    assert completed(f"calendars --url {node_url} show") == ["n-weekends"]
    monkeypatch.setenv("HORAE_URL", node_url)
    for command in ("explain", "verify --job", "tail --job", "executions list --job", "jobs backfill", "jobs revert"):
        assert completed(command) == ["n-job"], command
    for command in ("show", "import", "delete"):
        assert completed(f"calendars {command}") == ["n-weekends"]
    for command in ("show", "set", "delete"):
        assert completed(f"windows {command}") == ["n-night"]
    for command in ("use", "remove", "set"):
        assert completed(f"config {command}") == ["n-prod"]
    for kind, name in (("jobs", "n-job"), ("calendars", "n-weekends"), ("windows", "n-night")):
        assert CliRunner().invoke(cli, [kind, "delete", name]).exit_code == 0


def test_commands_options_and_jobs_are_completed(node_url: str, tmp_path: Path) -> None:
    """Ids of jobs come from the API; without one there are none, and no error."""
    names = ("report-a", "report-b", "other")
    for name in names:
        job = {"schedule": "@daily", "api": "http://127.0.0.1:1/x", "jobId": name}
        created = CliRunner().invoke(cli, ["jobs", "import", "-"], input=orjson.dumps(job), env={"HORAE_URL": node_url})
        assert created.exit_code == 0
    assert "import" in complete("horae im", tmp_path)
    assert complete("horae jobs ed", tmp_path) == ["edit"]
    assert complete("horae jobs pause report", tmp_path, HORAE_URL=node_url) == ["report-a", "report-b"]
    for wrong in ({"HORAE_URL": "http://127.0.0.1:1"}, {"HORAE_URL": "http://[::1"}, {"HORAE_PROFILE": "nowhere"}):
        assert complete("horae jobs pause report", tmp_path, **wrong) == []
    assert complete("horae jobs pause report", tmp_path, HORAE_URL=node_url, HORAE_API_KEY="two words") == []
    assert complete("horae jobs pause report-b", tmp_path, HORAE_URL=node_url) == ["report-b"]
    assert CliRunner().invoke(cli, ["jobs", "delete", *names], env={"HORAE_URL": node_url}).exit_code == 0
