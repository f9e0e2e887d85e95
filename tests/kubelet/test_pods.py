"""Pods on a node, from their binding to their end, over the real kernel in virtual time."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, pod_pb2
from kcore_api.runtime.v1 import api_pb2 as rt

from kcore.kubelet import config_objects, volume
from kcore.kubelet.cri import Code, CriError
from kcore.reconcile import transaction
from kcore.sim.runtime import Behaviour, Speed
from tests import budget
from tests.kubelet import house
from tests.kubelet.house import House, is_gone, is_ready
from tests.kubelet.scene import pod, said

Pod = pod_pb2.Pod


def does(of: Pod, container: int = 0, **environment: str) -> Pod:
    """The same pod, whose container behaves so."""
    for name, value in environment.items():
        of.spec.containers[container].env.add(name=f"SIM_{name}", value=value)
    return of


def run(tmp_path: Path, story: Any, **more: Any) -> None:
    """Lets it happen."""
    house.run(tmp_path, story, **more)


def test_a_pod_runs_and_ends(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(pod("a b", init="i"))
        # The init container runs for ever: let it end.
        await here.world.until(lambda: _is_running(here, "i"))
        here.runtime.crash(here.runtime.running()[0], 0)
        found = await here.until(is_ready)
        assert said(found.status) == [
            "Running",
            "i+ x0 Completed:0",
            "a+! x0 running",
            "b+! x0 running",
            "Box Init Ready Cont",
        ]
        assert found.status.qos_class == "BestEffort"
        assert found.status.start_time.seconds
        await here.delete()
        await here.until(is_gone)
        await here.clock.sleep(1)
        assert here.is_clean()
        told = [reason for reason, _, _ in await here.events()]
        assert told == [
            *["Created"] * 3,
            *["Killing"] * 2,
            *["Pulled"] * 3,
            *["Pulling"] * 3,
            *["Started"] * 3,
        ]

    run(tmp_path, story)


async def _is_running(here: House, *names: str) -> bool:
    return here.running() == sorted(names)


def test_a_new_kubelet_restarts_nothing_and_says_nothing_new(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(pod("a b"))
        before = await here.until(is_ready)
        await here.clock.sleep(5)
        for _ in range(3):
            await here.stop()
            # A graceful end leaves containers alone.
            assert here.running() == ["a", "b"]
            commits = here.world.api.commits
            here.start()
            await here.clock.sleep(30)
            assert here.world.api.commits == commits
        assert set(here.runtime.starts.values()) == {1}
        assert await here.pod() == before

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("policy", "code", "phase", "starts"),
    [
        ("Always", 0, "Running", 3),
        ("Always", 1, "Running", 3),
        ("OnFailure", 0, "Succeeded", 1),
        ("OnFailure", 1, "Running", 3),
        ("Never", 0, "Succeeded", 1),
        ("Never", 1, "Failed", 1),
    ],
)
def test_what_ends_starts_again_as_its_policy_says(
    tmp_path: Path, policy: str, code: int, phase: str, starts: int
) -> None:
    async def story(here: House) -> None:
        await here.create(does(pod(policy=policy), RUNS_SECONDS="1", EXIT_CODE=str(code)))
        await here.clock.sleep(20)
        assert await here.phase() == phase
        (count,) = here.runtime.starts.values()
        assert count == starts
        if phase != "Running":
            # Its containers stay for their logs, and a new kubelet changes nothing.
            before = await here.pod()
            assert before is not None
            await here.restart()
            await here.clock.sleep(5)
            assert await here.pod() == before
            assert len(here.runtime.containers) == 1
            assert not any(box.ready for box in here.runtime.sandboxes.values())
            assert [*(tmp_path / "logs").iterdir()]
            await here.delete()
            await here.until(is_gone)
            await here.clock.sleep(2)
            assert here.is_clean()

    run(tmp_path, story)


def test_restarts_come_ever_more_slowly_and_anew_after_ten_minutes(tmp_path: Path) -> None:
    started: list[float] = []
    lasts = [1.0] * 9 + [601.0, 1.0, 1.0, 1.0]

    async def story(here: House) -> None:
        def script(config: rt.ContainerConfig) -> Behaviour:
            started.append(here.clock.monotonic())
            return Behaviour(lasts[min(config.metadata.attempt, len(lasts) - 1)], 1)

        here.runtime._script = script
        await here.create(pod())
        await here.clock.sleep(3300)
        found = await here.pod()
        assert found is not None
        one = found.status.container_statuses[0]
        assert one.restart_count == len(started) - 1
        told = await here.events()
        assert ("BackOff" in {reason for reason, _, _ in told}) and len(told) < 12

    run(tmp_path, story)
    gaps = [
        after - before - lasted
        for before, after, lasted in zip(started, started[1:], lasts, strict=False)
    ]
    expected = [0, 10, 20, 40, 80, 160, 300, 300, 300, 0, 10, 20]
    # What it takes to see the end and to make a container.
    pairs = list(zip(gaps, expected, strict=False))
    assert len(pairs) == len(expected)
    assert all(0 <= gap - wanted < 1.6 for gap, wanted in pairs), gaps


def test_clocks_on_walls_may_be_set(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        of = does(pod("a b"), RUNS_SECONDS="1", EXIT_CODE="1")
        of.spec.active_deadline_seconds = 1000
        await here.create(of)
        await here.clock.sleep(5)
        for jump in (3600.0, -7200.0, 1e8, -1e8):
            here.clock.ahead += jump
            count = sum(here.runtime.starts.values())
            live = await here.pod()
            assert live is not None
            # So that it is looked at.
            live.metadata.labels["jump"] = f"{abs(jump):.0f}"
            await here.world.do(transaction.patch(live, live, ["metadata.labels"]))
            await here.clock.sleep(5)
            # Nobody starts sooner.
            assert sum(here.runtime.starts.values()) - count <= 1
        await here.clock.sleep(40)
        # a: at 0, 1, 12, 33 …; b: once. And nobody starts later.
        assert sorted(here.runtime.starts.values()) == [1, 4]
        assert await here.phase() == "Running"

    run(tmp_path, story)


def test_a_clock_that_was_set_back_while_nobody_looked(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(does(pod(), RUNS_SECONDS="1", EXIT_CODE="1"))
        await here.until(lambda one: _waits(one, "CrashLoopBackOff"))
        await here.stop()
        # Its end lies in the future now.
        here.clock.ahead -= 7200
        here.start()
        await here.clock.sleep(15)
        assert list(here.runtime.starts.values()) == [3]

    run(tmp_path, story)


def test_images_that_cannot_be_had_are_asked_for_ever_more_seldom(tmp_path: Path) -> None:
    asked: list[float] = []

    async def story(here: House) -> None:
        pull = here.runtime.pull_image

        async def noted(image: rt.ImageSpec, *more: Any) -> str:
            asked.append(here.clock.monotonic())
            return await pull(image, *more)

        here.runtime.pull_image = noted  # type: ignore[method-assign]
        here.runtime.missing = frozenset(["a:1"])
        await here.create(pod("a b"))
        found = await here.until(lambda one: _waits(one, "ErrImagePull"))
        assert found.status.phase == "Pending"
        await here.until(lambda one: _waits(one, "ImagePullBackOff"))
        await here.world.until(lambda: _is_running(here, "b"))
        await here.clock.sleep(900)
        here.runtime.missing = frozenset()
        await here.until(is_ready, 320)

    run(tmp_path, story)
    gaps = [after - before for before, after in itertools.pairwise(asked)]
    gaps.sort()
    # The first is the other container's.
    expected = [10, 20, 40, 80, 160, 300, 300, 300]
    assert all(abs(gap - one) < 2 for gap, one in zip(gaps[1:], expected, strict=False)), gaps


def _waits(found: Pod | None, reason: str) -> bool:
    return found is not None and any(
        one.state.waiting.reason == reason for one in found.status.container_statuses
    )


@pytest.mark.parametrize("policy", ["Never", "Always", "IfNotPresent"])
def test_when_images_are_pulled(tmp_path: Path, policy: str) -> None:
    async def story(here: House) -> None:
        of = pod()
        of.spec.containers[0].image_pull_policy = policy
        await here.create(of)
        if policy == "Never":
            await here.until(lambda one: _waits(one, "ErrImageNeverPull"))
            here.runtime.images["a:1"] = "sha256:a"
        await here.until(is_ready)
        here.runtime.crash(here.runtime.running()[0], 1)
        await here.until(lambda one: is_ready(one) and _restarts(one, "a") == 1)
        pulls = [count for reason, _, count in await here.events() if reason == "Pulling"]
        assert pulls == {"Never": [], "Always": [2], "IfNotPresent": [1]}[policy]

    run(tmp_path, story)


def test_nobody_waits_for_a_registry(tmp_path: Path) -> None:
    """Neither the pod's other containers, nor other pods, nor its deletion."""

    async def story(here: House) -> None:
        here.runtime.images["b:1"] = "sha256:b"
        await here.create(pod("a b"))
        for number in range(10):
            other = pod("a")
            other.metadata.name = f"other-{number}"
            await here.create(other)
        await here.world.until(lambda: _is_running(here, "b"))
        here.runtime.crash(here.runtime.running()[0], 1)
        await here.until(lambda one: one is not None and _restarts(one, "b") == 1)
        quick = pod("b")
        quick.metadata.name = "quick"
        await here.create(quick)
        await here.world.until(lambda: _is_running(here, "b", "b"))
        await here.delete()
        await here.until(is_gone, 5)

    run(tmp_path, story, speed=Speed((0.01, 0.02), (0.01, 0.02), (1000, 1001), (0.001, 0.002)))


def _restarts(found: Pod | None, name: str) -> int:
    assert found is not None
    return next(
        int(one.restart_count) for one in found.status.container_statuses if one.name == name
    )


def test_a_sandbox_that_takes_for_ever_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(pod())
        await here.clock.sleep(3)
        await here.delete()
        await here.until(is_gone, 200)

    run(tmp_path, story, speed=Speed((100, 101), (0.01, 0.02), (0.1, 0.2), (0.001, 0.002)))


# -- the end ---------------------------------------------------------------------------------------


def test_who_ignores_the_signal_is_killed_when_the_grace_is_over(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        of = does(pod("a b"), IGNORES_TERM="1")
        of.spec.termination_grace_period_seconds = 20
        await here.create(of)
        await here.until(is_ready)
        began = here.clock.monotonic()
        await here.delete()
        found = await here.last_seen()
        assert 20 <= here.clock.monotonic() - began < 22
        assert said(found.status)[:3] == ["Failed", "a x0 Error:137", "b x0 Error:143"]

    run(tmp_path, story)


def test_a_deletion_with_less_grace_overtakes_one_with_more(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(does(pod(), IGNORES_TERM="1"))
        await here.until(is_ready)
        began = here.clock.monotonic()
        await here.delete(grace_seconds=600)
        await here.clock.sleep(10)
        await here.delete(grace_seconds=3)
        await here.until(is_gone)
        assert 13 <= here.clock.monotonic() - began < 15
        told = [reason for reason, _, _ in await here.events()]
        assert told.count("Killing") == 1

    run(tmp_path, story)


def test_a_new_pod_of_the_same_name_is_another_pod(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(does(pod(), IGNORES_TERM="1"))
        first = await here.until(is_ready)
        # By force: the object is gone, its containers have a moment.
        await here.delete(grace_seconds=0)
        assert await here.pod() is None
        await here.create(pod())
        second = await here.until(is_ready)
        assert second.metadata.uid != first.metadata.uid
        await here.clock.sleep(5)
        assert here.runtime.running_who() == [(second.metadata.uid, "a")]
        assert len(here.runtime.sandboxes) == 1
        assert [one.name for one in (tmp_path / "state" / "pods").iterdir()] == [
            second.metadata.uid
        ]
        assert is_ready(await here.pod())

    run(tmp_path, story)


def test_a_pod_that_was_deleted_behind_our_back_is_ended(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(pod())
        await here.until(is_ready)
        await here.stop()
        await here.delete(grace_seconds=0)
        here.start()
        await here.clock.sleep(5)
        assert here.is_clean()

    run(tmp_path, story)


def test_too_long_is_failed(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(pod(active_deadline_seconds=30))
        await here.until(is_ready)
        await here.clock.sleep(25)
        assert await here.phase() == "Running"
        found = await here.until(lambda one: one is not None and one.status.phase == "Failed")
        assert found.status.reason == "DeadlineExceeded"
        assert said(found.status)[1] == "a x0 Error:143"
        await here.restart()
        await here.clock.sleep(5)
        assert await here.pod() == found

    run(tmp_path, story)


def test_after_a_reboot_all_begins_again_but_what_is_never_to(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(pod())
        never = pod(policy="Never")
        never.metadata.name = "never"
        await here.create(never)
        await here.until(is_ready)
        await here.world.until(lambda: _is_running(here, "a", "a"))
        await here.clock.sleep(2)
        await here.stop()
        here.runtime.reboot()
        here.start()
        found = await here.until(lambda one: is_ready(one) and _restarts(one, "a") == 1)
        assert found.status.phase == "Running"
        assert await here.phase("never") == "Failed"
        await here.clock.sleep(5)
        assert here.running() == ["a"]

    run(tmp_path, story)


def test_sidecars_begin_first_and_end_last(tmp_path: Path) -> None:
    order: list[str] = []

    async def story(here: House) -> None:
        tell = here.runtime._tell

        def noted(container: Any, what: int) -> None:
            name = container.config.metadata.name
            if what == rt.CONTAINER_STARTED_EVENT:
                order.append(f"+{name}")
            elif what == rt.CONTAINER_STOPPED_EVENT:
                order.append(f"-{name}")
            tell(container, what)

        here.runtime._tell = noted  # type: ignore[method-assign, assignment]
        of = pod("a b", init="*s *t", policy="Never")
        for index in (0, 1):
            does(of, index, RUNS_SECONDS="5")
        await here.create(of)
        await here.until(is_ready)
        await here.until(lambda one: one is not None and one.status.phase == "Succeeded")

    run(tmp_path, story)
    assert order[:2] == ["+s", "+t"] and order[-2:] == ["-t", "-s"]
    assert sorted(order[2:4]) == ["+a", "+b"] and sorted(order[4:6]) == ["-a", "-b"]


# -- objects that pods name ------------------------------------------------------------------------


def config_map(**data: str) -> config_map_pb2.ConfigMap:
    """The ConfigMap "m"."""
    made = config_map_pb2.ConfigMap()
    made.metadata.name, made.metadata.namespace = "m", "default"
    made.data.update(data)
    return made


@pytest.mark.parametrize("how", ["env", "volume"])
def test_what_is_missing_is_waited_for(tmp_path: Path, how: str) -> None:
    async def story(here: House) -> None:
        of = pod()
        if how == "env":
            source = of.spec.containers[0].env_from.add().config_map_ref
            source.local_object_reference.name = "m"
        else:
            one = of.spec.volumes.add(name="v").volume_source
            one.config_map.local_object_reference.name = "m"
        await here.create(of)
        reason = "CreateContainerConfigError" if how == "env" else "ContainerCreating"
        await here.until(lambda one: _waits(one, reason))
        await here.clock.sleep(60)
        assert await here.phase() == "Pending"
        told = {reason: count for reason, _, count in await here.events()}
        assert told["Failed" if how == "env" else "FailedMount"] < 12
        await here.world.do(transaction.create(config_map(A="1")))
        await here.until(is_ready, 20)
        (made,) = here.runtime.containers.values()
        if how == "env":
            assert ("A", b"1") in [(one.key, one.value) for one in made.config.envs]

    run(tmp_path, story)


def test_volumes_follow_their_objects(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.world.do(transaction.create(config_map(A="1")))
        of = pod()
        source = of.spec.volumes.add(name="v").volume_source
        source.config_map.local_object_reference.name = "m"
        found = await here.create(of)
        await here.until(is_ready)
        place = volume.directory(tmp_path / "state", found.metadata.uid) / "volumes" / "v"
        assert (place / "A").read_text() == "1"
        live = await here.world.get(config_map_pb2.ConfigMap, "m", "default")
        assert live is not None
        await here.world.do(transaction.patch(live, config_map(A="2"), ["data"]))
        await here.clock.sleep(90)
        assert (place / "A").read_text() == "2"
        await here.restart()
        live = await here.world.get(config_map_pb2.ConfigMap, "m", "default")
        assert live is not None
        await here.world.do(transaction.patch(live, config_map(A="3"), ["data"]))
        await here.clock.sleep(90)
        assert (place / "A").read_text() == "3"
        assert sum(here.runtime.starts.values()) == 1
        # Without the API it stays, and so without the object.
        here.world.api.down = True
        await here.clock.sleep(90)
        here.world.api.down = False
        await here.world.do(transaction.delete(live))
        await here.clock.sleep(90)
        assert (place / "A").read_text() == "3"
        assert is_ready(await here.pod())

    run(tmp_path, story)


def test_who_fills_the_disk_is_evicted(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        of = pod()
        of.spec.volumes.add(name="v").volume_source.empty_dir.size_limit.string = "1Mi"
        found = await here.create(of)
        await here.until(is_ready)
        place = volume.directory(tmp_path / "state", found.metadata.uid) / "volumes" / "v"
        (place / "big").write_bytes(b"x" * (2 << 20))
        found = await here.until(lambda one: one is not None and one.status.phase == "Failed")
        assert (found.status.reason, found.status.message) == (
            "Evicted",
            'Usage of EmptyDir volume "v" exceeds the limit "1Mi".',
        )

    run(tmp_path, story)


def test_kernel_settings_that_are_not_the_pods_fail_it(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        of = pod()
        of.spec.security_context.sysctls.add(name="net.core.somaxconn", value="1")
        await here.create(of)
        found = await here.until(lambda one: one is not None and one.status.phase == "Failed")
        assert found.status.reason == "SysctlForbidden"
        assert not here.runtime.sandboxes

    run(tmp_path, story)


# -- others ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0.0, 0.05, 0.4])
def test_what_others_say_of_a_pod_is_kept(tmp_path: Path, lag: float) -> None:
    async def story(here: House) -> None:
        here.trouble.lag_seconds = lag
        of = pod()
        of.spec.readiness_gates.add(condition_type="example.com/gate")
        await here.create(of)
        for number in range(20):
            # In the middle of all that the kubelet says.
            await here.clock.sleep(0.013)
            live = await here.pod()
            assert live is not None
            status = pod_pb2.PodStatus()
            status.CopyFrom(live.status)
            del status.conditions[:]
            status.conditions.extend(
                one for one in live.status.conditions if not one.type.startswith("example.com")
            )
            status.conditions.add(type="example.com/gate", status="False", message=str(number))
            await here.world.do(transaction.status(live, status))
        await here.clock.sleep(60)
        found = await here.pod()
        assert found is not None
        kinds = {one.type: one for one in found.status.conditions}
        assert kinds["example.com/gate"].message == "19"
        assert kinds["Ready"].reason == "ReadinessGatesNotReady"
        assert kinds["ContainersReady"].status == "True"

    run(tmp_path, story)


def test_a_kubelet_that_hears_late_does_not_repeat_itself(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.trouble.lag_seconds = 3.0
        await here.create(does(pod(), RUNS_SECONDS="30"))
        seen: list[pod_pb2.PodStatus] = []

        async def watch() -> None:
            request = pb.WatchRequest(selections=[pb.Selection(kind=Pod.DESCRIPTOR.full_name)])
            async for response in here.world.admin.watch(request):
                seen.extend(Pod.FromString(event.object).status for event in response.events)

        watching = here.world.tasks.start(watch())
        await here.clock.sleep(120)
        watching.cancel()
        # Each change of a condition has one moment, and each status says something new.
        for kind in ("Ready", "Initialized", "PodReadyToStartContainers"):
            moments: list[tuple[str, int]] = []
            for status in seen:
                for one in status.conditions:
                    now = (one.status, one.last_transition_time.seconds)
                    if one.type == kind and (not moments or moments[-1] != now):
                        moments.append(now)
            changes = [status for status, _ in moments]
            assert all(a != b for a, b in itertools.pairwise(changes)), (kind, moments)
        assert len({status.start_time.seconds for status in seen if status.phase != ""}) <= 2
        assert len(seen) < 20

    run(tmp_path, story)


def test_strays_end_when_all_is_known_and_not_before(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.static = None
        await here.create(pod())
        here.start()
        await here.until(is_ready)
        await here.stop()
        await here.delete(grace_seconds=0)
        here.world.api.down = True
        here.start()
        await here.clock.sleep(30)
        # The API has not said whose they are.
        assert here.running() == ["a"]
        here.world.api.down = False
        await here.clock.sleep(30)
        # Nor has the directory of static pods.
        assert here.running() == ["a"]
        assert here.kubelet is not None
        here.kubelet.set_static({})
        await here.clock.sleep(10)
        assert here.is_clean()

    run(tmp_path, story, begun=False)


def test_a_container_to_look_at_others(tmp_path: Path) -> None:
    """It is added to a running pod, runs once, and ends with the pod."""

    async def story(here: House) -> None:
        before = await here.create(pod())
        await here.until(is_ready)
        wanted = Pod()
        added = wanted.spec.ephemeral_containers.add(target_container_name="a")
        one = added.ephemeral_container_common
        one.name, one.image = "x", "x:1"
        one.env.add(name="SIM_RUNS_SECONDS", value="5")
        mask = ["spec.ephemeralContainers"]
        door = "ephemeralcontainers"
        await here.world.do(transaction.patch(before, wanted, mask, subresource=door))
        await here.world.until(lambda: _is_running(here, "a", "x"))
        configs = {one.config.metadata.name: one for one in here.runtime.containers.values()}
        space = configs["x"].config.linux.security_context.namespace_options
        assert (space.pid, space.target_id) == (rt.TARGET, configs["a"].id)
        await here.world.until(lambda: _is_running(here, "a"))
        await here.restart()
        await here.clock.sleep(30)
        found = await here.pod()
        assert is_ready(found) and found is not None
        assert said(found.status)[1:3] == ["a+! x0 running", "x x0 Completed:0"]
        assert sorted(here.runtime.starts.values()) == [1, 1]
        await here.delete()
        await here.until(is_gone)
        await here.clock.sleep(1)
        assert here.is_clean()

    run(tmp_path, story)


def static_pod(name: str = "etcd-n1") -> Pod:
    """As a file says it."""
    made = pod()
    made.metadata.name, made.metadata.uid = name, f"uid-of-{name}"
    made.metadata.annotations["kubernetes.io/config.source"] = "file"
    made.spec.node_name = "n1"
    return made


def test_static_pods_need_no_api(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        here.world.api.down = True
        one = static_pod()
        here.static = {one.metadata.uid: one}
        here.start()
        await here.world.until(lambda: _is_running(here, "a"))
        await here.restart()
        await here.clock.sleep(10)
        assert list(here.runtime.starts.values()) == [1]
        # Another text is another pod; the old one ends though nobody can be told.
        two = static_pod("etcd-2-n1")
        assert here.kubelet is not None
        here.kubelet.set_static({two.metadata.uid: two})
        await here.clock.sleep(10)
        assert [uid for uid, _ in here.runtime.running_who()] == [two.metadata.uid]
        here.kubelet.set_static({})
        await here.clock.sleep(10)
        assert here.is_clean()
        # And back again.
        here.kubelet.set_static({one.metadata.uid: one})
        await here.world.until(lambda: _is_running(here, "a"))

    run(tmp_path, story, begun=False)


def test_a_static_pod_that_ends_leaves_its_namesake_alone(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        one = static_pod("web")
        await here.create(pod())
        await here.until(is_ready)
        assert here.kubelet is not None
        here.kubelet.set_static({one.metadata.uid: one})
        await here.world.until(lambda: _is_running(here, "a", "a"))
        here.kubelet.set_static({})
        await here.world.until(lambda: _is_running(here, "a"))
        await here.clock.sleep(5)
        assert is_ready(await here.pod())

    run(tmp_path, story)


def test_a_mirror_shows_a_static_pod(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        static = static_pod("web")
        mirror = pod()
        mirror.metadata.annotations["kubernetes.io/config.mirror"] = static.metadata.uid
        first = await here.create(mirror)
        assert here.kubelet is not None
        here.kubelet.set_static({static.metadata.uid: static})
        shown = await here.until(is_ready)
        assert shown.metadata.uid == first.metadata.uid
        # Nothing that is done to a mirror reaches what it shows.
        failed = pod_pb2.PodStatus()
        failed.CopyFrom(shown.status)
        failed.reason = "Evicted"
        await here.world.do(transaction.status(shown, failed))
        await here.delete(grace_seconds=0)
        await here.clock.sleep(5)
        assert here.running() == ["a"]
        # Whoever makes another one sees it shown again.
        await here.create(mirror)
        await here.until(is_ready)
        here.runtime.crash(here.runtime.running()[0], 1)
        await here.until(lambda one: is_ready(one) and _restarts(one, "a") == 1)

    run(tmp_path, story)


@pytest.mark.parametrize("call", ["run_pod_sandbox", "create_container"])
def test_a_name_that_stays_taken_is_left_for_the_next(tmp_path: Path, call: str) -> None:
    """By a call that was thought lost and never comes to an end."""

    async def story(here: House) -> None:
        real = getattr(here.runtime, call)

        async def refused(*args: Any) -> str:
            config = args[0] if call == "run_pod_sandbox" else args[1]
            if config.metadata.attempt < 2:
                said = f'name "{config.metadata.name}" is reserved for "x"'
                raise CriError(Code.UNKNOWN, said, call)
            found: str = await real(*args)
            return found

        setattr(here.runtime, call, refused)
        await here.create(pod())
        await here.until(is_ready)

    run(tmp_path, story)


def test_a_pod_that_nobody_understands_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = config_objects.fetch

    async def odd(api: Any, of: Pod) -> Any:
        if of.metadata.name == "odd-n1":
            raise RuntimeError("nobody has foreseen this")
        return await fetch(api, of)

    monkeypatch.setattr(config_objects, "fetch", odd)

    async def story(here: House) -> None:
        broken = static_pod()
        broken.spec.containers[0].resources.limits["memory"].string = "lots"
        hostile = static_pod()
        hostile.metadata.uid = "../../x"
        unforeseen = static_pod("odd-n1")
        here.static = {one.metadata.uid: one for one in (broken, hostile, unforeseen)}
        here.start()
        await here.create(pod())
        await here.until(is_ready)
        await here.clock.sleep(20)
        assert is_ready(await here.pod())
        assert [one.name for one in tmp_path.iterdir()] != ["x"]

    run(tmp_path, story, begun=False)


def test_nothing_ends_because_a_server_forgot_it(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(pod())
        await here.until(is_ready)
        await here.clock.sleep(5)
        # The same cluster, with less of a past than this node has seen.
        async with house.world() as other:
            for restarted in (False, True):
                await here.stop()
                here.api = other.api
                here.start()
                await here.clock.sleep(30)
                assert here.running() == ["a"], restarted
            other.tasks.cancel()
        here.api = None
        await here.restart()
        await here.clock.sleep(30)
        assert is_ready(await here.pod()) and list(here.runtime.starts.values()) == [1]

    run(tmp_path, story)


def test_a_new_sandbox_has_a_new_address_everywhere(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        await here.create(pod())
        first = await here.until(is_ready)
        (box,) = here.runtime.sandboxes.values()
        box.ready = False
        second = await here.until(lambda one: is_ready(one) and _restarts(one, "a") == 1)
        assert second.status.pod_ip != first.status.pod_ip
        (file,) = tmp_path.glob("state/pods/*/etc-hosts")
        assert f"{second.status.pod_ip}\tweb\n" in file.read_text()
        assert first.status.pod_ip not in file.read_text()

    run(tmp_path, story)


def test_who_is_held_by_others_is_ended_once(tmp_path: Path) -> None:
    """A finalizer keeps the object, and how it ended, after its pod is gone from the node."""

    async def story(here: House) -> None:
        of = pod()
        of.metadata.finalizers.append("example.com/held")
        await here.create(of)
        await here.until(is_ready)
        await here.delete()
        await here.world.until(lambda: _is_clean(here))
        commits = here.world.api.commits
        for number in range(3):
            live = await here.pod()
            assert live is not None
            assert said(live.status)[:2] == ["Failed", "a x0 Error:143"]
            live.metadata.labels["number"] = str(number)
            await here.world.do(transaction.patch(live, live, ["metadata.labels"]))
            await here.clock.sleep(2)
        assert here.world.api.commits == commits
        # Another kubelet has never heard of it.
        await here.restart()
        await here.clock.sleep(5)
        live = await here.pod()
        assert live is not None
        assert said(live.status)[:2] == ["Failed", "a x0 Error:143"]
        bare = Pod()
        await here.world.do(transaction.patch(live, bare, ["metadata.finalizers"]))
        await here.until(is_gone)
        await here.clock.sleep(5)
        assert here.is_clean()

    run(tmp_path, story)


def test_who_never_ran_has_failed_in_the_end(tmp_path: Path) -> None:
    """Whoever holds its object, to count how it ended, learns that it did."""

    async def story(here: House) -> None:
        here.runtime.missing = frozenset(["missing:1"])
        of = pod()
        of.spec.containers[0].image = "missing:1"
        of.metadata.finalizers.append("example.com/held")
        await here.create(of)
        await here.clock.sleep(5)
        assert await here.phase() == "Pending"
        await here.delete()
        await here.world.until(lambda: _is_clean(here))
        assert await here.phase() == "Failed"

    run(tmp_path, story)


def test_disks_are_swept(tmp_path: Path) -> None:
    async def story(here: House) -> None:
        left = volume.directory(tmp_path / "state", "gone") / "volumes" / "v"
        left.mkdir(parents=True)
        (tmp_path / "logs" / "default_web_gone").mkdir(parents=True)
        (tmp_path / "logs" / "default_web_another").mkdir()
        await here.clock.sleep(5)
        assert not left.parent.parent.exists()
        assert [one.name for one in (tmp_path / "logs").iterdir()] == ["default_web_another"]

    run(tmp_path, story)


# -- faults ----------------------------------------------------------------------------------------


async def _life_and_death(here: House) -> None:
    """A pod with an init container comes, runs and goes; nothing runs twice."""
    of = pod("a b", init="i")
    of.spec.init_containers[0].env.add(name="SIM_RUNS_SECONDS", value="0.2")
    await here.create(of)
    found = await here.until(is_ready, 120)
    await here.clock.sleep(2)
    assert set(here.runtime.starts.values()) == {1}, here.runtime.starts
    assert here.running() == ["a", "b"]
    assert all(
        one.restart_count == 0
        for one in (*found.status.init_container_statuses, *found.status.container_statuses)
    )
    watching = here.world.tasks.start(here.last_seen())
    await here.clock.sleep(0.1)
    await here.delete(grace_seconds=5)
    await here.until(is_gone, 120)
    # How it ended is known to the API before the runtime forgets it.
    assert said((await watching).status)[:4] == [
        "Failed",
        "i+ x0 Completed:0",
        "a x0 Error:143",
        "b x0 Error:143",
    ]
    await here.world.until(lambda: _is_clean(here), 120)
    assert set(here.runtime.starts.values()) == {1}


async def _is_clean(here: House) -> bool:
    return here.is_clean()


async def _keep_alive(here: House) -> None:
    """Starts a kubelet again whenever it has died."""
    while True:
        life = here._life
        assert life is not None
        await asyncio.wait([life])
        here._life = None
        await here.clock.sleep(0.7)
        here.start()


def _count_steps(tmp_path: Path) -> int:
    found: list[int] = []

    async def story(here: House) -> None:
        await _life_and_death(here)
        found.append(here.trouble.steps)

    run(tmp_path, story)
    return found[0]


@pytest.mark.parametrize("what", ["dies_at", "loses_at"])
def test_a_kubelet_may_die_and_answers_may_be_lost_at_any_step(tmp_path: Path, what: str) -> None:
    steps = _count_steps(tmp_path / "whole")
    assert steps > 100
    happened: list[bool] = []
    for step in range(1, steps, budget.SPREAD * (1 if what == "dies_at" else 2)):

        async def story(here: House, step: int = step) -> None:
            setattr(here.trouble, what, step)
            keeper = here.world.tasks.start(_keep_alive(here))
            try:
                await _life_and_death(here)
            except AssertionError as error:
                raise AssertionError(f"{what} {step}: {error}") from error
            finally:
                keeper.cancel()
            # Even steps are those after a call, unless several go on at once.
            assert getattr(here.trouble, what) == 0 or what == "loses_at"
            happened.append(getattr(here.trouble, what) == 0)

        run(tmp_path / str(step), story)
    assert sum(happened) > steps // (5 * budget.SPREAD)
