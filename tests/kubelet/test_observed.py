"""What is read off the runtime, and what is not believed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.clock import LoopClock
from kcore.kubelet import cri, observed
from kcore.sim import loop
from kcore.sim.runtime import Runtime
from kcore.tasks import Tasks

UID = "u1"
LABELS = {
    observed.POD_UID: UID,
    observed.POD_NAME: "web",
    observed.POD_NAMESPACE: "default",
}
SANDBOX = pb.PodSandboxConfig(
    metadata=pb.PodSandboxMetadata(name="web", namespace="default", uid=UID), labels=LABELS
)


class Counting(Runtime):
    """A runtime of which some containers can't be asked about."""

    asked = 0
    error: cri.CriError | None = None

    async def container_status(self, container_id: str) -> pb.ContainerStatus:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return await super().container_status(container_id)


async def container(runtime: Runtime, sandbox: str, attempt: int, **environment: str) -> str:
    """One more container."""
    config = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name="a", attempt=attempt),
        image=pb.ImageSpec(image="x:1"),
        envs=[pb.KeyValue(key=key, value=value.encode()) for key, value in environment.items()],
        labels=LABELS | {observed.CONTAINER_NAME: "a"},
        annotations={observed.HASH: "h", observed.DELAY: "20"},
    )
    await runtime.pull_image(config.image)
    made = await runtime.create_container(sandbox, config, SANDBOX)
    await runtime.start_container(made)
    return made


def run(work: Callable[[Counting, observed.Reader], Awaitable[None]]) -> None:
    """In virtual time."""

    async def main() -> None:
        runtime = Counting(LoopClock(), Chance(1))
        async with Tasks() as tasks:
            tasks.start(runtime.run())
            await asyncio.sleep(0)
            await work(runtime, observed.Reader(runtime))
            tasks.cancel()

    loop.run(main())


def test_what_does_not_change_is_asked_for_once() -> None:
    async def work(runtime: Counting, reader: observed.Reader) -> None:
        sandbox = await runtime.run_pod_sandbox(SANDBOX)
        await container(runtime, sandbox, 0, SIM_RUNS_SECONDS="1", SIM_EXIT_CODE="3")
        running = await container(runtime, sandbox, 1)
        await asyncio.sleep(2)
        for _ in range(3):
            found = (await reader.list_all())[UID]
            assert await reader.list_pod(UID) == found
        assert runtime.asked == 2
        assert [(one.attempt, one.state, one.exit_code) for one in found.containers] == [
            (1, "running", 0),
            (0, "exited", 3),
        ]
        newest, before = found.newest("a"), found.before("a")
        assert newest is not None and before is not None
        assert (newest.id, newest.hash, newest.delay) == (running, "h", 20.0)
        assert 0.9 < before.finished_at - before.started_at < 1.1
        assert found.running == (newest,)
        assert found.sandboxes[0].addresses
        assert reader.names == {UID: ("web", "default")}
        assert await reader.list_pod("other") == observed.NOTHING

    run(work)


@pytest.mark.parametrize("lenient", [True, False])
def test_nobody_ended_well_because_he_is_gone(lenient: bool) -> None:
    async def work(runtime: Counting, reader: observed.Reader) -> None:
        sandbox = await runtime.run_pod_sandbox(SANDBOX)
        await container(runtime, sandbox, 0, SIM_RUNS_SECONDS="1", SIM_EXIT_CODE="3")
        await asyncio.sleep(2)

        async def look() -> Any:
            return (await reader.list_all())[UID] if lenient else await reader.list_pod(UID)

        # It is removed while we look: then it is not there.
        runtime.error = cri.CriError(cri.Code.NOT_FOUND, "gone", "ContainerStatus")
        assert (await look()).containers == ()
        # It can't be read: one look at all does not fail for that, and claims nothing.
        runtime.error = cri.CriError(cri.Code.UNKNOWN, "broken", "ContainerStatus")
        if lenient:
            assert [one.state for one in (await look()).containers] == ["unknown"]
        else:
            with pytest.raises(cri.CriError):
                await look()
        runtime.error = None
        assert [one.exit_code for one in (await look()).containers] == [3]

    run(work)
