"""`horae import`, then `horae jobs apply` on a live node: what one prints, the other accepts, and the node is due alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from click.testing import CliRunner

from ops.cli import cli
from ops.support.client import Client
from tests.support.moving import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def client(node_url: str) -> Iterator[Client]:
    found = Client(node_url)
    yield found
    for job in list(found.jobs()):
        found.call("DELETE", f"/jobs/{job['jobId']}")


def horae(*arguments: str, text: str | bytes | None = None, url: str = "") -> Result:
    return CliRunner().invoke(cli, list(arguments), input=text, env={"HORAE_URL": url})


def moved(kind: str, file: str, *options: str) -> Result:
    return horae("import", kind, str(DATA / file), "--url-template", "https://jobs.example.org/{name}", *options)


@pytest.mark.parametrize(
    ("kind", "file", "options"),
    [
        ("crontab", "user.crontab", ["--timezone", "Europe/Berlin"]),
        ("crontab", "system.crontab", []),
        ("k8s", "cronjobs.yaml", []),
        ("eventbridge", "schedules.json", []),
    ],
)
def test_what_import_prints_is_applied_by_a_node(
    kind: str, file: str, options: list[str], client: Client, tmp_path: Path
) -> None:
    """All of it, with the same schedules; applied again, nothing changes; remarks are no part of it."""
    done = moved(kind, file, "--tag", "moved", *options)
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert lines
    assert done.exit_code == (1 if "NOT MOVED" in done.stderr else 0)
    assert f"{len(lines)} job(s)" in done.stderr
    (tmp_path / "jobs.ndjson").write_text(done.stdout)
    arguments = ("jobs", "apply", str(tmp_path / "jobs.ndjson"), "--tag", "moved")
    applied = horae(*arguments, url=client.url)
    assert (applied.exit_code, f"{len(lines)} to create" in applied.stdout) == (0, True), applied.output
    again = horae(*arguments, "--dry-run", url=client.url)
    assert again.stdout == f"0 to create, 0 to change, 0 to delete, {len(lines)} unchanged\n"
    for line in lines:
        job: dict[str, Any] = client.call("GET", f"/jobs/{line['jobId']}")
        assert (job["schedule"], job["timezone"], job["api"]) == (line["schedule"], line["timezone"], line["api"])
        assert job["state"] == line.get("state", "active")
        assert job["nextRuns"] or job["state"] == "paused"


def test_the_preview_of_a_node_names_the_instants_that_the_source_documents(client: Client) -> None:
    """One job of each source: every second of them stated by hand."""
    wanted = {
        ("crontab", "user.crontab", "monthly-or-friday"): ["2026-12-01T04:30:00", "2026-12-04T04:30:00"],
        ("k8s", "cronjobs.yaml", "friday-13"): ["2026-12-04T00:00:00", "2026-12-11T00:00:00"],
        ("eventbridge", "schedules.json", "second-tuesday"): ["2026-12-08T09:00:00", "2027-01-12T09:00:00"],
    }
    for (kind, file, job_id), expected in wanted.items():
        lines = map(orjson.loads, moved(kind, file).stdout.splitlines())
        job = next(line for line in lines if line["jobId"] == job_id)
        asked = {"schedule": job["schedule"], "timezone": job["timezone"], "count": 2, "after": "2026-11-28T00:00:00Z"}
        shown = client.call("POST", "/schedules/preview", asked)
        assert [at[:19] for at in shown["next"]] == expected


def test_five_thousand_lines_are_moved_with_few_remarks() -> None:
    """Equal remarks are one, and equal names get numbers."""
    text = "".join(f"{n % 60} {n % 24} * * * /srv/jobs/task{n % 2500} --all > /dev/null\n" for n in range(5000))
    arguments = ("import", "crontab", "-", "--url-template", "https://jobs.example.org/{name}")
    done = horae(*arguments, text="MAILTO=x\n" + text)
    assert done.exit_code == 0
    assert len(done.stderr.splitlines()) < 10
    ids = [orjson.loads(line)["jobId"] for line in done.stdout.splitlines()]
    assert (len(set(ids)), ids[0], ids[2500]) == (5000, "task0", "task0-2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crontab", "-"], "--url-template"),
        (["crontab", "-", "--url-template", "https://x.example/{id}"], "{id} is unknown"),
        (["crontab", "-", "--url-template", "x.example/{name}"], "must start with http"),
        (["crontab", "-", "--url-template", "https://x.example/{name}", "--timezone", "CET-1"], "is not an IANA"),
        (["crontab", "/nowhere", "--url-template", "https://x.example/{name}"], "No such file"),
        (["k8s", "-", "--url-template", "https://x.example/{name}"], "is not YAML"),
        (["eventbridge", "-", "--url-template", "https://x.example/{name}"], "is not JSON"),
    ],
)
def test_wrong_usage_is_a_sentence_and_status_2(arguments: list[str], words: str) -> None:
    """Nothing is printed to standard output."""
    done = horae("import", *arguments, text="a: [")
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
