"""`horae jobs` against a live node."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from click.testing import CliRunner

from cluster.core.instants import format_instant
from ops.cli import cli
from ops.support.client import Client, Refused, Unreachable
from ops.support.embedded_mongodb import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

TARGET = "http://127.0.0.1:1/x"


@pytest.fixture
def client(node_url: str) -> Iterator[Client]:
    found = Client(node_url)
    remove_all(found)  # other files have tests with the same node
    yield found
    remove_all(found)


def remove_all(client: Client) -> None:
    for job in list(client.jobs()):
        client.call("DELETE", f"/jobs/{job['jobId']}")


@pytest.fixture
def jobs(client: Client) -> Callable[..., Result]:
    def run(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["jobs", *arguments], input=text, env={"HORAE_URL": client.url})

    return run


def test_revisions_are_listed_compared_and_reverted_to(jobs: Callable[..., Result], client: Client) -> None:
    """And the audit log says who it was: a command, by its name."""
    client.call("PUT", "/jobs/revised", {"schedule": "@daily", "api": TARGET, "name": "first"})
    client.call("PATCH", "/jobs/revised", {"name": "second"})
    listed = orjson.loads(jobs("revisions", "revised", "--json").stdout)
    assert [(r["revision"], r["action"]) for r in listed] == [(2, "change"), (1, "create")]
    assert jobs("revisions", "revised", "2", "--against", "1").stdout == '/name: "first" -> "second"\n'
    assert jobs("revert", "revised", "1").stdout == "revised: as of revision 1, now revision 3\n"
    assert client.call("GET", "/jobs/revised")["name"] == "first"
    assert jobs("revert", "revised", "9").exit_code == 1
    said = CliRunner().invoke(cli, ["audit", "--object", "job:revised", "--json"], env={"HORAE_URL": client.url})
    newest = orjson.loads(said.stdout)[0]
    assert (newest["action"], newest["by"]["via"], newest["by"]["command"]) == ("revert", "command", "jobs revert")
    assert "revert" in CliRunner().invoke(cli, ["audit"], env={"HORAE_URL": client.url}).stdout


def test_a_pause_with_an_end_is_shown_exported_and_applied(
    jobs: Callable[..., Result], client: Client, tmp_path: Path
) -> None:
    """`--until` and `--reason`; what is exported is unchanged when it is applied, and a file without them clears them."""
    until = format_instant(int(time.time() * 1000) + 3_600_000)
    client.call("PUT", "/jobs/a", {"schedule": "@daily", "api": TARGET})
    paused = jobs("pause", "a", "--until", until, "--reason", "moving")
    assert (paused.exit_code, paused.stdout) == (0, f"a: paused until {until}\n")
    shown = jobs("show", "a").stdout
    assert until in shown
    assert "moving" in shown
    file = tmp_path / "jobs.ndjson"
    file.write_text(jobs("export").stdout)
    exported = {d["jobId"]: d for d in map(orjson.loads, file.read_bytes().splitlines())}
    assert exported["a"]["pausedUntil"] == until
    assert jobs("apply", str(file), "--dry-run").exit_code == 0
    file.write_text(f'{{"jobId": "a", "schedule": "@daily", "api": "{TARGET}", "state": "paused"}}')
    assert jobs("apply", str(file)).exit_code == 0
    assert client.call("GET", "/jobs/a")["pausedUntil"] is None
    assert jobs("pause", "a", "--until", "2020-01-01T00:00:00Z").exit_code == 1


def test_jobs_are_created_controlled_and_deleted(jobs: Callable[..., Result], client: Client) -> None:
    """From options or a file; paused, resumed, triggered, shown, listed and deleted."""
    made = jobs(
        "create", "--id", "a", "--schedule", "@daily", "--to", TARGET, "--body", '{"n":1}', "--set", 'tags=["x"]'
    )
    assert (made.exit_code, made.stdout) == (0, "a\n")
    shown = client.call("GET", "/jobs/a")
    assert (shown["body"], shown["tags"]) == ({"n": 1}, ["x"])
    other = jobs(
        "create", "--file", "-", "--set", "name=n", text=orjson.dumps({"schedule": "@daily", "api": TARGET}).decode()
    )
    assert other.exit_code == 0
    assert jobs("pause", "a").stdout == "a: paused\n"
    assert jobs("resume", "a").stdout == "a: active\n"
    assert jobs("trigger", "a").stdout.startswith("a:")
    assert "@daily" in jobs("show", "a").stdout
    assert [j["jobId"] for j in orjson.loads(jobs("list", "--tag", "x", "--json").stdout)] == ["a"]
    assert "2 job(s)" in jobs("list").stdout
    mixed = jobs("delete", "nope", "a")
    assert (mixed.exit_code, mixed.stdout) == (1, "a: deleted\n")
    assert "nope" in mixed.stderr
    refused = jobs("create", "--schedule", "x", "--to", "y")
    assert refused.exit_code == 1
    assert "schedule:" in refused.output
    assert "api:" in refused.output
    assert jobs("create", "--set", "x").exit_code == 2


def test_import_reports_invalid_lines(jobs: Callable[..., Result]) -> None:
    """Counts on standard output, each invalid line on standard error, exit status 1."""
    good = orjson.dumps({"jobId": "a", "schedule": "@daily", "api": TARGET}).decode()
    done = jobs("import", "-", text=f"{good}\n{{}}\n")
    assert (done.exit_code, done.stdout) == (1, "1 created, 0 updated, 0 unchanged, 1 failed\n")
    assert "line 2: schedule: is required" in done.stderr
    assert jobs("import", "-", text=good).exit_code == 0


def write(file: Path, *found: dict[str, Any]) -> str:
    file.write_bytes(b"\n".join(orjson.dumps(j) for j in found))
    return str(file)


def test_apply_makes_only_the_changes_it_shows(jobs: Callable[..., Result], client: Client, tmp_path: Path) -> None:
    """A second apply does nothing; --prune deletes the rest."""
    a: dict[str, Any] = {
        "jobId": "a",
        "schedule": "@daily",
        "api": TARGET,
        "retry": {"maxAttempts": 3},
        "tags": ["git"],
    }
    a["endAt"] = "2099-01-01T01:00:00+01:00"
    b = {"jobId": "b", "schedule": "@hourly", "api": TARGET, "body": {"x": [1]}, "tags": ["git"]}
    client.call("PUT", "/jobs/by-hand", {"schedule": "@daily", "api": TARGET})
    file = write(tmp_path / "jobs.ndjson", a, b)
    dry = jobs("apply", file, "--dry-run")
    assert dry.exit_code == 1
    assert "+ a" in dry.stdout
    assert {j["jobId"] for j in client.jobs()} == {"by-hand"}
    assert jobs("apply", file).exit_code == 0
    revision = client.call("GET", "/jobs/a")["revision"]
    again = jobs("apply", file, "--dry-run")
    assert (again.exit_code, again.stdout) == (0, "0 to create, 0 to change, 0 to delete, 2 unchanged\n")
    del b["body"]
    file = write(tmp_path / "jobs.ndjson", a, {**b, "schedule": "@weekly"})
    changed = jobs("apply", file, "--prune", "--tag", "git")
    assert changed.exit_code == 0
    assert '    schedule: "@hourly" -> "@weekly"' in changed.stdout
    assert '    body: {"x":[1]} -> null' in changed.stdout
    assert client.call("GET", "/jobs/b")["body"] is None
    assert client.call("GET", "/jobs/a")["revision"] == revision
    file = write(tmp_path / "jobs.ndjson", a)
    pruned = jobs("apply", file, "--prune", "--tag", "git", "--yes")
    assert "- b" in pruned.stdout
    assert {j["jobId"] for j in client.jobs()} == {"a", "by-hand"}
    assert jobs("apply", file, "--prune", "--yes").exit_code == 0
    assert {j["jobId"] for j in client.jobs()} == {"a"}
    for wrong in ([{"schedule": "@daily"}], [a, a], [[1]]):
        assert jobs("apply", write(tmp_path / "wrong.ndjson", *wrong)).exit_code == 2


def test_an_applied_export_changes_nothing(jobs: Callable[..., Result], tmp_path: Path) -> None:
    """The output of export defines the same jobs."""
    full = {"jobId": "f", "schedule": "0 30 2 * * *", "timezone": "Europe/Berlin", "api": TARGET, "headers": {"X": "1"}}
    jobs(
        "import",
        "-",
        text=orjson.dumps({**full, "body": "", "retry": {"jitter": 0}, "endAt": "2099-01-01T00:00:00Z"}).decode(),
    )
    exported = jobs("export").stdout
    assert orjson.loads(exported)["retry"]["jitter"] == 0
    assert "timeoutSeconds" not in exported
    (tmp_path / "all.ndjson").write_text(exported)
    assert jobs("apply", str(tmp_path / "all.ndjson"), "--prune", "--dry-run").exit_code == 0


def test_nothing_is_deleted_by_an_empty_set_or_unasked(
    jobs: Callable[..., Result], client: Client, tmp_path: Path
) -> None:
    """Empty files need --allow-empty; without a terminal --prune needs --yes, and a dry run needs nothing."""
    for i in range(3):
        client.call("PUT", f"/jobs/p{i}", {"schedule": "@daily", "api": TARGET})
    for number, empty in enumerate(("", " \n\n", "[]", " [ ] ")):
        file = tmp_path / f"empty{number}"
        file.write_text(empty)
        for flags in ((), ("--prune",), ("--prune", "--yes"), ("--prune", "--dry-run")):
            refused = jobs("apply", str(file), *flags)
            assert (refused.exit_code, "--allow-empty" in refused.output) == (2, True)
        assert "--yes" in jobs("apply", str(file), "--prune", "--allow-empty").output
    others = write(tmp_path / "others.ndjson", {"kind": "queue", "name": "q", "maxConcurrent": 3})
    for flags in (("--prune",), ("--prune", "--yes"), ("--prune", "--dry-run")):
        refused = jobs("apply", others, *flags)
        assert (refused.exit_code, "--allow-empty" in refused.output) == (2, True)
    assert jobs("apply", others).exit_code == 0
    client.call("DELETE", "/queues/q")
    kept = write(tmp_path / "two.ndjson", *({"jobId": f"p{i}", "schedule": "@daily", "api": TARGET} for i in range(2)))
    refused = jobs("apply", kept, "--prune")
    assert (refused.exit_code, "no terminal" in refused.output) == (2, True)
    assert jobs("apply", kept, "--prune", "--dry-run").exit_code == 1
    assert len(list(client.jobs())) == 3
    assert jobs("apply", kept, "--prune", "--yes").exit_code == 0
    assert jobs("apply", str(tmp_path / "empty0"), "--prune", "--allow-empty", "--yes").exit_code == 0
    assert list(client.jobs()) == []


def test_more_than_half_needs_yes_at_a_terminal_too(
    jobs: Callable[..., Result], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to half, the question is asked and a no is heeded."""
    monkeypatch.setattr("ops.commands.jobs_files.is_asked", lambda: True)
    wanted = [{"jobId": f"p{i}", "schedule": "@daily", "api": TARGET} for i in range(4)]
    for j in wanted:
        client.call("PUT", f"/jobs/{j['jobId']}", {**j})
    one, two = write(tmp_path / "one", *wanted[:1]), write(tmp_path / "two", *wanted[:2])
    refused = jobs("apply", one, "--prune", text="y\n")
    assert (refused.exit_code, "3 of 4" in refused.output) == (2, True)
    assert jobs("apply", two, "--prune", text="n\n").exit_code == 1
    assert len(list(client.jobs())) == 4
    assert jobs("apply", two, "--prune", text="y\n").exit_code == 0
    assert len(list(client.jobs())) == 2


def test_export_and_apply_keep_states_and_bytes(jobs: Callable[..., Result], client: Client, tmp_path: Path) -> None:
    """A paused job comes back paused, the difference shows a state, and a body keeps its digits and blanks."""
    body = '{ "n" : 12345678901234567.89, "m":[1.10, 1e400] }'
    lines = '{\n  "n" : 1.10,\r\n\t"x": "\\u00e9"\n}'
    client.call("PUT", "/jobs/c", {"schedule": "@daily", "api": TARGET, "body": lines, "bodyType": "json"})
    assert jobs("create", "--id", "a", "--schedule", "@daily", "--to", TARGET, "--body", body).exit_code == 0
    assert jobs("create", "--id", "b", "--schedule", "@daily", "--to", TARGET, "--set", "state=paused").exit_code == 0
    assert client.call("GET", "/jobs/b")["state"] == "paused"
    exported = jobs("export").stdout
    assert f'"body":{body}' in exported
    assert body in jobs("list", "--json").stdout
    assert body in jobs("show", "a", "--json").stdout
    file = tmp_path / "all.ndjson"
    file.write_text(exported)
    assert jobs("apply", str(file), "--dry-run").exit_code == 0, "an export is no change"
    for name, request in (("a", "pause"), ("b", "resume")):
        client.call("POST", f"/jobs/{name}/{request}")
    shown = jobs("apply", str(file))
    assert (shown.exit_code, '    state: "paused" -> "active"' in shown.stdout) == (0, True)
    assert '    state: "active" -> "paused"' in shown.stdout
    for job_id in ("a", "b", "c"):
        client.call("DELETE", f"/jobs/{job_id}")
    fresh = jobs("apply", str(file))
    assert (fresh.exit_code, "(paused)" in fresh.stdout) == (0, True)
    assert jobs("export").stdout == exported
    assert jobs("import", str(file)).stdout == "0 created, 0 updated, 3 unchanged, 0 failed\n"
    assert {j["jobId"]: getattr(j["body"], "text", None) for j in client.jobs()}["c"] == lines.encode()
    array = tmp_path / "all.json"
    array.write_text("[" + exported.strip().replace("\n", ",\n") + "]")
    assert jobs("apply", str(array), "--dry-run").exit_code == 0
    client.call("POST", "/jobs/a/pause")
    without = write(tmp_path / "without", {"jobId": "a", "schedule": "@daily", "api": TARGET})
    assert "state" not in jobs("apply", without, "--dry-run").stdout, "a file that names no state changes none"


def test_the_client_explains_connection_problems() -> None:
    """No server, another server, an invalid address."""
    with pytest.raises(Unreachable, match="horae serve"):
        Client(f"http://127.0.0.1:{free_port()}").call("GET", "/jobs")

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(Refused, match="is not JSON"):
        Client(f"http://127.0.0.1:{server.server_port}").call("GET", "/jobs")
    server.shutdown()
    server.server_close()
    done = CliRunner().invoke(cli, ["jobs", "list"], env={"HORAE_URL": "ftp://x"})
    assert done.exit_code == 2
    assert "is not the address of an API" in done.output


def test_the_client_reads_all_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another."""
    monkeypatch.setattr("ops.support.client.PAGE", 2)
    for i in range(5):
        client.call("PUT", f"/jobs/p{i}", {"schedule": "@daily", "api": TARGET})
    assert sorted(j["jobId"] for j in client.jobs()) == [f"p{i}" for i in range(5)]


@pytest.mark.takes(6)
def test_jobs_are_found_by_what_became_of_them(jobs: Callable[..., Result], client: Client) -> None:
    """Failing ones by the result of a real node; the same requests are counted over time."""

    def ids(*arguments: str) -> list[str]:
        done = jobs("list", *arguments, "--json")
        assert done.exit_code == 0, done.output
        return [j["jobId"] for j in orjson.loads(done.stdout)]

    once = {"schedule": "@yearly", "api": TARGET, "retry": {"maxAttempts": 1}}
    client.call("PUT", "/jobs/found-a", {**once, "name": "Alpha report", "tags": ["x", "y"]})
    client.call("PUT", "/jobs/found-b", {**once, "schedule": "0 0 1 1 *", "name": "beta"})
    client.call("PUT", "/jobs/found-c", {**once, "schedule": "@hourly", "tags": ["y"]})
    client.call("POST", "/jobs/found-b/trigger")
    assert ids("--sort", "nextRunAt")[0] == "found-c"
    assert ids("--search", "REP alpha") == ["found-a"]
    assert ids("--tag", "x", "--tag", "y") == ["found-a"]
    assert ids("--any-tag", "x", "--any-tag", "y", "--sort", "createdAt") == ["found-a", "found-c"]
    assert ids("--schedule", "@yearly", "--sort", "name", "--host", "127.0.0.1") == ["found-a", "found-b"]
    assert ids("--sort", "nextRunAt", "--limit", "1") == ["found-c"]
    assert jobs("list", "--due-before", "soon").exit_code == 1
    wait_until(lambda: ids("--failing") == ["found-b"], 15, "the failure is in the list")
    assert "dead" in jobs("list").stdout
    assert ids("--not-failing", "--sort", "createdAt") == ["found-a", "found-c"]

    def sent() -> bool:
        done = CliRunner().invoke(cli, ["stats", "--json"], env={"HORAE_URL": client.url})
        return any(p["failed"] for p in orjson.loads(done.stdout)["series"])

    wait_until(sent, 15, "the failure is counted")
    shown = CliRunner().invoke(cli, ["stats", "--by", "host", "--step", "1h"], env={"HORAE_URL": client.url})
    assert shown.exit_code == 0, shown.output


def test_many_jobs_are_controlled_by_a_filter(jobs: Callable[..., Result], client: Client) -> None:
    """Shown and counted first; without a terminal nothing is done unless --yes is given; the counts are printed."""
    for name in ("a", "b", "c"):
        client.call("PUT", f"/jobs/{name}", {"schedule": "@daily", "api": TARGET, "tags": ["x"] if name < "c" else []})
    dry = jobs("pause", "--tag", "x", "--dry-run")
    assert (dry.exit_code, dry.stdout.splitlines()[-1]) == (0, "2 job(s) match")
    assert [line.split()[0] for line in dry.stdout.splitlines()[:2]] == ["a", "b"]
    refused = jobs("pause", "--tag", "x")
    assert (refused.exit_code, "--yes" in refused.stderr) == (2, True)
    assert {j["state"] for j in client.jobs()} == {"active"}
    done = jobs("pause", "--tag", "x", "--yes")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        0, "pause done: 2 of 2 job(s), 0 failed, 0 did not match any more"
    )  # fmt: skip
    assert {j["jobId"]: j["state"] for j in client.jobs()} == {"a": "paused", "b": "paused", "c": "active"}
    begun = jobs("delete", "--state", "paused", "--yes", "--no-wait").stdout.splitlines()[-1]
    wait_until(lambda: jobs("actions", begun).stdout.startswith("delete done: 2 of 2"), 10)
    assert [j["jobId"] for j in client.jobs()] == ["c"]
    listed = orjson.loads(jobs("actions", "--json").stdout)
    assert [a["action"] for a in listed][:2] == ["delete", "pause"]
    assert jobs("actions", begun, "--stop").exit_code == 1
    assert jobs("resume").exit_code == jobs("resume", "a", "--tag", "x").exit_code == 2
    assert jobs("trigger", "--all", "--yes").exit_code == 0
    wait_until(lambda: len(client.call("GET", "/jobs/c/executions")) == 1, 10)
