"""Schedules: what is read, what is refused, and the times that they name."""

from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kcore.wire import cron

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # A Thursday.


def times(text: str, count: int) -> list[str]:
    schedule, moment, found = cron.parse(text), MIDNIGHT, []
    for _ in range(count):
        moment = schedule.next(moment)
        found.append(datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/5 * * * *", ["01-01 00:05", "01-01 00:10"]),
        ("? * * * ?", ["01-01 00:01", "01-01 00:02"]),
        ("0 9-17/4 * * mon-fri", ["01-01 09:00", "01-01 13:00", "01-01 17:00", "01-02 09:00"]),
        ("5/25 0 * * *", ["01-01 00:05", "01-01 00:30", "01-01 00:55"]),
        ("0 0 1 JAN,Jul *", ["07-01 00:00", "01-01 00:00"]),
        # Either the day of the month or the day of the week.
        ("0 0 13 * 5", ["01-02 00:00", "01-09 00:00", "01-13 00:00", "01-16 00:00"]),
        ("@hourly", ["01-01 01:00", "01-01 02:00"]),
        ("@daily", ["01-02 00:00"]),
        ("@weekly", ["01-04 00:00"]),
        ("@monthly", ["02-01 00:00"]),
        ("@yearly", ["01-01 00:00"]),
        ("@every 1h30m", ["01-01 01:30", "01-01 03:00"]),
        ("59/5 * * * *", ["01-01 00:59", "01-01 01:59"]),
    ],
)
def test_times(text: str, expected: list[str]) -> None:
    assert times(text, len(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("* * * *", "expected exactly 5 fields, found 4"),
        ("0 * * * * *", "expected exactly 5 fields, found 6"),
        ("60 * * * *", "minute: 60 is not between 0 and 59"),
        ("* 24 * * *", "hour: 24"),
        ("* * 0 * *", "day of month: 0"),
        ("* * * 13 *", "month: 13"),
        ("* * * * 7", "day of week: 7"),
        ("* * L * *", "day of month: l"),
        ("* * 15W * *", "day of month: 15w"),
        ("* * * * mon#2", "can't be understood"),
        ("5-1 * * * *", "ends before it begins"),
        ("*/0 * * * *", "a step of 0"),
        ("-1 * * * *", "can't be understood"),
        ("0 0 31 2 *", "is never"),
        ("@fortnightly", "not one of"),
        ("@every 0s", "at least one second"),
        ("@every soon", "not a duration"),
        ("TZ=UTC * * * * *", "timeZone"),
        ("CRON_TZ=UTC * * * * *", "timeZone"),
        ("", "found 0"),
        ("0x5 * * * *", "0x5"),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        cron.parse(text)


@given(
    st.sampled_from(["*/7 * * * *", "0 3 * * *", "0 0 29 2 *", "@every 17m", "0 0 13 * 5"]),
    st.integers(0, 3 * 366 * 86400),
)
def test_the_latest_is_the_last_of_all(text: str, span: int) -> None:
    schedule = cron.parse(text)
    since, until = MIDNIGHT, MIDNIGHT + span
    found = schedule.latest(since, until)
    if found is None:
        assert schedule.next(since) > until
        return
    latest, count = found
    assert since < latest <= until and count >= 1
    if not schedule.every_seconds:
        assert schedule.next(latest) > until


@given(st.text(alphabet="0123456789*/-, ?@LWmonjan#", max_size=30))
def test_any_text_is_a_schedule_or_an_error(text: str) -> None:
    try:
        schedule = cron.parse(text)
    except ValueError:
        return
    assert schedule.next(MIDNIGHT) > MIDNIGHT
