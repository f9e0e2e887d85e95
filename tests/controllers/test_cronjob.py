"""CronJobs: when, how many at a time, what is kept; clocks that jump, and zones that change."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from kcore_api.kcore.batch.v1 import cron_job_pb2, job_pb2

from kcore.controllers import cronjob, garbage
from tests.controllers.world import World, parse

CronJob = cron_job_pb2.CronJob
Job = job_pb2.Job
KEY = ("default", "tick")
BERLIN = ZoneInfo("Europe/Berlin")


def world(now: float = 1_767_225_600.0) -> World:
    return World((cronjob.controller(), garbage.CONTROLLER), now=now)


def cron_job(schedule: str = "*/5 * * * *", **spec: Any) -> CronJob:
    made = parse(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "tick", "namespace": "default"},
            "spec": {
                "schedule": schedule,
                "concurrencyPolicy": "Allow",
                "suspend": False,
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 1,
                "jobTemplate": {
                    "metadata": {"labels": {"app": "tick"}},
                    "spec": {
                        "template": {
                            "spec": {
                                "containers": [{"name": "main", "image": "w:1"}],
                                "restartPolicy": "Never",
                            }
                        }
                    },
                },
            }
            | spec,
        }
    )
    assert isinstance(made, CronJob)
    return made


def live(here: World) -> CronJob:
    found: CronJob = here.get(CronJob, *KEY)
    return found


def end(here: World, each: Job, how: str = "Complete") -> None:
    fresh = here.get(Job, "default", each.metadata.name)
    fresh.status.conditions.add(type=how, status="True")
    fresh.status.completion_time.seconds = int(here.now)
    here.change(fresh)


def pass_time(here: World, seconds: float, step: float = 30) -> None:
    until = here.now + seconds
    while here.now < until:
        here.now = min(until, here.now + step)
        here.settle()


def minutes(here: World) -> list[int]:
    return sorted(int(each.metadata.name.rpartition("-")[2]) for each in here.all(Job))


def test_a_job_at_each_time() -> None:
    here = world()
    here.add(cron_job())
    pass_time(here, 900)
    began = 1_767_225_600 // 60
    assert minutes(here) == [began + 5, began + 10, began + 15]
    one = here.all(Job)[0]
    assert dict(one.metadata.labels) == {"app": "tick"}
    assert one.metadata.annotations[cronjob.SCHEDULED_AT] == "2026-01-01T00:05:00Z"
    (reference,) = one.metadata.owner_references
    assert reference.kind == "CronJob" and reference.controller
    assert len(live(here).status.active) == 3
    assert live(here).status.last_schedule_time.seconds == 1_767_225_600 + 900


def test_it_is_asked_again_at_the_next_time() -> None:
    here = world()
    here.add(cron_job())
    assert here.ask(0, KEY).again_at == 1_767_225_600 + 300


def test_forbid_waits_for_the_last_one() -> None:
    here = world()
    here.add(cron_job(concurrencyPolicy="Forbid"))
    pass_time(here, 900)
    assert len(here.all(Job)) == 1
    end(here, here.all(Job)[0])
    pass_time(here, 60)
    assert len(here.all(Job)) == 2
    assert any("concurrency policy is Forbid" in each for each in here.said)


def test_replace_ends_the_last_one() -> None:
    here = world()
    here.add(cron_job(concurrencyPolicy="Replace"))
    pass_time(here, 900)
    assert minutes(here) == [(1_767_225_600 + 900) // 60]


def test_suspended_it_makes_none() -> None:
    here = world()
    here.add(cron_job(suspend=True))
    pass_time(here, 3600)
    assert not here.all(Job)


def test_so_many_are_kept() -> None:
    here = world()
    here.add(cron_job())
    for number in range(12):
        pass_time(here, 300)
        running = [each for each in here.all(Job) if not each.status.conditions]
        end(here, running[0], "Failed" if number % 3 == 2 else "Complete")
        here.settle()
    kinds = [each.status.conditions[0].type for each in here.all(Job)]
    assert (kinds.count("Complete"), kinds.count("Failed")) == (3, 1)
    assert live(here).status.last_successful_time.seconds
    assert any("Saw completed job" in each for each in here.said)


def test_after_a_long_sleep_only_the_latest_is_made_up_for() -> None:
    here = world()
    here.add(cron_job("* * * * *"))
    here.settle()
    here.now += 30 * 86400
    here._queues[0][KEY] = None
    here.settle()
    assert minutes(here) == [int(here.now) // 60]
    assert any("TooManyMissedTimes too many missed start times: 43" in each for each in here.said)


def test_what_is_too_late_is_left_out() -> None:
    here = world()
    here.add(cron_job("0 * * * *", startingDeadlineSeconds=60))
    here.now += 3600 + 61
    here.settle()
    assert not here.all(Job)


def test_a_clock_that_goes_back_makes_nothing_twice() -> None:
    here = world()
    here.add(cron_job("* * * * *"))
    pass_time(here, 300)
    before = minutes(here)
    here.now -= 180
    pass_time(here, 170, 10)
    assert minutes(here) == before


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        # What the change of clocks leaves out is at the end of the gap; what it brings twice, once.
        ((2026, 3, 29), ["2026-03-29T03:00:00+02:00"]),
        ((2026, 10, 25), ["2026-10-25T02:30:00+02:00"]),
        ((2026, 6, 1), ["2026-06-01T02:30:00+02:00"]),
    ],
)
def test_zones_that_change(day: tuple[int, int, int], expected: list[str]) -> None:
    here = world(datetime(*day, tzinfo=BERLIN).timestamp())
    here.add(cron_job("30 2 * * *", timeZone="Europe/Berlin"))
    pass_time(here, 23 * 3600, 600)
    said = [each.metadata.annotations[cronjob.SCHEDULED_AT] for each in here.all(Job)]
    assert said == expected


def test_a_schedule_that_is_none_stops_nobody() -> None:
    here = world()
    here.add(cron_job("rubbish"))
    here.settle()
    assert any("UnparseableSchedule" in each for each in here.said)


@given(st.lists(st.tuples(st.sampled_from(["wait", "stale", "end", "back"]), st.integers(1, 500)),
                max_size=30), st.sampled_from(["Allow", "Forbid", "Replace"]))  # fmt: skip
@settings(max_examples=60)
def test_no_time_is_served_twice(story: list[tuple[str, int]], policy: str) -> None:
    here = world()
    here.add(cron_job("* * * * *", concurrencyPolicy=policy, successfulJobsHistoryLimit=1000))
    made: list[str] = []
    for what, number in story:
        before = {each.metadata.uid for each in here.all(Job)}
        if what == "wait":
            here.now += number
        elif what == "back":
            here.now -= min(number, 300)
        elif what == "end" and here.all(Job):
            jobs = here.all(Job)
            end(here, jobs[number % len(jobs)])
        elif what == "stale":
            result = here.ask(0, KEY)
            here.carry_out(result, 0, KEY)
            here.carry_out(result, 0, KEY)
        here._queues[0][KEY] = None
        here.settle()
        fresh = [each for each in here.all(Job) if each.metadata.uid not in before]
        assert len(fresh) <= 2
        made += [each.metadata.name for each in fresh]
        if policy != "Allow":
            assert sum(not each.status.conditions for each in here.all(Job)) <= 1
    assert len(made) == len(set(made))
    times = [int(name.rpartition("-")[2]) for name in made]
    assert times == sorted(times)
    assert all(moment * 60 > datetime(2026, 1, 1, tzinfo=UTC).timestamp() for moment in times)
