"""`horae jobs export` and `apply` of everything, `horae calendars` and `horae windows`, against a live node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.moving import Moved

TARGET = "http://127.0.0.1:1/x"


def fill(moved: Moved) -> None:
    moved.call("PUT", "/queues/mail", {"maxPerSecond": 2.5, "maxConcurrent": 3})
    moved.call("PUT", "/queues/any", {})
    moved.call("PUT", "/channels/ops", {"type": "webhook", "url": "http://127.0.0.1:9/alerts"})
    days = {
        "timezone": "Europe/Berlin",
        "dates": ["2026-12-31", "2026-12-24"],
        "yearly": ["12-25"],
        "ranges": [{"from": "2027-08-01", "until": "2027-08-14"}],
        "weekdays": ["SUN", "SAT"],
    }
    moved.call("PUT", "/calendars/holidays", days)
    moved.call("PUT", "/calendars/none", {})
    weekly = {"mode": "hold", "tags": ["billing"], "schedule": "0 0 2 * * SUN", "durationSeconds": 7200}
    moved.call("PUT", "/windows/night", {**weekly, "timezone": "Europe/Berlin", "spreadSeconds": 5})
    once = {
        "mode": "skip",
        "hosts": ["a.example"],
        "from": "2030-01-01T01:00:00+01:00",
        "until": "2030-01-01T06:00:00Z",
    }
    moved.call("PUT", "/windows/once", once)
    moved.call("PUT", "/alerts/default", {"channels": ["ops"], "onDead": True, "afterFailures": 3})
    job: dict[str, Any] = {"schedule": "0 0 9 * * *", "api": TARGET, "queue": "mail", "tags": ["billing"]}
    use = {"name": "holidays", "onExcluded": "nextIncluded"}
    alerts = {"channels": ["ops"], "driftOverMs": 5000}
    moved.call("PUT", "/jobs/a", {**job, "calendar": use, "state": "paused", "alerts": alerts})
    moved.call("PUT", "/jobs/b", {**job, "body": {"n": 1.10}})


def test_an_export_an_empty_database_and_an_apply_give_the_same_bytes(moved: Moved, tmp_path: Path) -> None:
    """Of all kinds of objects; and an apply of what is there changes nothing."""
    fill(moved)
    exported = moved.run("jobs", "export")
    assert exported.exit_code == 0, exported.output
    kinds = [orjson.loads(line).get("kind", "job") for line in exported.stdout.splitlines()]
    assert kinds == [*["queue"] * 2, "channel", *["calendar"] * 2, *["window"] * 2, "alertRules", "job", "job"]
    file = tmp_path / "all.ndjson"
    file.write_text(exported.stdout)
    same = moved.run("jobs", "apply", str(file), "--dry-run")
    assert same.exit_code == 0, same.output
    moved.wipe()
    assert moved.run("jobs", "export").stdout == ""
    planned = moved.run("jobs", "apply", str(file), "--dry-run")
    assert planned.exit_code == 1
    assert "+ calendar holidays" in planned.stdout
    assert moved.call("GET", "/calendars")["items"] == []
    applied = moved.run("jobs", "apply", str(file))
    assert applied.exit_code == 0, applied.output
    assert moved.run("jobs", "export").stdout == exported.stdout


def test_apply_changes_only_what_differs_and_deletes_no_other_object(moved: Moved, tmp_path: Path) -> None:
    """An object without its defaults is the same; a wrong kind is refused before anything is done."""
    fill(moved)
    file = tmp_path / "some.ndjson"
    file.write_text(
        '{"kind":"window","name":"night","mode":"mute","tags":["billing"],"schedule":"0 0 2 * * SUN",'
        '"durationSeconds":7200,"timezone":"Europe/Berlin","spreadSeconds":5}\n'
        '{"kind":"queue","name":"any"}\n'
    )
    done = moved.run("jobs", "apply", str(file))
    assert done.exit_code == 0, done.output
    assert '    mode: "hold" -> "mute"' in done.stdout
    assert "0 other objects to create, 1 to change, 1 unchanged" in done.stdout
    assert moved.call("GET", "/windows/night")["mode"] == "mute"
    assert len(moved.call("GET", "/calendars")["items"]) == 2
    file.write_text('{"kind":"horse","name":"x"}\n')
    assert moved.run("jobs", "apply", str(file)).exit_code == 2
    jobs_only = moved.run("jobs", "export", "--jobs-only").stdout
    assert [orjson.loads(line)["jobId"] for line in jobs_only.splitlines()] == ["a", "b"]
    assert moved.run("jobs", "export", "--tag", "billing").stdout == jobs_only


def test_calendars_are_imported_listed_shown_and_deleted(moved: Moved, tmp_path: Path) -> None:
    """From iCalendar, with remarks on standard error, and from JSON."""
    event = "BEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:20301224\r\nEND:VEVENT\r\n"
    lunch = "BEGIN:VEVENT\r\nUID:2\r\nSUMMARY:Lunch\r\nDTSTART:20301224T120000Z\r\nEND:VEVENT\r\n"
    (tmp_path / "days.ics").write_text(
        f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//x//EN\r\n{event}{lunch}END:VCALENDAR\r\n"
    )
    made = moved.run("calendars", "import", "days", str(tmp_path / "days.ics"))
    assert (made.exit_code, "excludes 1 date(s); no job names it" in made.stdout, "Lunch" in made.stderr) == (
        0,
        True,
        True,
    ), made.output
    (tmp_path / "days.json").write_text('{"weekdays": ["SAT"]}')
    assert moved.run("calendars", "import", "other", str(tmp_path / "days.json")).exit_code == 0
    assert orjson.loads(moved.run("calendars", "show", "days", "--json").stdout)["dates"] == ["2030-12-24"]
    assert moved.run("calendars", "list", "-o", "name").stdout == "days\nother\n"
    moved.call("PUT", "/jobs/a", {"schedule": "@daily", "api": TARGET, "calendar": {"name": "days"}})
    refused = moved.run("calendars", "delete", "days", "other")
    assert (refused.exit_code, refused.stdout) == (1, "other: deleted\n")
    assert "a" in refused.stderr


def test_windows_are_set_listed_shown_and_deleted(moved: Moved) -> None:
    """The options are the fields."""
    options = ["--mode", "hold", "--tag", "x", "--tag", "y", "--schedule", "0 0 2 * * *", "--duration", "60"]
    made = moved.run("windows", "set", "night", *options)
    assert (made.exit_code, made.stdout) == (0, "night: hold, tag x, tag y, 0 0 2 * * * UTC, 60 s\n"), made.output
    assert moved.call("GET", "/windows/night")["tags"] == ["x", "y"]
    assert "night" in moved.run("windows", "list").stdout
    assert "0 0 2 * * *" in moved.run("windows", "show", "night").stdout
    wrong = moved.run("windows", "set", "night", "--mode", "hold", "--tag", "x")
    assert (wrong.exit_code, "schedule" in wrong.output) == (1, True)
    assert moved.run("windows", "delete", "night").stdout == "night: deleted\n"
    assert moved.run("windows", "delete", "night").exit_code == 1
