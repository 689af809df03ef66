"""`horae jobs export`, a wiped database and `apply`: no secret comes out, and none is lost in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.moving import Moved

TARGET = "http://127.0.0.1:1/x"
SIGNING, PREVIOUS, OTHER = (f"whsec_{letter * 32}" for letter in "ABC")
SLACK = "http://127.0.0.1:9/services/s3cret-4711"
VALUES = ("s3cret", "pa55word", "t0ken", SIGNING, PREVIOUS, OTHER)
KEPT = {"secret": True}

JOB = {"schedule": "@daily", "api": TARGET}
CALLBACK = {"api": TARGET, "headers": {"X-Key": {"secret": "s3cret-3"}, "X-Team": "a"}, "signingSecret": SIGNING}
SECRETS: list[dict[str, Any]] = [
    {"kind": "channel", "name": "hook", "signingSecret": SIGNING},
    {"kind": "channel", "name": "chat", "url": SLACK},
    {"jobId": "a", "signingSecret": SIGNING, "previousSigningSecret": PREVIOUS},
    {"jobId": "b", "headers": {"X-Api-Key": "s3cret-1"}, "auth": {"password": "pa55word-1"}},
    {"jobId": "c", "auth": {"token": "t0ken-1"}},
    {
        "jobId": "d",
        "onSuccess": {"headers": {"X-Key": {"secret": "s3cret-3"}}, "signingSecret": SIGNING},
        "onFailure": {"signingSecret": OTHER},
    },
]
"""The value of every secret of `fill`, as the documents say that they are given."""
PLACES = {
    "channel hook: signingSecret",
    "channel chat: url",
    "job a: signingSecret",
    "job a: previousSigningSecret",
    "job b: headers.X-Api-Key",
    "job b: auth.password",
    "job c: auth.token",
    "job d: onSuccess.headers.X-Key",
    "job d: onSuccess.signingSecret",
    "job d: onFailure.signingSecret",
}


def fill(moved: Moved) -> None:
    """A secret in every field that may hold one."""
    moved.call("PUT", "/channels/hook", {"type": "webhook", "url": "http://127.0.0.1:9/a", "signingSecret": SIGNING})
    moved.call("PUT", "/channels/chat", {"type": "slack", "url": SLACK})
    moved.call("PUT", "/channels/open", {"type": "webhook", "url": "http://127.0.0.1:9/b"})
    moved.call("PUT", "/jobs/a", {**JOB, "signingSecret": SIGNING, "previousSigningSecret": PREVIOUS})
    basic = {"type": "basic", "username": "u", "password": "pa55word-1"}
    moved.call("PUT", "/jobs/b", {**JOB, "headers": {"X-Api-Key": {"secret": "s3cret-1"}, "X-B": "b"}, "auth": basic})
    moved.call("PUT", "/jobs/c", {**JOB, "auth": {"type": "bearer", "token": "t0ken-1"}})
    moved.call("PUT", "/jobs/d", {**JOB, "onSuccess": CALLBACK, "onFailure": {"api": TARGET, "signingSecret": OTHER}})
    moved.call("PUT", "/jobs/e", JOB)


def written(file: Path, *values: dict[str, Any]) -> str:
    file.write_bytes(b"".join(orjson.dumps(v) + b"\n" for v in values))
    return str(file)


def exported(moved: Moved, file: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """The text of an export, and its jobs."""
    done = moved.run("jobs", "export")
    assert done.exit_code == 0, done.output
    assert not any(value in done.output for value in VALUES)
    file.write_text(done.stdout)
    found = [orjson.loads(line) for line in done.stdout.splitlines()]
    return done.stdout, {d["jobId"]: d for d in found if "jobId" in d}


def test_an_empty_database_is_given_no_job_without_its_protection(moved: Moved, tmp_path: Path) -> None:
    """Every missing secret is named, with what to do, before anything is changed; with their values all is as it was."""
    fill(moved)
    file = tmp_path / "all.ndjson"
    text, jobs = exported(moved, file)
    assert (jobs["a"]["signingSecret"], jobs["a"]["previousSigningSecret"]) == (KEPT, KEPT)
    assert (jobs["d"]["onSuccess"]["signingSecret"], "signingSecret" in jobs["e"]) == (KEPT, False)
    same = moved.run("jobs", "apply", str(file), "--dry-run")
    assert (same.exit_code, "0 to create, 0 to change" in same.stdout) == (0, True), same.output
    moved.wipe()
    for options in ((), ("--dry-run",), ("--prune", "--yes")):
        refused = moved.run("jobs", "apply", str(file), *options)
        assert refused.exit_code == 1
        missing = {
            x.strip().removesuffix(": has no stored secret") for x in refused.stderr.splitlines() if "no stored" in x
        }
        assert missing == PLACES
        assert "--secrets FILE" in refused.stderr
        assert moved.run("jobs", "export").stdout == ""
    some = written(tmp_path / "some.ndjson", *SECRETS[:3])
    partly = moved.run("jobs", "apply", str(file), "--secrets", some)
    assert (partly.exit_code, "job b: auth.password" in partly.stderr, "job a" in partly.stderr) == (1, True, False)
    assert moved.jobs() == []
    values = written(tmp_path / "secrets.ndjson", *SECRETS)
    applied = moved.run("jobs", "apply", str(file), "--secrets", values)
    assert applied.exit_code == 0, applied.output
    assert not any(value in applied.output for value in VALUES)
    assert exported(moved, file)[0] == text


def test_an_import_of_placeholders_is_refused_line_by_line_with_all_of_them(moved: Moved, tmp_path: Path) -> None:
    fill(moved)
    _, jobs = exported(moved, tmp_path / "all.ndjson")
    moved.wipe()
    refused = moved.run("jobs", "import", written(tmp_path / "jobs.ndjson", *jobs.values()))
    assert (refused.exit_code, refused.stdout) == (1, "1 created, 0 updated, 0 unchanged, 4 failed\n")
    named = {line.partition(": has no")[0].partition(" (")[2].replace(")", "") for line in refused.stderr.splitlines()}
    assert {f"job {name}" for name in named} == {p for p in PLACES if p.startswith("job")}
    assert [j["jobId"] for j in moved.jobs()] == ["e"]


def test_what_is_stored_is_kept_replaced_or_removed_as_the_file_says(moved: Moved, tmp_path: Path) -> None:
    """A placeholder, and a field that is left out, keep a secret; a value replaces it; null removes it. No value is shown."""
    fill(moved)
    file = tmp_path / "a.ndjson"
    before = moved.call("GET", "/jobs/a")
    kept = moved.run("jobs", "apply", written(file, {"jobId": "a", **JOB, "name": "n", "signingSecret": KEPT}))
    assert kept.exit_code == 0, kept.output
    shown = moved.call("GET", "/jobs/a")
    assert (shown["name"], shown["signingSecret"], shown["previousSigningSecret"]) == ("n", KEPT, KEPT)
    given = {"jobId": "a", **JOB, "name": "n", "signingSecret": SIGNING}
    same = moved.run("jobs", "apply", written(file, given))
    assert (same.exit_code, "secrets changed" in same.stdout, SIGNING in same.output) == (0, False, False)
    assert moved.call("GET", "/jobs/a")["revision"] == shown["revision"]
    dry = moved.run("jobs", "apply", written(file, {**given, "signingSecret": OTHER}), "--dry-run")
    assert (dry.exit_code, "? a  gives secrets" in dry.stdout) == (0, True)
    other = moved.run("jobs", "apply", str(file))
    assert (other.exit_code, "~ a  secrets changed" in other.stdout, OTHER in other.output) == (0, True, False)
    none = {**given, "signingSecret": None, "previousSigningSecret": None}
    removed = moved.run("jobs", "apply", written(file, none))
    assert 'signingSecret: {"secret":true} -> null' in removed.stdout
    assert "signingSecret" not in moved.call("GET", "/jobs/a")
    signed = moved.run("jobs", "apply", written(file, given))
    assert 'signingSecret: null -> {"secret":true}' in signed.stdout
    assert moved.call("GET", "/jobs/a")["signingSecret"] == KEPT
    assert "signingSecret" in before


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"jobId": "e", "signingSecret": SIGNING}, "job e has no placeholder at signingSecret"),
        (
            {"jobId": "d", "onSuccess": {"headers": {"X-Team": "b"}}},
            "job d has no placeholder at onSuccess.headers.X-Team",
        ),
        ({"jobId": "c", "auth": {"password": "pa55word"}}, "job c has no placeholder at auth.password"),
    ],
)
def test_a_value_that_nothing_asks_for_is_refused(
    moved: Moved, tmp_path: Path, value: dict[str, Any], named: str
) -> None:
    """A secret that is misspelt would be missing; values of objects that are not in the files are left alone."""
    fill(moved)
    file = tmp_path / "all.ndjson"
    exported(moved, file)
    unknown = {"jobId": "other", "signingSecret": SIGNING}
    refused = moved.run("jobs", "apply", str(file), "--secrets", written(tmp_path / "s.ndjson", unknown, value))
    assert (refused.exit_code, named in refused.stderr) == (2, True), refused.output
    allowed = moved.run("jobs", "apply", str(file), "--secrets", written(tmp_path / "s.ndjson", unknown))
    assert allowed.exit_code == 0, allowed.output


def test_a_job_that_is_to_get_the_tag_of_its_set_keeps_its_secrets(moved: Moved, tmp_path: Path) -> None:
    """With --tag it is not among the jobs that are compared, and its secrets are stored all the same."""
    fill(moved)
    file = written(tmp_path / "a.ndjson", {"jobId": "a", **JOB, "tags": ["x"], "signingSecret": KEPT})
    done = moved.run("jobs", "apply", file, "--tag", "x")
    assert done.exit_code == 0, done.output
    assert (moved.call("GET", "/jobs/a")["tags"], moved.call("GET", "/jobs/a")["signingSecret"]) == (["x"], KEPT)
