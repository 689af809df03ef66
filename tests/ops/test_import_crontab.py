"""`horae import crontab`: every form that crontab(5) documents, and what has no equal."""

from __future__ import annotations

from typing import Any

import pytest

from ops.migrate.command_names import command_name
from ops.migrate.crontab import translate_crontab
from tests.support.moving import DATA, next_runs, remarks, translated


def crontab(text: str, **options: Any) -> Any:
    given = {"timezone": "UTC", "form": "auto", "path": "-", **options}
    return translated(translate_crontab, text, **given)


def only(text: str, **options: Any) -> dict[str, Any]:
    translation = crontab(text, **options)
    assert translation.left_out == 0, remarks(translation)
    (job,) = translation.jobs
    found: dict[str, Any] = job
    return found


@pytest.mark.parametrize(
    ("line", "after", "expected"),
    [
        ("*/15 * * * * x", "2026-11-28T10:31:00Z", ["2026-11-28T10:45:00Z", "2026-11-28T11:00:00Z"]),
        ("0 5 * * 1 x", "2026-11-28T00:00:00Z", ["2026-11-30T05:00:00Z", "2026-12-07T05:00:00Z"]),
        # Both day fields are restricted: either is enough. The 1st is a Tuesday, the 4th a Friday.
        ("30 4 1,15 * 5 x", "2026-11-28T00:00:00Z", ["2026-12-01T04:30:00Z", "2026-12-04T04:30:00Z"]),
        ("5 0 * aug mon-fri x", "2026-11-28T00:00:00Z", ["2027-08-02T00:05:00Z", "2027-08-03T00:05:00Z"]),
        ("15 10 * * 7 x", "2026-11-28T00:00:00Z", ["2026-11-29T10:15:00Z", "2026-12-06T10:15:00Z"]),
        ("15 10 * * 5-7 x", "2026-11-28T11:00:00Z", ["2026-11-29T10:15:00Z", "2026-12-04T10:15:00Z"]),
        # A day field that begins with * makes cron want both: the first Monday of the month.
        ("0 0 */100,1-7 * MON x", "2026-11-28T00:00:00Z", ["2026-12-07T00:00:00Z", "2027-01-04T00:00:00Z"]),
        ("0 0 1-7 * */7 x", "2026-11-28T00:00:00Z", ["2026-12-06T00:00:00Z", "2027-01-03T00:00:00Z"]),
        ("0 0 1-31 * */2 x", "2026-11-28T00:00:00Z", ["2026-11-29T00:00:00Z", "2026-12-01T00:00:00Z"]),
        ("0 0 */10 * * x", "2026-11-28T00:00:00Z", ["2026-12-01T00:00:00Z", "2026-12-11T00:00:00Z"]),
        ("23 0-20/2 * * * x", "2026-11-28T19:00:00Z", ["2026-11-28T20:23:00Z", "2026-11-29T00:23:00Z"]),
        ("0 9-17/24 * * * x", "2026-11-28T00:00:00Z", ["2026-11-28T09:00:00Z", "2026-11-29T09:00:00Z"]),
        ("0,30 */12,1 * * * x", "2026-11-28T00:30:00Z", ["2026-11-28T01:00:00Z", "2026-11-28T01:30:00Z"]),
        ("0 0 1 JAN * x", "2026-11-28T00:00:00Z", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("@hourly x", "2026-11-28T10:00:00Z", ["2026-11-28T11:00:00Z", "2026-11-28T12:00:00Z"]),
        ("@daily x", "2026-11-28T10:00:00Z", ["2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"]),
        ("@midnight x", "2026-11-28T10:00:00Z", ["2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"]),
        ("@weekly x", "2026-11-28T10:00:00Z", ["2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"]),
        ("@monthly x", "2026-11-28T10:00:00Z", ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]),
        ("@yearly x", "2026-11-28T10:00:00Z", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("@every_minute x", "2026-11-28T10:00:30Z", ["2026-11-28T10:01:00Z", "2026-11-28T10:02:00Z"]),
    ],
)
def test_a_line_is_due_when_cron_runs_it(line: str, after: str, expected: list[str]) -> None:
    """By crontab(5): five fields, names, ranges, steps, both day fields, and the aliases."""
    assert next_runs(only(line), after, 2) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("@reboot x", "@reboot"),
        ("@fortnightly x", "is unknown"),
        ("0 0 */2 * MON x", "both day fields"),
        ("0 0 1-7,* * MON x", "manual"),
        ("5/10 * * * * x", "'5' or '5-59/10'"),
        ("0~30 4 * * * x", "random"),
        ("0 22-2 * * * x", "ends before it begins"),
        ("60 * * * * x", "cron does not know '60'"),
        ("0 0 ? * * x", "cron does not know '?'"),
        ("0 0 L * * x", "cron does not know 'L'"),
        ("*/0 * * * * x", "1 or more"),
        ("0 0 31 2 * x", "never fires"),
        ("* * * *", "neither a setting"),
        ("0 0 * * * %only input", "has no command"),
    ],
)
def test_a_line_without_an_equal_is_left_out_with_the_reason(line: str, words: str) -> None:
    """No job is guessed; the lines around it are moved."""
    translation = crontab(f"@daily /before\n{line}\n@daily /after\n")
    assert [job["jobId"] for job in translation.jobs] == ["before", "after"]
    (found,) = remarks(translation, "NOT MOVED")
    assert found.startswith("line 2: ")
    assert words in found


def test_a_whole_crontab_is_moved_with_a_remark_for_each_thing_without_an_equal() -> None:
    """The user's form; values of variables are not repeated, because they may be secrets."""
    translation = crontab((DATA / "user.crontab").read_text(), timezone=None)
    jobs = {job["jobId"]: job for job in translation.jobs}
    assert list(jobs) == [
        *("poll", "tar-home-tgz-home", "monthly-or-friday", "august", "clean", "rotate", "mail", "sunday"),
        *("first-monday", "every-four-hours", "echo", "berlin", "berlin-2"),
    ]
    assert jobs["mail"]["body"] == "Joe,\n\nWhere are you at 100%?\n"
    assert all(job["catchUp"] == "none" for job in jobs.values())
    assert "spreadSeconds" not in jobs["berlin"]
    assert jobs["berlin-2"]["spreadSeconds"] == 600
    # 2:30 does not exist on 28 March 2027; like Debian's cron, the line runs when the gap ends.
    assert next_runs(jobs["berlin"], "2027-03-27T00:00:00Z", 3) == [
        *("2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"),
    ]
    found = "\n".join(remarks(translation))
    for words in ("line 2: MAILTO", "line 3: PATH", "line 4: SECRET_TOKEN", "line 12: NOT MOVED: @reboot"):
        assert words in found
    for words in (
        "line 13: what follows %",
        "line 16: NOT MOVED",
        "line 19: NOT MOVED",
        "line 24: CRON_TZ: 'Mars/Phobos'",
    ):
        assert words in found
    assert "line 25: NOT MOVED: its CRON_TZ" in found
    assert "read as UTC; give another one with --timezone" in found
    assert "hunter2" not in found
    assert translation.left_out == 4


def test_the_system_form_has_a_column_for_the_user() -> None:
    """Recognised by its header, its path or a user such as root, and said; --form decides it."""
    translation = crontab((DATA / "system.crontab").read_text())
    assert [job["jobId"] for job in translation.jobs] == [
        *("run-parts-cron-hourly", "run-parts-cron-daily", "vacuumdb", "php-artisan-schedule-run"),
    ]
    assert next_runs(translation.jobs[3], count=1) == ["2026-11-29T03:00:00Z"]
    found = "\n".join(remarks(translation))
    assert "was read in the form of /etc/crontab" in found
    assert "line 4, line 5: ran as the user 'root'" in found
    assert "line 6: ran as the user 'postgres'" in found
    assert "line 7: the - in front" in found
    asked = crontab("0 1 * * * daemon backup --all", form="system")
    assert asked.jobs[0]["jobId"] == "backup"
    assert crontab("0 1 * * * daemon backup", path="/etc/cron.d/x").jobs[0]["jobId"] == "backup"
    guessed = crontab("0 1 * * * daemon backup")
    assert guessed.jobs[0]["jobId"] == "daemon-backup"
    assert remarks(guessed, "--form system")
    mixed = crontab("0 1 * * * root backup\n0 2 * * * /srv/x")
    assert mixed.jobs[0]["jobId"] == "root-backup"
    assert remarks(mixed, "line 1: the command begins with 'root'")
    assert remarks(crontab("0 1 * * * root backup", form="user"), "form") == []


def test_settings_hold_for_the_lines_below_them() -> None:
    """Quotes around names and values, and blanks around the sign."""
    translation = crontab(
        "0 1 * * * a\n'CRON_TZ' = \"Asia/Tokyo\"\n0 1 * * * b\nCRON_TZ=UTC\n0 1 * * * c\nTZ=Asia/Tokyo\n0 1 * * * d"
    )
    assert [job["timezone"] for job in translation.jobs] == ["UTC", "Asia/Tokyo", "UTC", "UTC"]
    assert remarks(translation, "line 6: TZ")
    assert remarks(crontab("RANDOM_DELAY=x\n0 1 * * * a"), "line 1: RANDOM_DELAY")


def test_the_command_goes_into_the_url_and_nowhere_else() -> None:
    """Percent-encoded, without its input; a password in it reaches neither the name nor another field."""
    text = "0 1 * * * mysqldump -u root --password hunter2 -phunter2 shop > /tmp/x 2>&1%in 50\\%"
    translation = translated(
        translate_crontab, text, "https://x.example/run?c={command}&n={name}", timezone="UTC", form="auto", path="-"
    )
    (job,) = translation.jobs
    assert job["api"] == (
        "https://x.example/run?c=mysqldump%20-u%20root%20--password%20hunter2%20-phunter2%20shop%20%3E%20%2Ftmp%2Fx"
        "%202%3E%261&n=mysqldump"
    )
    assert only(text)["jobId"] == "mysqldump"
    assert "hunter2" not in str(only(text))
    long = crontab(f"0 1 * * * {'x' * 3000}")
    assert len(long.jobs[0]["jobId"]) == 64


def test_braces_in_standard_input_are_sent_as_they_are() -> None:
    """Horae fills in nothing that cron would have left alone."""
    job = only("0 0 * * * x%{{scheduledAt}} {{nobody}}")
    assert (job["body"], job["templates"]) == ("{{scheduledAt}} {{nobody}}", False)


def test_windows_line_ends_odd_bytes_and_an_empty_file_are_no_problem() -> None:
    """Each line stands for itself."""
    assert only("0 1 * * * /srv/a\r\n")["jobId"] == "a"
    assert remarks(crontab("0 1 * * * a\ufffd"), "line 1: is not UTF-8")
    empty = crontab("# nothing\n\n")
    assert (empty.jobs, empty.remarks) == ([], [])


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/backup.sh --full", "backup"),
        ("cd /srv/app && ./bin/console app:send", "console-app-send"),
        ("[ -x /a ] && FOO=bar nice -n 10 python3 -u /srv/job.py", "python3-job"),
        ("curl -fsS https://example.org/secret-token", "curl"),
        ("sudo -u www-data php artisan", "php-artisan"),
        ("> /dev/null", ""),
    ],
)
def test_a_command_has_a_readable_name(command: str, name: str) -> None:
    """The program and what it works on, without options and addresses."""
    assert command_name(command) == name
