"""Cron lines of other schedulers: the sentence that says what to write here instead. Nothing is read differently by it."""

from __future__ import annotations

import re

from cluster.core.schedule.cron_syntax import ALIASES, DAYS, FIELDS, MONTHS
from cluster.core.zones import zone_names

_ZONE = re.compile(r"(?:CRON_)?TZ=(\S*)\Z", re.IGNORECASE)
_WRAPPED = re.compile(r"(cron|rate|at)\((.*)\)\s*\Z", re.IGNORECASE | re.DOTALL)
_INTERVAL = re.compile(r"(?:every\s+)?(\d{1,6})\s*(s|m|h|d|(?:sec|min|second|minute|hour|day)s?)\Z", re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*\Z", re.ASCII | re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20|21)\d\d(?:[-/,]\d+)*\Z", re.ASCII)
_SECOND = re.compile(r"(?:\d{1,2}|\*/\d{1,2})(?:[-,/]\d{1,2})*\Z", re.ASCII)
_TEN = re.compile(r"[1-9]\d", re.ASCII)
_FIXED = re.compile(r"[\d,-]+\Z", re.ASCII)
_NUMBERS_OF_WEEKDAYS = re.compile(r"[0-7](?:[-,][0-7])*\Z", re.ASCII)
_NAME = re.compile(r"(?<![A-Z])([A-Z]{3})(?![A-Z])", re.ASCII)
_WEEKDAY_NUMBER = re.compile(r"(?<![/#\d])([1-7])(?=L?\Z|[-#/])", re.ASCII)
_FROM_A_DAY = re.compile(r"([A-Z]{3})/(\d+)\Z", re.ASCII)
_FIELD = re.compile(r"[0-9A-Z*?~][0-9A-Z*?~/,#()-]*\Z", re.ASCII)
_LETTERS = re.compile(r"[A-Z]+", re.ASCII)
_ON_A_WEEKDAY = re.compile(r"[0-7]#\d|[0-7]L\Z", re.ASCII)
_ON_A_MONTH_DAY = re.compile(r"(?:L|LW|L-\d+|\d+W)\Z", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}|\*):(\d{2}|\*|\d+/\d+)(?::\d{2})?\Z", re.ASCII)
_CALENDAR_DATE = re.compile(r"(?:\*|\d{4})-(?:\*|\d{1,2})-(?:\*|\d{1,2})\Z", re.ASCII)
_FULL_NAMES = re.compile(
    r"\b(?:(?:SUN|MON|TUES|WEDNES|THURS|FRI|SATUR)DAY|TUES|WEDS|THURS?|SEPT)\b"
    r"|\b(JANUARY|FEBRUARY|MARCH|APRIL|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER)\b"
)
_BLANKS_INSIDE = re.compile(r"\s+([,-])\s*(?=[0-9A-Za-z*])|\s+(/)\s*(?=[0-9])|([,/-])\s+(?=[0-9A-Za-z*])")
_NO_ZONE_NAME = re.compile(
    r"(?:(?:UTC|GMT|Z)?[+-]\d{1,2}(?::?\d\d)?|Z|[PMCEA][SD]T|AK[SD]T|(?:C|E|W)EST|AE[SD]T|NZ[SD]T|[BIJK]ST|MSK)\Z",
    re.ASCII,
)
"""What others write for a time zone: an offset or an abbreviation."""
_ISO_INTERVAL = re.compile(
    r"(?:R\d*/(?:[^/]*/)?)?P(?:(\d{1,6})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})S)?)?\Z", re.ASCII
)
_OF_SYSTEMD = {"minutely": "* * * * *", "quarterly": "0 0 1 */3 *", "semiannually": "0 0 1 */6 *"}
_SIGNS = frozenset({"L", "W", "LW", "WL", "H", *DAYS, *MONTHS})
_ORDER = "second minute hour day-of-month month day-of-week"
_NAMES_OF_NUMBERS = {str(number + 1): name for name, number in DAYS.items()}
"""Weekdays of Quartz and AWS."""


def hint(text: str) -> str | None:
    """What to write instead of a text of another scheduler. None if there is nothing to say before it is read."""
    words = text.split()
    upper = [word.upper() for word in words]
    return (
        _with_blanks_inside(text.strip())
        or with_a_zone(words)
        or _wrapped(text.strip())
        or _without_at_sign(text.strip())
        or _of_systemd(words, upper)
        or _several(words, upper)
        or _full_names(words, upper)
        or _with_a_command(words, upper)
        or _year_at_the_end(words, upper)
        or _second_at_the_end(words, upper)
        or _name_in_another_field(upper)
        or _hashed(upper)
        or _last_weekday(upper)
    )


def _with_blanks_inside(text: str) -> str | None:
    """`MON - FRI`, `1, 15`: a field that has blanks in it."""
    words = _BLANKS_INSIDE.sub(lambda m: m[1] or m[2] or m[3], text).split()
    before, upper = text.split(), [word.upper() for word in words]
    count = len(words) if len(words) in (5, 6) and all(map(_is_field, upper)) else 5
    if words[:count] == before[:count] or len(words) < count or not all(map(_is_field, upper[:count])):
        return None
    return f"a field has no blanks inside: write '{' '.join(words[:count])}'"


def with_a_zone(words: list[str]) -> str | None:
    """`CRON_TZ=Europe/Berlin` in front, also with blanks around the sign, or a zone at the end."""
    name, shown = "", ""
    if zone := _ZONE.match(words[0]):
        name, shown = zone[1], words[0]
    elif words[0].upper() in ("TZ", "CRON_TZ") and len(words) > 2 and words[1] == "=":
        name, shown = words[2], " ".join(words[:3])
    elif len(words) in (6, 7) or (len(words) == 2 and words[0].startswith("@")):
        name = shown = words[-1]
        known = next((zone for zone in zone_names() if zone.lower() == name.lower()), None)
        if known is None and not _NO_ZONE_NAME.match(name.upper()):
            return None
        name = known or name
    name = name.strip("'\"").removeprefix(":")
    if not name:
        return None
    instead = f"'{name}'" if name in zone_names() else "the IANA name of a place, such as Europe/Berlin"
    return f"the time zone goes into the field timezone: remove '{shown}' and set timezone to {instead}"


def _of_systemd(words: list[str], upper: list[str]) -> str | None:
    """Calendar expressions of systemd, such as `Mon..Fri *-*-* 09:00`; and a time of day."""
    if len(words) == 1 and words[0].lower() in _OF_SYSTEMD:
        return f"'{words[0]}' is not known here: write '{_OF_SYSTEMD[words[0].lower()]}'"
    clocks = [clock for word in words if (clock := _CLOCK.match(word))]
    if len(words) > 3 or not (clocks or any(_CALENDAR_DATE.match(word) for word in words)):
        return None
    others = [word for word in upper if not _CLOCK.match(word) and word != "*-*-*"]
    hour, minute = (clocks[0][1], clocks[0][2]) if clocks else ("0", "0")
    weekday = ",".join(others).replace("..", "-") or "*"
    if len(clocks) > 1 or len(others) > 1 or not re.fullmatch(r"\*|[A-Z]{3}(?:[-,][A-Z]{3})*", weekday):
        return "times are not read here as systemd reads them: write a cron expression, such as '0 4 * * MON' for Mon 04:00"
    minute, hour = (part if "*" in part else re.sub(r"^0(?=\d)", "", part) for part in (minute, hour))
    return f"times are not read here as systemd reads them: write '{minute} {hour} * * {weekday}'"


def _several(words: list[str], upper: list[str]) -> str | None:
    """Several lines, as Jenkins takes them."""
    for count in (5, 6):
        if len(words) > count + 1 and len(words) % count == 0 and all(map(_is_field, upper)):
            first = " ".join(words[:count])
            return f"a job has one schedule: define one job for '{first}' and one for each of the others"
    return None


def _full_names(words: list[str], upper: list[str]) -> str | None:
    """`MONDAY` and `JANUARY`, which some schedulers take."""
    if len(words) not in (5, 6) or not any(map(_FULL_NAMES.search, upper)):
        return None
    named = " ".join(_FULL_NAMES.sub(lambda m: m[0][:3], word) for word in upper)
    return f"names of days and months have three letters: write '{named}'"


def _wrapped(text: str) -> str | None:
    """`cron(...)`, `rate(...)` and `at(...)` of AWS EventBridge."""
    wrapped = _WRAPPED.match(text)
    if wrapped is None:
        return None
    kind, inner = wrapped[1].lower(), wrapped[2].strip()
    if kind == "cron":
        words = inner.split()
        return f"write the expression alone, without {wrapped[1]}(...): {_five_fields(words)}"
    if kind == "at":
        return f"write '@at {inner}'"
    return f"'{text}' is not known here; {_write_interval(inner) or 'write an interval such as @every 5m'}"


def _without_at_sign(text: str) -> str | None:
    """An alias, an interval or a time without the word in front."""
    if f"@{text.lower()}" in ALIASES:
        return f"write '@{text.lower()}'"
    if _TIME.match(text):
        return f"write '@at {text}' for a single run at that time"
    return _write_interval(text)


def _write_interval(text: str) -> str | None:
    """An interval in words, or as ISO 8601 has it (`PT5M`, `R/PT1H`)."""
    interval = _INTERVAL.match(text.strip())
    if interval is not None:
        return f"write '@every {int(interval[1])}{interval[2][0].lower()}'"
    iso = _ISO_INTERVAL.match(text.strip().upper())
    parts = "" if iso is None else "".join(f"{int(n)}{unit}" for n, unit in zip(iso.groups(), "dhms", strict=True) if n)
    return f"write '@every {parts}'" if parts else None


def _with_a_command(words: list[str], upper: list[str]) -> str | None:
    """A line of a crontab: fields, then a user, a command or a remark."""
    others = [word for word in upper[5:] if not _is_field(word) and not word.startswith(tuple("0123456789*?"))]
    if not others or not all(map(_is_field, upper[:5])):
        return None
    return without_command(" ".join(words[:5]))


def without_command(schedule: str) -> str:
    """The sentence about a line that goes on behind its schedule."""
    return f"a schedule has no user, no command and no remark: write '{schedule}'; `horae import crontab` reads whole crontabs"


def _is_field(word: str) -> bool:
    """Whether the word may have been meant as a field of a cron expression, also a wrong one."""
    return bool(_FIELD.match(word)) and all(
        name in _SIGNS or (name[:3] in _SIGNS and name.endswith(("DAY", "L"))) for name in _LETTERS.findall(word)
    )


def _year_at_the_end(words: list[str], upper: list[str]) -> str | None:
    """Six fields that are minute to year, as in AWS EventBridge; or seven, as in Quartz."""
    if len(upper) == 7:
        shown = _with_named_weekdays(words[:6])
        return f"has seven fields; there is no year field: write '{shown}'{_years(upper[6])}{_numbered(words[:6])}"
    if len(upper) != 6:
        return None
    last = upper[5]
    weekday_is_fifth = upper[4] == "?" or _names_in(upper[4], DAYS)
    day_is_third = upper[2] == "?" or _names_in(upper[3], MONTHS)
    if not _YEAR.match(last) and not (last.startswith(("*", "?")) and (weekday_is_fifth or day_is_third)):
        return None
    return (
        f"six fields are {_ORDER}, and in '{' '.join(words)}' the last one stands where others write a year: "
        f"write {_five_fields(words)}"
    )


def _second_at_the_end(words: list[str], upper: list[str]) -> str | None:
    """Six fields that are minute to second, as croniter takes them: nobody takes the last number for a weekday."""
    if len(upper) != 6 or not _SECOND.match(upper[5]) or not _TEN.search(upper[5]) or _TEN.search(upper[4]):
        return None
    return (
        f"six fields are {_ORDER}, and in '{' '.join(words)}' the last one stands where others write the second: "
        f"write '{words[5]} {' '.join(words[:5])}'"
    )


def other_reading(text: str) -> str | None:
    """What six fields that are read from second to weekday would be elsewhere, if that is the likelier meaning: nobody
    wants certain hours' minutes of the first months alone, and few want all seconds or hours of Sundays.
    """
    words = text.split()
    if len(words) != 6 or words[2] != "*":
        return None
    second, minute, _, *days, weekday = words
    numbered = _NUMBERS_OF_WEEKDAYS.match(days[1]) and _FIXED.match(second) and _FIXED.match(minute)
    if weekday == "*" and numbered:
        return f"six fields begin with the second; if the last one is meant as a year, write '{' '.join(words[:5])}'"
    if weekday == "0" and days == ["*", "*"]:
        return (
            f"six fields begin with the second; if the last one is meant as the second, write '0 {' '.join(words[:5])}'"
        )
    return None


def _five_fields(words: list[str]) -> str:
    """The first five fields of AWS as they are written here, and a word on the sixth."""
    years = _years(words[5].upper()) if len(words) > 5 else ""
    return f"'{_with_named_weekdays(words[:5])}'{years}{_numbered(words[:5])}"


def _years(last: str) -> str:
    return "" if last in ("*", "?") else ", and startAt and endAt for the years"


def has_numbered_weekdays(words: list[str]) -> bool:
    """Whether the weekday of a line with `?` has numbers, which begin with 1 in Quartz and AWS."""
    parts = words[-1].upper().split(",")
    return "?" in words[:-1] and any(_WEEKDAY_NUMBER.search(part.partition("/")[0]) for part in parts)


def _numbered(words: list[str]) -> str:
    """Why the proposal has names."""
    return " (there Sunday is 1, here it is 0)" if has_numbered_weekdays(words) else ""


def _with_named_weekdays(words: list[str]) -> str:
    """The line with names for the numbers of its last field, if that is a weekday beside `?`."""
    *others, weekday = words
    if "?" not in others or "*" in weekday:
        return " ".join(words)
    parts = []
    for part in weekday.upper().split(","):
        named = "SAT" if part == "L" else _name_numbers(part)
        if from_a_day := _FROM_A_DAY.match(named):  # to the end of their week, which is a Saturday
            named = f"{from_a_day[1]}-SAT/{from_a_day[2]}"
        parts.append(named)
    named_weekday = ",".join(parts)
    return " ".join((*others, weekday if named_weekday == weekday.upper() else named_weekday))


def _name_numbers(part: str) -> str:
    base, slash, step = part.partition("/")
    return _WEEKDAY_NUMBER.sub(lambda m: _NAMES_OF_NUMBERS[m[1]], base) + slash + step


def _name_in_another_field(upper: list[str]) -> str | None:
    fields = FIELDS[-len(upper) :] if len(upper) in (5, 6) else ()
    for field, word in zip(fields, upper, strict=False):
        for names, kind, place in ((DAYS, "a day of the week", "day of week"), (MONTHS, "a month", "month")):
            if field.name != place and (name := _names_in(word, names)):
                return _elsewhere(field.name, name, kind, len(upper))
        for sign, kind, place in (
            (_ON_A_WEEKDAY, "a day of the week", "day of week"),
            (_ON_A_MONTH_DAY, "a day of the month", "day of month"),
        ):
            alone = field.name == "day of week" and word == "L"  # that has a sentence of its own
            if field.name != place and not alone and any(map(sign.match, word.split(","))):
                return _elsewhere(field.name, word, kind, len(upper))
    return None


def _elsewhere(field: str, word: str, kind: str, count: int) -> str:
    order = _ORDER if count == 6 else _ORDER.removeprefix("second ")
    return f"{field}: '{word}' is {kind}; the {count} fields are {order}"


def _hashed(upper: list[str]) -> str | None:
    """`H` of Jenkins and `~` of OpenBSD: a time that differs from job to job."""
    fields = FIELDS[-len(upper) :] if len(upper) in (5, 6) else ()
    for field, word in zip(fields, upper, strict=False):
        if "~" in word or re.match(r"H(?:\(|/|,|\Z)", word):
            return (
                f"{field.name}: '{word}' asks for a time of its own for each job: write a fixed number, and set spreadSeconds, "
                "which sends each job at its own second of that stretch"
            )
    return None


def _last_weekday(upper: list[str]) -> str | None:
    if len(upper) in (5, 6) and upper[-1] == "L":
        return "day of week: 'L' alone is Saturday in Quartz and AWS: write SAT, or FRIL for the last Friday of a month"
    return None


def _names_in(word: str, names: dict[str, int]) -> str | None:
    return next((name for name in _NAME.findall(word) if name in names), None)
