"""Hypothesis strategies for the fields of cron expressions."""

from __future__ import annotations

from hypothesis import strategies as st

DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def spelled(least: int, most: int, names: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Lists of numbers, names, ranges (wrapped ones too), and steps of all three kinds."""
    number = st.integers(least, most)
    word = number.flatmap(lambda v: st.sampled_from([str(v), names[v]] if v < len(names) and names[v] else [str(v)]))
    step = st.integers(1, most - least + 1 if least or most != 7 else 7)
    part = st.one_of(
        word,
        st.builds("{}-{}".format, word, word),
        st.builds("{}-{}/{}".format, word, word, step),
        st.builds("*/{}".format, st.integers(2, most - 1)),
        st.builds("{}/{}".format, number, step),
    )
    return st.lists(part, min_size=1, max_size=3).map(",".join)


WEEKDAY = st.sampled_from([*DAYS, *"01234567"])
MONTH_DAYS = st.one_of(
    st.sampled_from(["*", "?", "L"]),
    st.integers(1, 31).map("{}W".format),
    st.just("LW"),
    st.integers(1, 30).map("L-{}".format),
    spelled(1, 31, ()),
    spelled(1, 31, ()).map("{},L".format),
)
WEEK_DAYS = st.one_of(
    st.sampled_from(["*", "?"]),
    spelled(0, 7, DAYS),
    st.lists(st.builds("{}#{}".format, WEEKDAY, st.integers(1, 5)), min_size=1, max_size=2).map(",".join),
    st.lists(st.integers(0, 7).map("L{}".format), min_size=1, max_size=2).map(",".join),
)
