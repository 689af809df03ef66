"""`horae jobs export` and `apply` of callbacks, chains and one-off jobs: the same bytes, and no secret in any of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.moving import Moved

TARGET = "http://127.0.0.1:1/x"
SIGNING = f"whsec_{'A' * 32}"
SECRET = "s3cret-value-4711"


def fill(moved: Moved) -> None:
    """Callbacks to URLs and channels, of jobs with a schedule and chained ones; jobs that are removed after their end."""
    moved.call("PUT", "/channels/ops", {"type": "webhook", "url": "http://127.0.0.1:9/alerts"})
    url = {"api": "http://127.0.0.1:2/told", "headers": {"X-Team": "billing", "A": "é"}}
    jobs: dict[str, dict[str, Any]] = {
        "z-first": {"schedule": "0 0 9 * * *", "onSuccess": url, "onFailure": {"channel": "ops"}},
        "a-after": {"after": {"jobId": "z-first", "on": "any"}, "onFailure": url},
        "b-after": {"after": {"jobId": "a-after"}, "state": "paused", "completedRetentionDays": 2.5},
        "c-once": {"schedule": "@at 2099-01-01T00:00:00.250Z", "deleteAfterRun": True, "onSuccess": {"channel": "ops"}},
        "d-ends": {"schedule": "@daily", "endAt": "2099-01-01T00:00:00Z", "completedRetentionDays": 0},
    }
    for job, fields in jobs.items():
        moved.call("PUT", f"/jobs/{job}", {"api": TARGET, **fields})


def test_an_export_an_empty_database_and_an_apply_give_the_same_bytes(moved: Moved, tmp_path: Path) -> None:
    """In the order of an export a chained job comes before the one that it runs after."""
    fill(moved)
    exported = moved.run("jobs", "export")
    assert exported.exit_code == 0, exported.output
    written = {d["jobId"]: d for d in map(orjson.loads, exported.stdout.splitlines()) if "jobId" in d}
    assert list(written) == sorted(written)
    assert written["a-after"]["after"] == {"jobId": "z-first", "on": "any"}
    assert "schedule" not in written["a-after"]
    assert written["z-first"]["onFailure"] == {"channel": "ops"}
    assert (written["c-once"]["deleteAfterRun"], written["b-after"]["completedRetentionDays"]) == (True, 2.5)
    file = tmp_path / "all.ndjson"
    file.write_text(exported.stdout)
    same = moved.run("jobs", "apply", str(file), "--dry-run")
    assert same.exit_code == 0, same.output
    moved.wipe()
    assert moved.run("jobs", "export").stdout == ""
    applied = moved.run("jobs", "apply", str(file))
    assert applied.exit_code == 0, applied.output
    assert moved.run("jobs", "export").stdout == exported.stdout
    moved.wipe()
    moved.run("jobs", "apply", str(file))
    (tmp_path / "jobs.ndjson").write_text(moved.run("jobs", "export", "--jobs-only").stdout)
    for job in moved.jobs():
        moved.call("DELETE", f"/jobs/{job['jobId']}")
    imported = moved.run("jobs", "import", str(tmp_path / "jobs.ndjson"))
    assert imported.exit_code == 0, imported.output
    assert moved.run("jobs", "export").stdout == exported.stdout


def test_a_secret_of_a_callback_is_never_exported_and_an_empty_database_asks_for_it(
    moved: Moved, tmp_path: Path
) -> None:
    """Where it is stored, an export that is applied keeps it. Where it is not, the field that lacks it is named."""
    secret = {"api": TARGET, "headers": {"X-Key": {"secret": SECRET}}, "signingSecret": SIGNING}
    moved.call("PUT", "/jobs/sealed", {"schedule": "@daily", "api": TARGET, "onSuccess": secret, "onFailure": secret})
    exported = moved.run("jobs", "export")
    file = tmp_path / "sealed.ndjson"
    file.write_text(exported.stdout)
    assert moved.run("jobs", "apply", str(file), "--dry-run").exit_code == 0
    changed = orjson.loads(exported.stdout) | {"timeoutSeconds": 5}
    file.write_bytes(orjson.dumps(changed))
    kept = moved.run("jobs", "apply", str(file))
    assert kept.exit_code == 0, kept.output
    shown = moved.call("GET", "/jobs/sealed")
    assert (shown["timeoutSeconds"], shown["onSuccess"]["headers"]) == (5.0, {"X-Key": {"secret": True}})
    seen = [exported.output, kept.output, str(shown), str(moved.call("GET", "/audit?object=job:sealed"))]
    seen += [
        str(moved.call("GET", "/jobs/sealed/revisions")),
        str(moved.call("GET", "/jobs/sealed/revisions/2?against=1")),
    ]
    assert all(SECRET not in text and SIGNING not in text for text in seen)
    moved.wipe()
    refused = moved.run("jobs", "apply", str(file))
    assert refused.exit_code == 1
    assert "onSuccess.headers.X-Key: has no stored secret" in refused.output
    assert moved.jobs() == []
