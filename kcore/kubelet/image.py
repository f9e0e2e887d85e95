"""The images of one pod's containers: there, being pulled, or not to be had for now.

`get` answers at once; what is not there is pulled beside everything else, and `wake` says when that
has come to an end. A pull that fails is tried again after 10, 20, 40 … 300 s.
"""

import asyncio
from collections.abc import Callable

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import credentials, cri, launch, sync
from kcore.wire.errors import ApiError


class Images:
    """What one worker knows of its images."""

    def __init__(self, node: launch.Node, memory: sync.Memory, wake: Callable[[], None]) -> None:
        """`memory` learns which containers wait for a pull, and why one failed."""
        self._node = node
        self._memory = memory
        self._wake = wake
        # Container -> image that was pulled for its next start.
        self._pulled: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def get(self, pod: pod_pb2.Pod, spec: container_pb2.Container) -> pb.Image | None:
        """The container's image; None: it is being pulled. Raises launch.Failure."""
        node = self._node
        wanted = pb.ImageSpec(image=spec.image, user_specified_image=spec.image)
        there = await node.runtime.image_status(wanted)
        fresh = self._pulled.pop(spec.name, None) == spec.image
        if there is not None and fresh:
            return there
        if there is None and spec.image_pull_policy == "Never":
            said = f'Container image "{spec.image}" is not present with pull policy of Never'
            raise launch.Failure("ErrImageNeverPull", said, "ErrImageNeverPull")
        if there is not None and spec.image_pull_policy != "Always":
            said = f'Container image "{spec.image}" already present on machine'
            node.event(pod, "Normal", "Pulled", said)
            return there
        if fresh:
            said = f'image "{spec.image}" was pulled, but the runtime does not have it'
            raise launch.Failure("ErrImagePull", said, "Failed")
        self._memory.pulling.add(spec.name)
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(node.tasks.start(self._pull(pod, spec, wanted), f"pull {spec.image}"))
        return None

    def close(self) -> None:
        """Nobody waits any more."""
        for task in self._tasks:
            task.cancel()

    async def _pull(
        self, pod: pod_pb2.Pod, spec: container_pb2.Container, wanted: pb.ImageSpec
    ) -> None:
        node, name = self._node, spec.image
        try:
            async with node.pulls:
                node.event(pod, "Normal", "Pulling", f'Pulling image "{name}"')
                await node.runtime.pull_image(wanted, await self._credentials(pod, name))
        except (cri.CriError, ApiError) as error:
            self._failed(pod, spec, error.message)
        else:
            self._pulled[spec.name] = name
            self._memory.problems.pop(spec.name, None)
            node.event(pod, "Normal", "Pulled", f'Successfully pulled image "{name}"')
        finally:
            self._memory.pulling.discard(spec.name)
            self._wake()

    async def _credentials(self, pod: pod_pb2.Pod, name: str) -> pb.AuthConfig | None:
        if not pod.spec.image_pull_secrets:
            return None
        named = await self._node.named(pod)
        there = [one.name for one in pod.spec.image_pull_secrets if one.name in named.secrets]
        return credentials.find(name, (named.secrets[each] for each in there))

    def _failed(self, pod: pod_pb2.Pod, spec: container_pb2.Container, why: str) -> None:
        node, name = self._node, spec.image
        said = f'Failed to pull image "{name}": {why}'
        node.event(pod, "Warning", "Failed", said)
        before = self._memory.problems.get(spec.name)
        if "invalid reference format" in why:
            reason, message = "InvalidImageName", why
        elif before is not None and before.reason in sync.PULLS:
            reason, message = (
                "ImagePullBackOff",
                f'Back-off pulling image "{name}": {why}',
            )
            node.event(pod, "Normal", "BackOff", f'Back-off pulling image "{name}"')
        else:
            reason, message = "ErrImagePull", why
            node.event(pod, "Warning", "Failed", "Error: ErrImagePull")
        self._memory.problems[spec.name] = sync.problem(
            before, reason, message, node.clock.monotonic()
        )
