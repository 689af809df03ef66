"""Normal forms of cron expressions; every text is read or refused with a sentence."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.schedule.cron_syntax import FIELDS, normalise
from cluster.core.schedule.schedule import InvalidSchedule, parse_schedule, schedule_from_key
from tests.support.examples import examples


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("0/15 0/20 * ? * *", "*/15 */20 * * * *"),
        ("0 0-59 9 * * *", "0 0-59 9 * * *"),  # fixed minutes, not a star: they differ when clocks go back
        ("0 0-59 * * * *", "0 * * * * *"),  # the hour's star makes it follow real time anyway
        ("0 0 22-2 * * *", "0 0 0-2,22,23 * * *"),
        ("0 0 0 * * FRI-SUN", "0 0 0 * * 0,5,6"),
        ("0 0 0 * * 5-7", "0 0 0 * * 0,5,6"),
        ("0 0 0 * * 0-6", "0 0 0 * * *"),
        ("0 0 0 * * 7/3", "0 0 0 * * 0-6/3"),
        ("0 0 0 1-31 * MON", "0 0 0 * * *"),  # either fits, and the first always does
        ("0 0 0 * * FRIL", "0 0 0 * * L5"),
        ("0 0 0 L,15 * *", "0 0 0 15,L * *"),
        ("0 0 0 */10,L * *", "0 0 0 */10,L * *"),
        ("05 007 09 * * *", "5 7 9 * * *"),
        ("59/7 * * * * *", "59 * * * * *"),
        ("9 2-23/24 * * *", "0 9 2 * * *"),
        ("*/60 * * * *", "0 */60 * * * *"),
        ("*/60 */30 */24 * * *", "0 */30 */24 * * *"),
        ("0 0 0 * */12 */7", "0 0 0 * 1 0"),
        ("0 0 0 ? * ?", "0 0 0 * * *"),
        ("0 0 0 lw * *", "0 0 0 LW * *"),
        ("0 0 0 L-03 * *", "0 0 0 L-3 * *"),
    ],
)
def test_equal_expressions_have_one_normal_form(text: str, normal: str) -> None:
    """Equal schedules have equal texts. Schedules that differ only at clock changes have different texts."""
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # AWS EventBridge: minute to year.
        ("0 12 * * ? *", ["the last one stands where others write a year", "write '0 12 * * ?'"]),
        ("0/5 8-17 ? * MON-FRI *", ["write '0/5 8-17 ? * MON-FRI'"]),
        ("15 10 ? * FRIL 2026-2030", ["write '15 10 ? * FRIL'", "startAt and endAt"]),
        ("0 9 1 JAN ? *", ["write '0 9 1 JAN ?'"]),
        ("0 9 1 1 * 2027", ["write '0 9 1 1 *'"]),
        ("cron(0 12 * * ? *)", ["without cron(...)", "'0 12 * * ?'"]),
        ("rate(5 minutes)", ["@every 5m"]),
        # Their numbers of weekdays begin with Sunday as 1, so what is proposed has names.
        ("0 9 ? * 2#1 *", ["write '0 9 ? * MON#1'", "Sunday is 1"]),
        ("15 10 ? * 6L 2019-2022", ["write '15 10 ? * FRIL'", "startAt and endAt"]),
        ("0 8 ? * 2-6 *", ["write '0 8 ? * MON-FRI'"]),
        ("0 8 ? * 1,7 2030", ["write '0 8 ? * SUN,SAT'"]),
        ("0 8 ? * L *", ["write '0 8 ? * SAT'"]),
        ("0 8 ? * 2/2 *", ["write '0 8 ? * MON-SAT/2'"]),
        ("0 0 1 1 ? */2", ["write '0 0 1 1 ?'", "startAt and endAt"]),
        ("cron(15 10 ? * 6L 2019-2022)", ["'15 10 ? * FRIL'", "startAt and endAt"]),
        ("cron(0 8 ? * 2-6 *)", ["'0 8 ? * MON-FRI'"]),
        ("0 0/5 * 1/1 * ? *", ["write '0 0/5 * 1/1 * ?'"]),
        ("0 15 10 ? * 6#3 *", ["write '0 15 10 ? * FRI#3'", "Sunday is 1"]),
        ("0 15 10 ? * 6L 2002-2005", ["write '0 15 10 ? * FRIL'", "startAt and endAt"]),
        ("0 0 0 ? * 2-6 2027", ["write '0 0 0 ? * MON-FRI'"]),
        ("0 0 0 ? * L", ["SAT"]),
        ("rate(1 day)", ["write '@every 1d'"]),
        ("rate(2 hours)", ["write '@every 2h'"]),
        ("at(2030-11-20T13:00:00)", ["write '@at 2030-11-20T13:00:00'"]),
        ("2030-11-20T13:00:00Z", ["write '@at 2030-11-20T13:00:00Z'"]),
        ("daily", ["write '@daily'"]),
        ("every 5 minutes", ["write '@every 5m'"]),
        ("5m", ["write '@every 5m'"]),
        # croniter: minute to second.
        ("0 12 * * * 30", ["where others write the second", "write '30 0 12 * * *'"]),
        ("* * * * * */15", ["write '*/15 * * * * *'"]),
        ("0 9 * * 1-5 0,30", ["write '0,30 0 9 * * 1-5'"]),
        ("*/5 * * * * 10-50/20", ["write '10-50/20 */5 * * * *'"]),
        # Lines of crontabs.
        ("0 9 * * * root /bin/x", ["command", "horae import crontab", "'0 9 * * *'"]),
        ("*/10 * * * * /usr/bin/foo", ["command", "'*/10 * * * *'"]),
        ("0 5 * * 1 tar -zcf /var/backups/home.tgz /home/", ["command", "'0 5 * * 1'"]),
        ("@daily root /bin/x", ["command", "'@daily'"]),
        ("0 9 * * * # nightly", ["command", "'0 9 * * *'"]),
        ("0 0 9 * * MONDAY", ["three letters", "write '0 0 9 * * MON'"]),
        ("0 9 1 January Monday-Friday", ["write '0 9 1 JAN MON-FRI'"]),
        # Two lines at once, as in Jenkins.
        ("0 8 * * 1-5\n0 12 * * SAT", ["one schedule", "'0 8 * * 1-5'"]),
        ("H 8 * * * H 20 * * *", ["define one job for 'H 8 * * *'"]),
        # Calendar expressions of systemd, and times of day.
        ("*-*-* 04:00:00", ["systemd", "write '0 4 * * *'"]),
        ("Mon..Fri 09:30", ["write '30 9 * * MON-FRI'"]),
        ("Mon,Thu *-*-* 00:15:00", ["write '15 0 * * MON,THU'"]),
        ("Mon *-05~03", ["has 2 field(s)"]),
        ("*-12-24 18:00", ["such as '0 4 * * MON'"]),
        ("*:0/15", ["write '0/15 * * * *'"]),
        ("9:00", ["write '0 9 * * *'"]),
        ("quarterly", ["write '0 0 1 */3 *'"]),
        # `?` outside the two day fields, or with something.
        ("? * * * * *", ["second: '?'", "Write *"]),
        ("0 ? * * * MON", ["minute: '?'"]),
        ("* ? * * *", ["hour: '?'"]),
        ("0 0 0 ? ? MON", ["month: '?'"]),
        ("0 0 0 ?/2 * *", ["day of month: '?/2'", "? stands alone"]),
        ("0 0 0 1,? * *", ["day of month: '1,?'"]),
        # Names in another field.
        ("0 12 * MON *", ["month: 'MON' is a day of the week", "the 5 fields are minute hour"]),
        ("0 MON * * * *", ["minute: 'MON' is a day of the week", "the 6 fields are second minute"]),
        ("0 0 1 * JAN", ["day of week: 'JAN' is a month"]),
        # Signs of days in another field.
        ("0 12 * * 2#1 *", ["month: '2#1' is a day of the week", "the 6 fields are second minute"]),
        ("0 12 * * 6L *", ["month: '6L' is a day of the week"]),
        ("0 12 L * * *", ["hour: 'L' is a day of the month"]),
        ("0 12 15W * * *", ["hour: '15W' is a day of the month"]),
        ("0 12 L-3 * * MON", ["hour: 'L-3' is a day of the month"]),
        ("0 9 * * LW", ["day of week: 'LW' is a day of the month", "the 5 fields are minute hour"]),
        ("0 9 6L * *", ["day of month: '6L' is a day of the week"]),
        # Steps that never come.
        ("*/90 * * * *", ["minute: the step in '*/90' must be 1 to 60", "@every 90m"]),
        ("0 */25 * * *", ["must be 1 to 24", "@every"]),
        ("0 9 */100,1-7 * MON", ["MON#1 in day of week"]),
        ("0 0 0 * */13 *", ["month: the step in '*/13' must be 1 to 12"]),
        # Days by a rule.
        ("0 0 0 L-31 * *", ["L-1 to L-30"]),
        ("0 0 0 L-3W * *", ["write L, LW, or L-1 to L-30"]),
        ("0 0 0 LW,15 * *", ["must be the only value"]),
        ("0 0 0 L-3,15 * *", ["must be the only value"]),
        ("0 0 0 31W 2 *", ["never fires"]),
        ("0 0 0 L-30 4 *", ["never fires"]),
        # A time of its own for each job.
        ("H * * * *", ["spreadSeconds"]),
        ("H/15 H(2-5) * * *", ["spreadSeconds"]),
        ("0~59 3 * * *", ["spreadSeconds"]),
        # The time zone in front.
        ("CRON_TZ=Europe/Berlin 0 9 * * *", ["remove 'CRON_TZ=Europe/Berlin'", "set timezone to 'Europe/Berlin'"]),
        ("TZ=UTC 0 0 9 * * MON", ["remove 'TZ=UTC'"]),
        ("tz=Asia/Tokyo @daily", ["set timezone to 'Asia/Tokyo'"]),
        ('CRON_TZ="Asia/Tokyo" 0 9 * * *', ["set timezone to 'Asia/Tokyo'"]),
        ("CRON_TZ = UTC 0 9 * * *", ["remove 'CRON_TZ = UTC'", "set timezone to 'UTC'"]),
        ("TZ=:Asia/Tokyo 0 9 * * *", ["remove 'TZ=:Asia/Tokyo'", "set timezone to 'Asia/Tokyo'"]),
        ("0 9 * * * Europe/Berlin", ["remove 'Europe/Berlin'", "set timezone to 'Europe/Berlin'"]),
        ("0 0 9 * * MON Asia/Tokyo", ["set timezone to 'Asia/Tokyo'"]),
        ("0 9 * * * europe/berlin", ["remove 'europe/berlin'", "set timezone to 'Europe/Berlin'"]),
        ("0 9 * * * UTC+2", ["remove 'UTC+2'", "IANA name of a place"]),
        ("0 0 9 * * MON +02:00", ["remove '+02:00'"]),
        ("0 9 * * 1-5 PST", ["remove 'PST'"]),
        ("@weekly UTC", ["remove 'UTC'", "set timezone to 'UTC'"]),
        ("@daily America/New_York", ["set timezone to 'America/New_York'"]),
        ("@hourly root", ["no user", "write '@hourly'"]),
        # Blanks inside a field: what stands behind them is no command, and no other field.
        ("0 9 * * MON - FRI", ["no blanks", "write '0 9 * * MON-FRI'"]),
        ("0, 30 * * * *", ["write '0,30 * * * *'"]),
        ("0 9 - 17 * * *", ["write '0 9-17 * * *'"]),
        ("0 0 9 1, 15 * *", ["write '0 0 9 1,15 * *'"]),
        ("*/ 5 * * * *", ["write '*/5 * * * *'"]),
        ("30 6 * * 1 - 5 /bin/sync", ["write '30 6 * * 1-5'"]),
        ("0 9 * * * curl - o /dev/null", ["no command", "write '0 9 * * *'"]),
        # Short names of more than three letters, and intervals of ISO 8601.
        ("0 9 * * TUES,THUR", ["write '0 9 * * TUE,THU'"]),
        ("0 9 1 SEPT *", ["write '0 9 1 SEP *'"]),
        ("PT5M", ["write '@every 5m'"]),
        ("R/PT1H30M", ["write '@every 1h30m'"]),
        ("R5/2026-12-01T00:00:00Z/P1D", ["write '@every 1d'"]),
    ],
)
def test_a_line_of_another_scheduler_gets_the_sentence_that_helps(text: str, words: list[str]) -> None:
    """It is refused, not read as something else, and the message says what to write."""
    with pytest.raises(InvalidSchedule) as refused:
        parse_schedule(text)
    for part in words:
        assert part in refused.value.message
    if found := re.search(r"write '([^']*)'", refused.value.message):
        assert parse_schedule(found[1]).key, "what is proposed is accepted"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("H 12 ? * MON-FRI *", ["write 'H 12 ? * MON-FRI'", "There: minute: 'H'", "spreadSeconds"]),
        ("cron(0 25 * * ? *)", ["'0 25 * * ?'"]),
        ("0 30 25 * * ? 2027", ["write '0 30 25 * * ?'", "There: hour: 25 must be 0 to 23"]),
        ("0 9 * */13 Monday", ["write '0 9 * */13 MON'", "There: month: the step"]),
    ],
)
def test_a_proposal_that_would_be_refused_says_what_else_is_wrong(text: str, words: list[str]) -> None:
    """A line may have two faults."""
    with pytest.raises(InvalidSchedule) as refused:
        parse_schedule(text)
    for part in words:
        assert part in refused.value.message


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0 0 0 31W * *", ["2026-01-30", "2026-03-31", "2026-05-29", "2026-07-31", "2026-08-31"]),
        ("0 0 0 29W 2 *", ["2028-02-29", "2032-02-27", "2036-02-29"]),
        ("0 0 0 LW * *", ["2026-01-30", "2026-02-27", "2026-03-31", "2026-04-30", "2026-05-29"]),
        ("0 0 0 L-3 * *", ["2026-01-28", "2026-02-25", "2026-03-28", "2026-04-27"]),
        ("0 0 0 L-30 * *", ["2026-01-01", "2026-03-01", "2026-05-01", "2026-07-01"]),
        ("0 0 0 1W 2,8 *", ["2026-02-02", "2026-08-03"]),
    ],
)
def test_days_by_a_rule_are_those_of_quartz(text: str, days: list[str]) -> None:
    """A month without such a day has none; a weekday never leaves its month."""
    start = int(datetime.fromisoformat("2026-01-01T00:00:00Z").timestamp() * 1000)
    found = parse_schedule(text).between(start, 2 * start, len(days))
    assert [datetime.fromtimestamp(t / 1000, UTC).date().isoformat() for t in found] == days


@settings(max_examples=examples(400))
@given(
    st.one_of(
        st.text(alphabet="0123456789*/-,#LW? @JANMOEVRYT", max_size=40),
        st.lists(st.text(alphabet="0123456789*/-,#LW?", min_size=1, max_size=6), min_size=5, max_size=7).map(" ".join),
        st.text(max_size=40),
    ),
    st.sampled_from(["UTC", "Europe/Berlin"]),
)
def test_whatever_is_written_is_read_or_refused_in_a_sentence(text: str, timezone: str) -> None:
    """No text raises anything but `InvalidSchedule`, and what is accepted has a next run, a key and six fields."""
    try:
        schedule = parse_schedule(text, timezone)
    except InvalidSchedule as refused:
        assert refused.message  # noqa: PT017 - what raises is not known beforehand
        return
    assert schedule_from_key(schedule.key).key == schedule.key
    if schedule.kind == "cron":
        assert schedule.next_after(0) is not None
        assert len(schedule.key.split("|")[1].split(" ")) == len(FIELDS)
