"""Probes and lifecycle hooks, over the real kernel in virtual time."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.sim.runtime import Command
from tests.kubelet import house
from tests.kubelet.house import House, is_gone, is_ready
from tests.kubelet.scene import pod, said

Pod = pod_pb2.Pod


def run(tmp_path: Path, story: Any, **more: Any) -> None:
    """Lets it happen."""
    house.run(tmp_path, story, **more)


def probed(of: Pod, container: int = 0, **probes: dict[str, int]) -> Pod:
    """The same pod, whose container is asked by commands of the probes' names."""
    spec = of.spec.containers[container]
    for kind, numbers in probes.items():
        probe = getattr(spec, f"{kind}_probe")
        probe.handler.exec.command.append(kind)
        for field, number in numbers.items():
            setattr(probe, field, number)
    return of


def hooked(of: Pod, container: int = 0, **hooks: str) -> Pod:
    """The same pod, with commands as hooks."""
    for name, command in hooks.items():
        getattr(of.spec.containers[container].lifecycle, name).exec.command.append(command)
    return of


def times(here: House, word: str) -> list[int]:
    """The seconds between the runs of a command."""
    found = [moment for moment, _, words in here.runtime.executed if words == word]
    return [round(after - before) for before, after in itertools.pairwise(found)]


async def reasons(here: House) -> list[tuple[str, str]]:
    """What people were told, less the usual."""
    usual = ("Created", "Pulled", "Pulling", "Started")
    return [(reason, text) for reason, text, _ in await here.events() if reason not in usual]


def starts(here: House) -> int:
    return sum(here.runtime.starts.values())


def test_readiness_only_flips_ready(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["readiness"] = Command(1, "cold")
        await here.create(probed(pod(), readiness={"period_seconds": 2}))
        found = await here.until(lambda pod: pod and pod.status.phase == "Running")
        assert said(found.status) == ["Running", "a! x0 running", "Box Init"]
        await here.clock.sleep(20)
        assert not is_ready(await here.pod())
        assert ("Unhealthy", "Readiness probe failed: cold") in await reasons(here)
        here.runtime.commands["readiness"] = Command()
        await here.until(is_ready, 3)
        here.runtime.commands["readiness"] = Command(1)
        # Three failures in a row are needed.
        await here.clock.sleep(3.5)
        assert is_ready(await here.pod())
        await here.clock.sleep(4)
        assert not is_ready(await here.pod())
        assert starts(here) == 1

    run(tmp_path, story)


def test_liveness_ends_the_container_and_it_starts_again(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(probed(pod(), liveness={"failure_threshold": 2}))
        await here.until(is_ready)
        here.runtime.commands["liveness"] = Command(1, "dead")
        await here.clock.sleep(15)
        assert starts(here) == 1
        await here.clock.sleep(10)
        here.runtime.commands["liveness"] = Command()
        assert starts(here) == 2
        found = await here.until(is_ready)
        assert said(found.status)[1] == "a+! x1 running was Error:143"
        assert await reasons(here) == [
            ("Killing", "Container a failed liveness probe, will be restarted"),
            ("Unhealthy", "Liveness probe failed: dead"),
        ]
        # What was counted went with the container.
        await here.clock.sleep(100)
        assert starts(here) == 2

    run(tmp_path, story)


@pytest.mark.parametrize(("own", "least", "most"), [(None, 29, 33), (3, 2, 5)])
def test_a_probe_has_its_own_grace(
    tmp_path: Path, own: int | None, least: float, most: float
) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["liveness"] = Command(1)
        numbers = {"failure_threshold": 1, "period_seconds": 5}
        if own is not None:
            numbers["termination_grace_period_seconds"] = own
        made = probed(pod(), liveness=numbers)
        made.spec.containers[0].env.add(name="SIM_IGNORES_TERM", value="1")
        await here.create(made)
        begun = await here.world.until(lambda: _executed(here), 30)
        found = await here.until(
            lambda pod: pod and pod.status.container_statuses[0].restart_count, 60
        )
        assert least <= here.clock.monotonic() - begun[0][0] <= most
        assert said(found.status)[1].endswith("was Error:137")

    run(tmp_path, story)


async def _executed(here: House) -> Any:
    return here.runtime.executed


def test_a_pod_that_does_not_restart_ends_by_its_liveness(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["liveness"] = Command(1)
        await here.create(probed(pod(policy="Never"), liveness={"failure_threshold": 1}))
        await here.until(lambda pod: pod and pod.status.phase == "Failed")
        assert ("Killing", "Container a failed liveness probe") in await reasons(here)

    run(tmp_path, story)


def test_startup_gates_the_others(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["startup"] = Command(1)
        every = {"period_seconds": 1}
        slow = {"period_seconds": 1, "failure_threshold": 60}
        await here.create(probed(pod(), startup=slow, liveness=every, readiness=every))
        await here.clock.sleep(30)
        assert {words for _, _, words in here.runtime.executed} == {"startup"}
        found = await here.pod()
        assert found is not None and said(found.status)[1] == "a x0 running"
        here.runtime.commands["startup"] = Command()
        await here.until(is_ready, 3)
        asked = len(times(here, "startup"))
        await here.clock.sleep(10)
        assert len(times(here, "startup")) == asked
        assert len(times(here, "liveness")) > 5
        assert starts(here) == 1

    run(tmp_path, story)


def test_startup_that_never_comes_ends_the_container(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["startup"] = Command(1)
        await here.create(probed(pod(), startup={"period_seconds": 1}))
        await here.clock.sleep(8)
        assert starts(here) == 2
        assert ("Killing", "Container a failed startup probe, will be restarted") in (
            await reasons(here)
        )

    run(tmp_path, story)


def test_the_next_container_waits_for_a_sidecars_startup(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["startup"] = Command(1)
        made = pod(init="*s")
        probe = made.spec.init_containers[0].startup_probe
        probe.handler.exec.command.append("startup")
        probe.period_seconds, probe.failure_threshold = 1, 100
        await here.create(made)
        await here.clock.sleep(20)
        assert here.running() == ["s"]
        here.runtime.commands["startup"] = Command()
        found = await here.until(is_ready)
        assert said(found.status)[1:3] == ["s+! x0 running", "a+! x0 running"]

    run(tmp_path, story)


def test_delay_period_and_timeout(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["readiness"] = Command(seconds=2.5)
        numbers = {"initial_delay_seconds": 15, "period_seconds": 7, "timeout_seconds": 3}
        await here.create(probed(pod(), readiness=numbers))
        await here.until(lambda pod: pod and pod.status.phase == "Running")
        began = here.clock.monotonic()
        await here.until(is_ready)
        assert 15 <= here.clock.monotonic() - began + 1 <= 19
        await here.clock.sleep(50)
        assert set(times(here, "readiness")) == {7}
        here.runtime.commands["readiness"] = Command(seconds=3.5)
        await here.clock.sleep(30)
        assert not is_ready(await here.pod())
        told = 'Readiness probe failed: command "readiness" took longer than 3 s'
        assert ("Unhealthy", told) in await reasons(here)

    run(tmp_path, story)


def test_while_a_pod_ends_readiness_is_asked_and_liveness_is_not(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        every = {"period_seconds": 1, "failure_threshold": 1}
        made = probed(pod(), liveness=every, readiness=every)
        made.spec.containers[0].env.add(name="SIM_IGNORES_TERM", value="1")
        await here.create(made)
        await here.until(is_ready)
        await here.delete(grace_seconds=20)
        await here.clock.sleep(2)
        asked = len(times(here, "liveness"))
        here.runtime.commands["liveness"] = here.runtime.commands["readiness"] = Command(1)
        await here.until(lambda pod: pod and not is_ready(pod), 5)
        await here.until(is_gone)
        assert len(times(here, "liveness")) == asked
        asked = len(here.runtime.executed)
        await here.clock.sleep(10)
        assert len(here.runtime.executed) == asked

    run(tmp_path, story)


def test_a_new_kubelet_takes_nothing_back(tmp_path: Path) -> None:
    """A pod that was ready stays so, and a hook that is through is not run again."""

    async def story(here: House) -> None:
        every = {"period_seconds": 2}
        made = probed(pod(), startup=every, liveness=every, readiness=every)
        await here.create(hooked(made, post_start="hello"))
        before = await here.until(is_ready)
        await here.clock.sleep(5)
        asked = len(times(here, "startup"))
        await here.stop()
        commits = here.world.api.commits
        here.start()
        await here.clock.sleep(30)
        assert await here.pod() == before
        assert here.world.api.commits == commits
        assert len(times(here, "startup")) == asked
        assert [words for _, _, words in here.runtime.executed].count("hello") == 1
        assert len(times(here, "liveness")) > 10

    run(tmp_path, story)


def test_post_start_comes_before_ready_and_before_the_next_container(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["hello"] = Command(seconds=5)
        await here.create(hooked(pod("a b"), post_start="hello"))
        await here.world.until(lambda: _executed(here), 30)
        await here.clock.sleep(3)
        assert here.running() == ["a"]
        found = await here.pod()
        assert found is not None and found.status.phase == "Pending"
        await here.until(is_ready)
        assert here.running() == ["a", "b"]

    run(tmp_path, story)


def test_post_start_that_fails_ends_the_container(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["hello"] = Command(3, "oh")
        await here.create(hooked(pod(), post_start="hello"))
        await here.clock.sleep(5)
        found = await here.pod()
        assert found is not None
        assert said(found.status)[1] == "a x1 CrashLoopBackOff was Error:143"
        assert [one for one in await reasons(here) if one[0] != "BackOff"] == [
            ("FailedPostStartHook", "PostStartHook failed: oh"),
            ("Killing", "Container a failed its postStart hook, will be restarted"),
        ]
        here.runtime.commands["hello"] = Command()
        await here.until(is_ready)

    run(tmp_path, story)


def test_a_deletion_overtakes_post_start(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["hello"] = Command(seconds=1000)
        await here.create(hooked(pod(), post_start="hello"))
        await here.world.until(lambda: _executed(here), 30)
        await here.delete()
        await here.until(is_gone, 10)

    run(tmp_path, story)


# What it is about | the hook | the container ignores SIGTERM | how long, the code, the events.
STOPS = [
    ("within the grace", Command(seconds=4), False, (4, 6), "143", 0),
    ("it takes of the grace", Command(seconds=4), True, (10, 12), "137", 0),
    ("it fails", Command(1, "no"), False, (0, 2), "143", 1),
    ("it overruns: 2 s more", Command(seconds=99), True, (12, 14), "137", 1),
    ("… in which SIGTERM may be obeyed", Command(seconds=99), False, (10, 12), "143", 1),
]


@pytest.mark.parametrize(("does", "ignores", "seconds", "code", "failures"),
                         [row[1:] for row in STOPS], ids=[row[0] for row in STOPS])  # fmt: skip
def test_pre_stop(
    tmp_path: Path,
    does: Command,
    ignores: bool,
    seconds: tuple[int, int],
    code: str,
    failures: int,
) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["bye"] = does
        made = hooked(pod(termination_grace_period_seconds=10), pre_stop="bye")
        if ignores:
            made.spec.containers[0].env.add(name="SIM_IGNORES_TERM", value="1")
        await here.create(made)
        await here.until(is_ready)
        began = here.clock.monotonic()
        last = here.world.tasks.start(here.last_seen())
        await here.delete()
        await here.until(is_gone)
        assert seconds[0] <= here.clock.monotonic() - began <= seconds[1]
        assert said((await last).status)[1] == f"a x0 Error:{code}"
        assert [words for _, _, words in here.runtime.executed] == ["bye"]
        told = [reason for reason, _ in await reasons(here)]
        assert told.count("FailedPreStopHook") == failures
        await here.clock.sleep(2)
        assert here.is_clean()

    run(tmp_path, story)


def test_less_grace_cuts_the_hook_short_and_does_not_run_it_again(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["bye"] = Command(seconds=99)
        await here.create(hooked(pod(termination_grace_period_seconds=60), pre_stop="bye"))
        await here.until(is_ready)
        await here.delete()
        await here.clock.sleep(10)
        began = here.clock.monotonic()
        await here.delete(grace_seconds=3)
        await here.until(is_gone)
        assert here.clock.monotonic() - began <= 7
        assert len(here.runtime.executed) == 1

    run(tmp_path, story)


def test_a_hook_may_just_wait(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        made = pod()
        made.spec.containers[0].lifecycle.pre_stop.sleep.seconds = 8
        await here.create(made)
        await here.until(is_ready)
        began = here.clock.monotonic()
        await here.delete()
        await here.until(is_gone)
        assert 8 <= here.clock.monotonic() - began <= 10

    run(tmp_path, story)


def test_liveness_runs_the_pre_stop_hook_too(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.runtime.commands["liveness"] = Command(1)
        made = probed(pod(), liveness={"failure_threshold": 1, "period_seconds": 1})
        await here.create(hooked(made, pre_stop="bye"))
        await here.clock.sleep(4)
        assert "bye" in {words for _, _, words in here.runtime.executed}

    run(tmp_path, story)
