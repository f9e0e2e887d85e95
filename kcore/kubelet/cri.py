"""The one door to a container runtime: CRI over a Unix socket.

`Runtime` is what the kubelet uses; `Cri` is the real one, a simulation brings another. Use as
`async with Cri("unix:///run/…/containerd.sock") as runtime: await runtime.version()`.

Every call has a time limit, every failure is a `CriError`. Stopping or removing what is not there
succeeds, so each step of the kubelet may be repeated. `DEADLINE_EXCEEDED` and `UNAVAILABLE` are
unknown outcomes: look before trying again.

It must not know which runtime is at the other end, nor what a pod is.
"""

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf import message, message_factory
from kcore_api.runtime.v1 import api_pb2 as pb

Code = grpc.StatusCode
Answer = TypeVar("Answer", bound=message.Message)

# Seconds that a call may take, where DEFAULT_SECONDS is not right. A sandbox waits for its network,
# a pull for somebody else's network.
DEFAULT_SECONDS = 20.0
SECONDS = {
    "RunPodSandbox": 240.0,
    "StopPodSandbox": 120.0,
    "RemovePodSandbox": 120.0,
    "CreateContainer": 120.0,
    "StartContainer": 120.0,
    "RemoveContainer": 120.0,
    "PullImage": 1800.0,
}
# On top of the grace or limit that the caller gave.
SLACK_SECONDS = 30.0
# What ExecSync may print; runtimes cap it at 16 MB themselves.
MESSAGE_BYTES = 32 * 1024 * 1024


class CriError(Exception):
    """A call to the runtime failed: `code` says how, `call` which, `message` in its own words."""

    def __init__(self, code: grpc.StatusCode, message: str, call: str) -> None:
        """`call` is the rpc's name, such as `StartContainer`."""
        super().__init__(f"{call}: {code.name}: {message}")
        self.code = code
        self.message = message
        self.call = call


class Runtime(Protocol):
    """What the kubelet asks of whatever runs containers. All raise `CriError`."""

    async def version(self) -> pb.VersionResponse:
        """Name and version of the runtime."""
        ...

    async def status(self) -> pb.StatusResponse:
        """Conditions RuntimeReady and NetworkReady, and the handlers there are."""
        ...

    async def cgroup_driver(self) -> "pb.CgroupDriver | None":
        """Who makes cgroups; None when the runtime cannot say."""
        ...

    async def run_pod_sandbox(self, config: pb.PodSandboxConfig, handler: str = "") -> str:
        """Makes a sandbox and starts it; answers its id."""
        ...

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Ends all in the sandbox and gives back its network."""
        ...

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Removes the sandbox and its containers."""
        ...

    async def pod_sandbox_status(self, sandbox_id: str) -> pb.PodSandboxStatus:
        """State and addresses of a sandbox."""
        ...

    async def list_pod_sandboxes(
        self, labels: Mapping[str, str] | None = None
    ) -> list[pb.PodSandbox]:
        """All sandboxes, dead ones too."""
        ...

    async def create_container(
        self, sandbox_id: str, config: pb.ContainerConfig, sandbox: pb.PodSandboxConfig
    ) -> str:
        """Makes a container; answers its id."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Starts a created container."""
        ...

    async def stop_container(self, container_id: str, grace_seconds: int) -> None:
        """Stop signal, then SIGKILL after the grace. Returns when the container has ended."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Removes a container, running or not."""
        ...

    async def list_containers(
        self, labels: Mapping[str, str] | None = None, sandbox_id: str = ""
    ) -> list[pb.Container]:
        """All containers, in every state."""
        ...

    async def container_status(self, container_id: str) -> pb.ContainerStatus:
        """State, times and exit code."""
        ...

    async def update_container_resources(
        self, container_id: str, resources: pb.LinuxContainerResources
    ) -> None:
        """Changes limits while it runs."""
        ...

    async def reopen_container_log(self, container_id: str) -> None:
        """Opens the log anew after it was moved."""
        ...

    async def exec_sync(
        self, container_id: str, command: Sequence[str], limit_seconds: int
    ) -> pb.ExecSyncResponse:
        """Runs a command to its end; DEADLINE_EXCEEDED when it took longer. 0: no limit."""
        ...

    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> str:
        """A URL to run a command at, once: see `streaming.command`."""
        ...

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> str:
        """A URL to the container's own streams: see `streaming.command`."""
        ...

    async def port_forward(self, sandbox_id: str, port: int) -> str:
        """A URL to a port in the sandbox: see `streaming.port`."""
        ...

    async def container_stats(self, container_id: str) -> pb.ContainerStats:
        """What a container uses."""
        ...

    async def list_container_stats(
        self, labels: Mapping[str, str] | None = None
    ) -> list[pb.ContainerStats]:
        """What containers use."""
        ...

    def events(self) -> AsyncIterator[pb.ContainerEventResponse]:
        """Events as they come. UNIMPLEMENTED by older runtimes: then list now and again."""
        ...

    async def list_images(self) -> list[pb.Image]:
        """Images on this node."""
        ...

    async def image_status(self, image: pb.ImageSpec) -> pb.Image | None:
        """The image, if it is on this node."""
        ...

    async def pull_image(
        self,
        image: pb.ImageSpec,
        auth: pb.AuthConfig | None = None,
        sandbox: pb.PodSandboxConfig | None = None,
    ) -> str:
        """Fetches an image; answers the reference to run it by."""
        ...

    async def remove_image(self, image: pb.ImageSpec) -> None:
        """Removes an image."""
        ...

    async def image_fs_info(self) -> list[pb.FilesystemUsage]:
        """What images take on disk."""
        ...


class Cri:
    """A runtime behind an endpoint such as `unix:///run/kcore/containerd/containerd.sock`."""

    def __init__(self, endpoint: str) -> None:
        """Nothing is dialled before the first call. A bare path is a Unix socket, too."""
        self.endpoint = endpoint if "://" in endpoint else f"unix://{endpoint}"
        # A socket's path as :authority is refused by Go's servers. Runtimes restart: dial again
        # quickly, and never through a proxy.
        self._channel = grpc.aio.insecure_channel(
            self.endpoint,
            options=[
                ("grpc.default_authority", "localhost"),
                ("grpc.enable_http_proxy", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2000),
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ],
        )
        self._calls: dict[str, Callable[..., Any]] = {}
        for service in pb.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                request = message_factory.GetMessageClass(method.input_type)
                answer = message_factory.GetMessageClass(method.output_type)
                kind = (
                    self._channel.unary_stream
                    if method.server_streaming
                    else self._channel.unary_unary
                )
                self._calls[method.name] = kind(
                    f"/{service.full_name}/{method.name}",
                    request_serializer=request.SerializeToString,
                    response_deserializer=answer.FromString,
                )

    async def __aenter__(self) -> "Cri":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all calls."""
        await self._channel.close()

    async def _call(
        self,
        name: str,
        request: message.Message,
        answer: type[Answer],
        *,
        seconds: float | None = None,
        missing_is_done: bool = False,
    ) -> Answer:
        limit = SECONDS.get(name, DEFAULT_SECONDS) if seconds is None else seconds
        try:
            timeout = limit if limit < math.inf else None
            return cast(Answer, await self._calls[name](request, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            if missing_is_done and error.code() == Code.NOT_FOUND:
                return answer()
            raise CriError(error.code(), error.details() or "", name) from error

    async def version(self) -> pb.VersionResponse:
        """Name and version of the runtime."""
        return await self._call("Version", pb.VersionRequest(), pb.VersionResponse)

    async def status(self) -> pb.StatusResponse:
        """Conditions RuntimeReady and NetworkReady, and the handlers there are."""
        return await self._call("Status", pb.StatusRequest(), pb.StatusResponse)

    async def cgroup_driver(self) -> "pb.CgroupDriver | None":
        """Who makes cgroups; None when the runtime cannot say."""
        try:
            answer = await self._call(
                "RuntimeConfig", pb.RuntimeConfigRequest(), pb.RuntimeConfigResponse
            )
        except CriError as error:
            if error.code == Code.UNIMPLEMENTED:
                return None
            raise
        return answer.linux.cgroup_driver if answer.HasField("linux") else None

    async def run_pod_sandbox(self, config: pb.PodSandboxConfig, handler: str = "") -> str:
        """Makes a sandbox and starts it; answers its id."""
        request = pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
        answer = await self._call("RunPodSandbox", request, pb.RunPodSandboxResponse)
        return answer.pod_sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Ends all in the sandbox and gives back its network."""
        request = pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._call("StopPodSandbox", request, pb.StopPodSandboxResponse, missing_is_done=True)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Removes the sandbox and its containers."""
        request = pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._call(
            "RemovePodSandbox", request, pb.RemovePodSandboxResponse, missing_is_done=True
        )

    async def pod_sandbox_status(self, sandbox_id: str) -> pb.PodSandboxStatus:
        """State and addresses of a sandbox."""
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        answer = await self._call("PodSandboxStatus", request, pb.PodSandboxStatusResponse)
        return answer.status

    async def list_pod_sandboxes(
        self, labels: Mapping[str, str] | None = None
    ) -> list[pb.PodSandbox]:
        """All sandboxes, dead ones too."""
        request = pb.ListPodSandboxRequest()
        if labels:
            request.filter.label_selector.update(labels)
        answer = await self._call("ListPodSandbox", request, pb.ListPodSandboxResponse)
        return list(answer.items)

    async def create_container(
        self, sandbox_id: str, config: pb.ContainerConfig, sandbox: pb.PodSandboxConfig
    ) -> str:
        """Makes a container; answers its id."""
        request = pb.CreateContainerRequest(
            pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox
        )
        answer = await self._call("CreateContainer", request, pb.CreateContainerResponse)
        return answer.container_id

    async def start_container(self, container_id: str) -> None:
        """Starts a created container."""
        request = pb.StartContainerRequest(container_id=container_id)
        await self._call("StartContainer", request, pb.StartContainerResponse)

    async def stop_container(self, container_id: str, grace_seconds: int) -> None:
        """Stop signal, then SIGKILL after the grace. Returns when the container has ended."""
        request = pb.StopContainerRequest(container_id=container_id, timeout=grace_seconds)
        await self._call(
            "StopContainer",
            request,
            pb.StopContainerResponse,
            seconds=grace_seconds + SLACK_SECONDS,
            missing_is_done=True,
        )

    async def remove_container(self, container_id: str) -> None:
        """Removes a container, running or not."""
        request = pb.RemoveContainerRequest(container_id=container_id)
        await self._call(
            "RemoveContainer", request, pb.RemoveContainerResponse, missing_is_done=True
        )

    async def list_containers(
        self, labels: Mapping[str, str] | None = None, sandbox_id: str = ""
    ) -> list[pb.Container]:
        """All containers, in every state."""
        request = pb.ListContainersRequest()
        request.filter.pod_sandbox_id = sandbox_id
        if labels:
            request.filter.label_selector.update(labels)
        answer = await self._call("ListContainers", request, pb.ListContainersResponse)
        return list(answer.containers)

    async def container_status(self, container_id: str) -> pb.ContainerStatus:
        """State, times and exit code."""
        request = pb.ContainerStatusRequest(container_id=container_id)
        answer = await self._call("ContainerStatus", request, pb.ContainerStatusResponse)
        return answer.status

    async def update_container_resources(
        self, container_id: str, resources: pb.LinuxContainerResources
    ) -> None:
        """Changes limits while it runs."""
        request = pb.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
        await self._call("UpdateContainerResources", request, pb.UpdateContainerResourcesResponse)

    async def reopen_container_log(self, container_id: str) -> None:
        """Opens the log anew after it was moved."""
        request = pb.ReopenContainerLogRequest(container_id=container_id)
        await self._call("ReopenContainerLog", request, pb.ReopenContainerLogResponse)

    async def exec_sync(
        self, container_id: str, command: Sequence[str], limit_seconds: int
    ) -> pb.ExecSyncResponse:
        """Runs a command to its end; DEADLINE_EXCEEDED when it took longer. 0: no limit."""
        request = pb.ExecSyncRequest(container_id=container_id, cmd=command, timeout=limit_seconds)
        try:
            return await self._call(
                "ExecSync",
                request,
                pb.ExecSyncResponse,
                seconds=limit_seconds + SLACK_SECONDS if limit_seconds else math.inf,
            )
        except CriError as error:
            # Older runtimes say in words only that the command was killed for taking too long.
            if error.code == Code.UNKNOWN and "timeout" in error.message and limit_seconds:
                raise CriError(Code.DEADLINE_EXCEEDED, error.message, error.call) from error
            raise

    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> str:
        """A URL to run a command at, once: see `streaming.command`."""
        request = pb.ExecRequest(
            container_id=container_id,
            cmd=command,
            tty=tty,
            stdin=stdin,
            stdout=True,
            stderr=not tty,
        )
        return (await self._call("Exec", request, pb.ExecResponse)).url

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> str:
        """A URL to the container's own streams: see `streaming.command`."""
        request = pb.AttachRequest(
            container_id=container_id, stdin=stdin, tty=tty, stdout=True, stderr=not tty
        )
        return (await self._call("Attach", request, pb.AttachResponse)).url

    async def port_forward(self, sandbox_id: str, port: int) -> str:
        """A URL to a port in the sandbox: see `streaming.port`."""
        request = pb.PortForwardRequest(pod_sandbox_id=sandbox_id, port=[port])
        return (await self._call("PortForward", request, pb.PortForwardResponse)).url

    async def container_stats(self, container_id: str) -> pb.ContainerStats:
        """What a container uses."""
        request = pb.ContainerStatsRequest(container_id=container_id)
        return (await self._call("ContainerStats", request, pb.ContainerStatsResponse)).stats

    async def list_container_stats(
        self, labels: Mapping[str, str] | None = None
    ) -> list[pb.ContainerStats]:
        """What containers use."""
        request = pb.ListContainerStatsRequest()
        if labels:
            request.filter.label_selector.update(labels)
        answer = await self._call("ListContainerStats", request, pb.ListContainerStatsResponse)
        return list(answer.stats)

    async def events(self) -> AsyncIterator[pb.ContainerEventResponse]:
        """Events as they come. UNIMPLEMENTED by older runtimes: then list now and again."""
        try:
            async for event in self._calls["GetContainerEvents"](pb.GetEventsRequest()):
                yield event
        except grpc.aio.AioRpcError as error:
            raise CriError(error.code(), error.details() or "", "GetContainerEvents") from error

    async def list_images(self) -> list[pb.Image]:
        """Images on this node."""
        answer = await self._call("ListImages", pb.ListImagesRequest(), pb.ListImagesResponse)
        return list(answer.images)

    async def image_status(self, image: pb.ImageSpec) -> pb.Image | None:
        """The image, if it is on this node."""
        request = pb.ImageStatusRequest(image=image)
        answer = await self._call(
            "ImageStatus", request, pb.ImageStatusResponse, missing_is_done=True
        )
        return answer.image if answer.HasField("image") else None

    async def pull_image(
        self,
        image: pb.ImageSpec,
        auth: pb.AuthConfig | None = None,
        sandbox: pb.PodSandboxConfig | None = None,
    ) -> str:
        """Fetches an image; answers the reference to run it by."""
        request = pb.PullImageRequest(image=image, auth=auth, sandbox_config=sandbox)
        return (await self._call("PullImage", request, pb.PullImageResponse)).image_ref

    async def remove_image(self, image: pb.ImageSpec) -> None:
        """Removes an image."""
        request = pb.RemoveImageRequest(image=image)
        await self._call("RemoveImage", request, pb.RemoveImageResponse, missing_is_done=True)

    async def image_fs_info(self) -> list[pb.FilesystemUsage]:
        """What images take on disk."""
        answer = await self._call("ImageFsInfo", pb.ImageFsInfoRequest(), pb.ImageFsInfoResponse)
        return list(answer.image_filesystems)
