"""The CRI made of data behaves as a runtime does."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.clock import LoopClock
from kcore.kubelet.cri import Code, CriError
from kcore.sim import loop
from kcore.sim.runtime import Runtime
from kcore.tasks import Tasks

SANDBOX = pb.PodSandboxConfig(
    metadata=pb.PodSandboxMetadata(name="web", namespace="default", uid="u1")
)


def _container(**environment: str) -> pb.ContainerConfig:
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name="a"),
        image=pb.ImageSpec(image="x:1"),
        envs=[pb.KeyValue(key=key, value=value.encode()) for key, value in environment.items()],
        labels={"app": "web"},
    )


def _in_a_runtime(work: Callable[[Runtime], Awaitable[None]]) -> None:
    async def main() -> None:
        runtime = Runtime(LoopClock(), Chance(1))
        async with Tasks() as tasks:
            tasks.start(runtime.run())
            await asyncio.sleep(0)
            await work(runtime)
            tasks.cancel()

    loop.run(main())


async def _started(runtime: Runtime, config: pb.ContainerConfig) -> str:
    sandbox = await runtime.run_pod_sandbox(SANDBOX)
    await runtime.pull_image(config.image)
    container = await runtime.create_container(sandbox, config, SANDBOX)
    await runtime.start_container(container)
    return container


def test_a_container_ends_by_itself_and_says_so() -> None:
    async def work(runtime: Runtime) -> None:
        seen: list[pb.ContainerEventResponse] = []

        async def listen() -> None:
            async for event in runtime.events():
                seen.append(event)

        async with Tasks() as tasks:
            tasks.start(listen())
            await asyncio.sleep(0)
            config = _container(SIM_RUNS_SECONDS="60", SIM_EXIT_CODE="3")
            container = await _started(runtime, config)
            assert runtime.running() == [container]
            await asyncio.sleep(61)
            status = await runtime.container_status(container)
            assert status.state == pb.CONTAINER_EXITED
            assert (status.exit_code, status.reason) == (3, "Error")
            assert 59 < (status.finished_at - status.started_at) / 1e9 < 61
            tasks.cancel()
        assert [event.container_event_type for event in seen] == [
            pb.CONTAINER_CREATED_EVENT,
            pb.CONTAINER_STARTED_EVENT,
            pb.CONTAINER_STOPPED_EVENT,
        ]
        assert seen[2].containers_statuses[0].exit_code == 3

    _in_a_runtime(work)


@pytest.mark.parametrize(
    ("environment", "exit_code", "least", "most"),
    [({}, 143, 0.0, 1.0), ({"SIM_IGNORES_TERM": "1"}, 137, 30.0, 31.0)],
)
def test_stopping_waits_for_the_end(
    environment: dict[str, str], exit_code: int, least: float, most: float
) -> None:
    async def work(runtime: Runtime) -> None:
        container = await _started(runtime, _container(**environment))
        began = LoopClock().monotonic()
        await runtime.stop_container(container, 30)
        assert least <= LoopClock().monotonic() - began <= most
        assert (await runtime.container_status(container)).exit_code == exit_code
        await runtime.stop_container(container, 30)
        await runtime.remove_container(container)
        assert await runtime.list_containers() == []

    _in_a_runtime(work)


def test_names_are_reserved_and_images_needed() -> None:
    async def work(runtime: Runtime) -> None:
        sandbox = await runtime.run_pod_sandbox(SANDBOX)
        with pytest.raises(CriError) as error:
            await runtime.run_pod_sandbox(SANDBOX)
        assert error.value.code == Code.ALREADY_EXISTS
        with pytest.raises(CriError) as error:
            await runtime.create_container(sandbox, _container(), SANDBOX)
        assert error.value.code == Code.NOT_FOUND
        runtime.missing = frozenset(["x:1"])
        with pytest.raises(CriError) as error:
            await runtime.pull_image(pb.ImageSpec(image="x:1"))
        assert error.value.code == Code.NOT_FOUND

    _in_a_runtime(work)


def test_a_reboot_ends_all_and_forgets_nothing() -> None:
    async def work(runtime: Runtime) -> None:
        container = await _started(runtime, _container())
        runtime.reboot()
        assert (await runtime.container_status(container)).exit_code == 255
        (sandbox,) = await runtime.list_pod_sandboxes()
        assert sandbox.state == pb.SANDBOX_NOTREADY
        await runtime.remove_pod_sandbox(sandbox.id)
        assert await runtime.list_pod_sandboxes() == []
        assert await runtime.list_containers({"app": "web"}) == []

    _in_a_runtime(work)
