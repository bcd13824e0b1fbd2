"""Cron ticks fire once: over changes of the clock, restarts, missed time and several workers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.database.engine import Database
from infra.errors import InvalidRequest, NotFound
from infra.jobs import cron
from infra.jobs.definitions import Registry
from infra.jobs.queue import Jobs
from infra.jobs.schedules import CatchUp, Schedule

BERLIN = ZoneInfo("Europe/Berlin")


class Clock:
    """A clock that is set by hand."""

    def __init__(self, start: datetime) -> None:
        self.moment = start.astimezone(UTC)

    def __call__(self) -> datetime:
        return self.moment

    def run(self, jobs: Jobs, *, until: datetime, step: timedelta) -> None:
        while self.moment < until:
            self.moment += step
            jobs.schedules.fire()


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def fired(jobs: Jobs) -> list[str]:
    """When jobs were started, in UTC, oldest first."""
    return sorted(
        str(each.key).rpartition("/")[2].removesuffix(":00+00:00") for each in jobs.list(limit=500)
    )


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        # The clock goes from 2:00 to 3:00 at 1:00 UTC: 2:30 does not exist.
        ("30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        # The clock goes from 3:00 back to 2:00 at 1:00 UTC: 2:30 comes twice.
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("30 */2 * * *", "2026-10-25T01:00", ["2026-10-25T00:30", "2026-10-25T03:30"]),
        (
            "30 * * * *",
            "2026-10-25T01:00",
            ["2026-10-24T23:30", "2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"],
        ),
        (
            "*/30 * * * *",
            "2026-03-29T01:00",
            ["2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30"],
        ),
        ("@daily", "2026-10-24T12:00", ["2026-10-24T22:00", "2026-10-25T23:00"]),
    ],
)
def test_ticks_over_a_change_of_the_clock(expression: str, start: str, expected: list[str]) -> None:
    moments = islice(cron.ticks(expression, "Europe/Berlin", after=berlin(start)), len(expected))
    assert [moment.strftime("%Y-%m-%dT%H:%M") for moment in moments] == expected


@settings(max_examples=60, deadline=None)
@given(
    expression=st.sampled_from(
        ["30 2 * * *", "0 * * * *", "15 */3 * * *", "0 1-4 * * 0", "45 2 29 3,10 *", "@daily"]
    ),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
    ),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001
    hours=st.lists(st.integers(1, 200), min_size=1, max_size=6),
)
def test_looking_often_or_seldom_sees_the_same_ticks(
    expression: str, zone: str, start: datetime, hours: list[int]
) -> None:
    begin = start.replace(tzinfo=UTC)
    end = begin + timedelta(hours=sum(hours))

    def between(after: datetime, until: datetime) -> list[datetime]:
        upcoming = cron.ticks(expression, zone, after=after)
        return list(takewhile(lambda tick: tick <= until, upcoming))

    once = between(begin, end)
    often, after = [], begin
    for each in hours:
        until = after + timedelta(hours=each)
        seen = between(after, until)
        often += seen
        after = until
    assert often == once
    assert once == sorted(set(once))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
    ],
)
def test_schedule_over_a_change_of_the_clock_and_restarts_fires_once_a_night(
    database: Database, start: str, expected: list[str]
) -> None:
    clock = Clock(berlin(start))
    jobs = Jobs(database, Registry(), now=clock)
    jobs.schedules.put(Schedule("nightly", "x", cron="30 2 * * *", time_zone="Europe/Berlin"))
    until = clock() + timedelta(hours=40)
    while clock() < until:
        jobs = Jobs(database, Registry(), now=clock)  # as after a restart
        clock.run(jobs, until=clock() + timedelta(hours=1), step=timedelta(minutes=20))
    assert fired(jobs) == expected


def test_clock_that_is_set_back_fires_nothing_again(database: Database) -> None:
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC))
    jobs = Jobs(database, Registry(), now=clock)
    jobs.schedules.put(Schedule("hourly", "x", cron="0 * * * *"))
    clock.run(jobs, until=datetime(2026, 1, 1, 3, 30, tzinfo=UTC), step=timedelta(minutes=10))
    clock.moment -= timedelta(hours=2)
    clock.run(jobs, until=datetime(2026, 1, 1, 4, 30, tzinfo=UTC), step=timedelta(minutes=10))
    assert fired(jobs) == [f"2026-01-01T0{hour}:00" for hour in (1, 2, 3, 4)]


def test_workers_that_look_together_fire_a_tick_once(database: Database) -> None:
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC))
    queues = [Jobs(database, Registry(), now=clock) for _ in range(4)]
    queues[0].schedules.put(Schedule("hourly", "x", cron="0 * * * *", catch_up="all"))
    clock.moment += timedelta(hours=5)
    together = threading.Barrier(len(queues))

    def look(jobs: Jobs) -> None:
        together.wait(10)
        jobs.schedules.fire()

    threads = [threading.Thread(target=look, args=[jobs]) for jobs in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fired(queues[0]) == [f"2026-01-01T0{hour}:00" for hour in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("skip", []),
        ("last", ["2026-01-01T05:00"]),
        ("all", [f"2026-01-01T0{hour}:00" for hour in (1, 2, 3, 4, 5)]),
    ],
)
def test_missed_ticks_follow_the_catch_up_rule(
    database: Database, rule: CatchUp, expected: list[str]
) -> None:
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC))
    jobs = Jobs(database, Registry(), now=clock)
    jobs.schedules.put(Schedule("hourly", "x", cron="0 * * * *", catch_up=rule))
    clock.moment += timedelta(hours=5, minutes=30)
    jobs.schedules.fire()
    assert fired(jobs) == expected
    clock.run(jobs, until=datetime(2026, 1, 1, 6, 5, tzinfo=UTC), step=timedelta(seconds=30))
    assert fired(jobs) == [*expected, "2026-01-01T06:00"]


def test_paused_schedule_fires_nothing_and_makes_up_for_nothing(database: Database) -> None:
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC))
    jobs = Jobs(database, Registry(), now=clock)
    jobs.schedules.put(Schedule("hourly", "x", cron="0 * * * *", catch_up="all"))
    jobs.schedules.pause("hourly")
    clock.run(jobs, until=datetime(2026, 1, 1, 3, 30, tzinfo=UTC), step=timedelta(minutes=30))
    jobs.schedules.pause("hourly", paused=False)
    clock.run(jobs, until=datetime(2026, 1, 1, 5, 30, tzinfo=UTC), step=timedelta(minutes=30))
    assert fired(jobs) == ["2026-01-01T04:00", "2026-01-01T05:00"]


def test_changed_schedule_keeps_its_place_unless_its_times_change(database: Database) -> None:
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC))
    jobs = Jobs(database, Registry(), now=clock)
    jobs.schedules.put(Schedule("s", "x", cron="0 * * * *"))
    clock.moment += timedelta(minutes=90)
    jobs.schedules.put(Schedule("s", "y", cron="0 * * * *", arguments={"n": 1}))
    jobs.schedules.fire()
    assert [(each.name, each.arguments) for each in jobs.list()] == [("y", {"n": 1})]
    clock.moment += timedelta(hours=1)
    jobs.schedules.put(Schedule("s", "y", cron="0 4 * * *"))
    jobs.schedules.fire()
    assert len(jobs.list()) == 1
    assert jobs.schedules.next_tick("s") == datetime(2026, 1, 1, 4, tzinfo=UTC)


def test_removed_schedule_is_gone(database: Database) -> None:
    jobs = Jobs(database, Registry())
    jobs.schedules.put(Schedule("weekly", "x", cron="0 0 * * 1"))
    assert [each.name for each in jobs.schedules.list()] == ["weekly"]
    jobs.schedules.remove("weekly")
    assert jobs.schedules.list() == []
    for act in (jobs.schedules.remove, jobs.schedules.pause, jobs.schedules.next_tick):
        with pytest.raises(NotFound, match="weekly"):
            act("weekly")


@pytest.mark.parametrize(
    ("expression", "zone", "message"),
    [
        ("every day", "UTC", "every day"),
        ("61 * * * *", "UTC", "61"),
        ("* * * * * *", "UTC", "six|6 fields"),
        ("0 0 31 2 *", "UTC", "cannot be used"),
        ("0 0 * * *", "Europe/Atlantis", "Atlantis"),
        ("0 0 * * *", "../../etc/passwd", "time zone"),
    ],
)
def test_schedule_that_cannot_fire_is_refused(
    database: Database, expression: str, zone: str, message: str
) -> None:
    jobs = Jobs(database, Registry())
    with pytest.raises(InvalidRequest, match=message):
        jobs.schedules.put(Schedule("bad", "x", cron=expression, time_zone=zone))
    with pytest.raises(InvalidRequest, match="catch-up"):
        jobs.schedules.put(Schedule("bad", "x", cron="@daily", catch_up="never"))  # type: ignore[arg-type]
    assert jobs.schedules.list() == []
