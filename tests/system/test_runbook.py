"""ops/RUNBOOK.md: its commands are run as they stand there, and every alert has its place in it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import click
import pytest
import yaml
from click.testing import CliRunner

from ops.cli import cli
from tests.support import live, plain_http
from tests.support.processes import Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ops" / "RUNBOOK.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
HEADINGS = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)


def anchor(heading: str) -> str:
    """How a reader's browser names a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def steps() -> list[tuple[str, list[str]]]:
    """Every command with the texts that stand below it."""
    found: list[tuple[str, list[str]]] = []
    for line in "\n".join(BLOCKS).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line.strip())
    return found


@pytest.fixture
def world(mongodb_uri: str, db_name: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A live node with a job that runs and an execution that failed: what the runbook's variables stand for."""
    receiver = Receiver(tmp_path)
    try:
        with live.node(mongodb_uri, db_name) as url:
            for job, path in (("nightly", "/ok"), ("broken", "/status/404")):
                body: dict[str, object] = {
                    "schedule": "0 0 3 * * *",
                    "api": f"{receiver.url}{path}",
                    "type": "ATLEAST_ONCE",
                }
                body["tags"] = ["billing"]
                assert plain_http.put(f"{url}/jobs/{job}", json=body).status_code == 201
            stuck = {
                "schedule": "@daily",
                "api": f"{receiver.url}/hang",
                "timeoutSeconds": 4,
                "retry": {"maxAttempts": 1},
            }
            plain_http.put(f"{url}/jobs/stuck", json=stuck).raise_for_status()
            execution = plain_http.post(f"{url}/jobs/broken/trigger").json()["executionId"]
            wait_until(
                lambda: plain_http.get(f"{url}/executions/{execution}").json().get("state") == "failed",
                20,
                "the failure",
            )
            (tmp_path / "old.crontab").write_text("0 3 * * * /usr/bin/backup\n")
            (tmp_path / "weekends.json").write_text('{"weekdays": ["SAT", "SUN"]}')
            (node,) = (n["nodeId"] for n in plain_http.get(f"{url}/cluster").json()["nodes"])
            yield {
                "HORAE_URL": url,
                "MONGODB_URI": mongodb_uri,
                "DB_NAME": db_name,
                "JOB": "nightly",
                "TAG": "billing",
                "EXECUTION": execution,
                "NODE": node,
                "DIR": str(tmp_path),
                "EDITOR": "true",  # leaves the text as it is
                "HORAE_SECRET_KEY": live.SECRET_KEY,
            }
    finally:
        end(receiver.process)


def held(world: dict[str, str]) -> str:
    """A batch that the node holds now: its only execution gets no answer."""
    plain_http.post(f"{world['HORAE_URL']}/jobs/stuck/trigger").raise_for_status()

    def found() -> str | None:
        batches = json.loads(run("horae leases --json", world)[1])["batches"]
        return batches[0]["batch"] if batches else None

    return wait_until(found, 10, "a batch that is held")


def run(command: str, world: dict[str, str]) -> tuple[int, str]:
    """Exit status and output. Our own commands run in this process: starting Python for each takes longer than they do."""
    words = shlex.split(Template(command).safe_substitute(world))
    if words[0] == "horae":
        target = words[words.index(">") + 1] if ">" in words else None
        words = words[: words.index(">")] if target else words
        done = CliRunner().invoke(cli, words[1:], env=world)
        if target:
            Path(target).write_text(done.stdout)
        return done.exit_code, done.output + (str(done.exception) if done.exception else "")
    shell = subprocess.run(
        ["bash", "-c", command],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **world},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return shell.returncode, shell.stdout + shell.stderr


@pytest.mark.takes(12)
def test_every_command_of_the_runbook_prints_what_it_says(world: dict[str, str]) -> None:
    """Status 0, and each text below a command is in its output."""
    assert len(steps()) > 20
    for command, texts in steps():
        if "$BATCH" in command:
            world["BATCH"] = held(world)
        status, output = run(command, world)
        assert status == 0, f"{command}\n{output}"
        for text in texts:
            assert Template(text).safe_substitute(world) in output, f"{command}\n{output}"


def path(words: list[str]) -> tuple[str, ...]:
    """The command that these words call, without its arguments. Fails if there is none."""
    group: click.Command = cli
    found: list[str] = []
    for word in words:
        below = group.get_command(click.Context(group), word) if isinstance(group, click.Group) else None
        if below is None and (found or not isinstance(group, click.Group)):
            break
        assert below is not None, f"there is no `horae {word}`"
        group = below
        found.append(word)
    return tuple(found)


def test_each_command_in_a_sentence_is_run_by_a_block() -> None:
    """`horae ...` in the text is in a block too, which the test above runs."""
    in_blocks = {path(command.split()[1:]) for command, _ in steps() if command.startswith("horae ")}
    text = re.sub(r"```console\n.*?```", "", TEXT, flags=re.DOTALL)
    spoken = {path(span.split()) for span in re.findall(r"`horae\s([a-z][a-z\s-]*)", text)}
    assert spoken <= in_blocks, spoken - in_blocks


def test_every_fault_has_its_four_parts() -> None:
    """What you see, why, what to do, how to know that it worked."""
    faults = TEXT[TEXT.index("# Faults\n") : TEXT.index("\n# Capacity")]
    sections = faults.split("\n## ")[1:]
    assert len(sections) > 12
    for section in sections:
        for part in ("**See**", "**Why**", "**Do**", "**Worked**"):
            assert part in section, f"{section.splitlines()[0]} lacks {part}"


def test_each_link_within_the_runbook_has_its_heading() -> None:
    anchors = {anchor(h) for h in HEADINGS}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def test_the_table_at_the_top_lists_every_section() -> None:
    """Alerts, faults, and planning and upkeep: a column each, in the order of the page."""
    table = [
        row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", TEXT[: TEXT.index("\n# First look")], re.MULTILINE)
    ]
    columns = [
        [found for cell in column for found in re.findall(r"\[(.+)\]", cell)] for column in zip(*table, strict=True)
    ]
    parts = re.split(r"^# ", TEXT, flags=re.MULTILINE)
    below = {part.splitlines()[0]: re.findall(r"^##+ (.+)$", part, re.MULTILINE) for part in parts[1:]}
    upkeep = [h for name, inner in below.items() if name not in ("Runbook", "Alerts", "Faults") for h in (name, *inner)]
    assert columns == [below["Alerts"], below["Faults"], upkeep]


def test_events_and_series_named_in_the_runbook_exist() -> None:
    """Events are in EVENTS.md, series in the rules or the dashboard."""
    events = set(re.findall(r"^\| `(\w+)`", (ROOT / "ops" / "EVENTS.md").read_text(), re.MULTILINE))
    shown = (ROOT / "config/alerts.yml").read_text() + (ROOT / "config/grafana/horae.json").read_text()
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT):
        assert name in events or (name.startswith("horae_") and name in shown), name


def test_every_alert_has_a_section_and_links_to_it() -> None:
    """The heading is the alert's name, and the section has the four parts."""
    rules = yaml.safe_load((ROOT / "config" / "alerts.yml").read_text())
    alerts = {r["alert"]: r for group in rules["groups"] for r in group["rules"] if "alert" in r}
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^#)", TEXT, re.DOTALL | re.MULTILINE))
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook_url"].endswith(f"ops/RUNBOOK.md#{anchor(name)}"), name
        for part in ("**See**", "**Why**", "**Do**", "**Worked**"):
            assert part in sections[name], f"{name} lacks {part}"
    assert {s for s in sections if s.startswith("Horae")} == set(alerts), "sections of alerts that do not exist"
