"""Streams to pods for one caller: permission, which pod, which container, then the broker.

`Streams` is both PodStreams and NodeLink of kcore/client/streams.py, in process; the gRPC face
holds one for each call. Running a command asks for "create" on pods/exec, and so on; a kubelet's
link for "create" on nodes/link of its own node. It must not know how frames travel.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from kcore_api.kcore.api.v1 import node_pb2
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.apiserver import authorize
from kcore.apiserver.broker import Broker
from kcore.apiserver.session import Session
from kcore.wire.errors import ApiError, Reason, Violation

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_OVER = ("Succeeded", "Failed")


class Streams:
    """One caller's streams."""

    def __init__(self, session: Session, broker: Broker) -> None:
        """`session` says who calls and what they may."""
        self._session = session
        self._broker = broker

    async def logs(self, request: ps.LogsRequest) -> AsyncGenerator[ps.LogsResponse, None]:
        """A container's log."""
        pod, permit = self._pod("get", "log", request.target)
        wanted = node_pb2.OpenSession()
        wanted.open.logs.CopyFrom(request)
        _settle(wanted.open.logs.target, pod)
        async with aclosing(self._frames(pod, wanted, _nothing(), "logs", permit)) as frames:
            async for frame in frames:
                yield frame.logs

    async def exec(
        self, requests: AsyncIterator[ps.ExecRequest]
    ) -> AsyncGenerator[ps.ExecResponse, None]:
        """Runs a command."""
        opening = (await _opening(requests)).open
        pod, permit = self._pod("create", "exec", opening.target)
        _check_runs(pod, "exec into")
        if not opening.command:
            raise _invalid("open.command", "says nothing to run")
        wanted = node_pb2.OpenSession()
        wanted.open.exec.CopyFrom(opening)
        _settle(wanted.open.exec.target, pod)

        async def down() -> AsyncGenerator[node_pb2.SessionResponse, None]:
            closed = not opening.stdin
            async for request in requests:
                _check_further(request)
                closed = closed or request.stdin_closed
                yield node_pb2.SessionResponse(exec=request)
            if not closed:
                yield node_pb2.SessionResponse(exec=ps.ExecRequest(stdin_closed=True))

        ended = False
        async with aclosing(self._frames(pod, wanted, down(), "exec", permit)) as frames:
            async for frame in frames:
                if ended:
                    raise _after_the_end(pod)
                ended = frame.exec.WhichOneof("frame") == "exit_code"
                yield frame.exec
        if not ended:
            raise _without_exit(pod)

    async def attach(
        self, requests: AsyncIterator[ps.AttachRequest]
    ) -> AsyncGenerator[ps.AttachResponse, None]:
        """Joins a container's main process."""
        opening = (await _opening(requests)).open
        pod, permit = self._pod("create", "attach", opening.target)
        _check_runs(pod, "attach to")
        wanted = node_pb2.OpenSession()
        wanted.open.attach.CopyFrom(opening)
        _settle(wanted.open.attach.target, pod)

        async def down() -> AsyncGenerator[node_pb2.SessionResponse, None]:
            closed = not opening.stdin
            async for request in requests:
                _check_further(request)
                closed = closed or request.stdin_closed
                yield node_pb2.SessionResponse(attach=request)
            if not closed:
                yield node_pb2.SessionResponse(attach=ps.AttachRequest(stdin_closed=True))

        ended = False
        async with aclosing(self._frames(pod, wanted, down(), "attach", permit)) as frames:
            async for frame in frames:
                if ended:
                    raise _after_the_end(pod)
                ended = frame.attach.WhichOneof("frame") == "exit_code"
                yield frame.attach

    async def port_forward(
        self, requests: AsyncIterator[ps.PortForwardRequest]
    ) -> AsyncGenerator[ps.PortForwardResponse, None]:
        """One connection to a port of a pod."""
        opening = (await _opening(requests)).open
        pod, permit = self._pod("create", "portforward", opening.target)
        if pod.status.phase in _OVER or not pod.status.pod_ip:
            said = (
                "unable to forward port because pod is not running."
                f" Current status={pod.status.phase or 'Pending'}"
            )
            raise ApiError(Reason.REFUSED, said)
        if not 0 < opening.port < 65_536:
            raise _invalid("open.port", f"{opening.port} is no port")
        wanted = node_pb2.OpenSession()
        wanted.open.port_forward.CopyFrom(opening)
        _settle(wanted.open.port_forward.target, pod)

        async def down() -> AsyncGenerator[node_pb2.SessionResponse, None]:
            closed = False
            async for request in requests:
                _check_further(request)
                closed = closed or request.closed
                yield node_pb2.SessionResponse(port_forward=request)
            if not closed:
                yield node_pb2.SessionResponse(port_forward=ps.PortForwardRequest(closed=True))

        async with aclosing(self._frames(pod, wanted, down(), "port_forward", permit)) as frames:
            async for frame in frames:
                yield frame.port_forward

    async def link(self, node: str) -> AsyncGenerator[node_pb2.OpenSession, None]:
        """A kubelet's link."""
        if not node:
            raise _invalid("node", "the first request names the node")
        self._permit_node(node)
        async with aclosing(self._broker.link(node)) as wanted:
            async for one in wanted:
                yield one

    async def session(
        self, requests: AsyncIterator[node_pb2.SessionRequest]
    ) -> AsyncGenerator[node_pb2.SessionResponse, None]:
        """A kubelet's end of a stream."""
        async with aclosing(self._broker.session(requests, self._permit_node)) as responses:
            async for response in responses:
                yield response

    def _permit_node(self, node: str) -> None:
        self._session.check("create", authorize.NODE, "", node, authorize.LINK)

    def _pod(
        self, verb: str, subresource: str, target: ps.Target
    ) -> tuple[pod_pb2.Pod, Callable[[], object]]:
        """The pod, and what raises if the caller may not, now or later."""
        if not target.pod or not target.namespace:
            field = "pod" if target.namespace else "namespace"
            raise _invalid(f"target.{field}", "is required")
        permit = partial(
            self._session.check, verb, authorize.POD, target.namespace, target.pod, subresource
        )
        permit()
        pod = self._session.pod(target.namespace, target.pod)
        if pod is None:
            raise ApiError(Reason.NOT_FOUND, f'pods "{target.pod}" not found')
        if target.uid and target.uid != pod.metadata.uid:
            said = f'pod "{target.pod}" has uid {pod.metadata.uid}, not {target.uid}'
            raise ApiError(Reason.CONFLICT, said)
        if not pod.spec.node_name:
            raise ApiError(Reason.REFUSED, f'pod "{target.pod}" does not have a host assigned')
        return pod, permit

    async def _frames(
        self,
        pod: pod_pb2.Pod,
        wanted: node_pb2.OpenSession,
        down: AsyncGenerator[node_pb2.SessionResponse, None],
        expected: str,
        permit: Callable[[], object],
    ) -> AsyncGenerator[node_pb2.SessionRequest, None]:
        node = pod.spec.node_name
        async with aclosing(self._broker.call(node, wanted, down, permit)) as frames:
            async for frame in frames:
                if frame.WhichOneof("frame") != expected:
                    said = f"the kubelet of node {node} answered with another stream"
                    raise ApiError(Reason.UNAVAILABLE, said)
                yield frame


async def _nothing() -> AsyncGenerator[node_pb2.SessionResponse, None]:
    nothing: tuple[node_pb2.SessionResponse, ...] = ()
    for frame in nothing:
        yield frame


async def _opening(requests: AsyncIterator[Any]) -> Any:
    """The first request, which opens."""
    try:
        first = await anext(requests)
    except StopAsyncIteration:
        raise _invalid("open", "the first request opens") from None
    if first.WhichOneof("frame") != "open":
        raise _invalid("open", "the first request opens")
    return first


def _check_further(request: Any) -> None:
    if request.WhichOneof("frame") == "open":
        raise _invalid("open", "only the first request opens")


def _settle(target: ps.Target, pod: pod_pb2.Pod) -> None:
    """Writes what the caller left open: which container, and which pod of that name."""
    names = [one.name for one in pod.spec.containers]
    if not target.container:
        default = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
        target.container = default if default in names else next(iter(names), "")
    names += [one.name for one in pod.spec.init_containers]
    names += [one.ephemeral_container_common.name for one in pod.spec.ephemeral_containers]
    if target.container not in names:
        said = f"container {target.container} is not valid for pod {target.pod}"
        raise _invalid("target.container", f"{said}; it has: {', '.join(names)}")
    target.uid = pod.metadata.uid


def _check_runs(pod: pod_pb2.Pod, what: str) -> None:
    if pod.status.phase in _OVER:
        said = f"cannot {what} a container in a completed pod; current phase is {pod.status.phase}"
        raise ApiError(Reason.REFUSED, said)


def _without_exit(pod: pod_pb2.Pod) -> ApiError:
    said = f"the kubelet of node {pod.spec.node_name} ended the stream without an exit code"
    return ApiError(Reason.UNAVAILABLE, said)


def _after_the_end(pod: pod_pb2.Pod) -> ApiError:
    said = f"the kubelet of node {pod.spec.node_name} went on after the end of the stream"
    return ApiError(Reason.UNAVAILABLE, said)


def _invalid(path: str, said: str) -> ApiError:
    return ApiError(Reason.INVALID, f"{path}: {said}", [Violation(path, said)])
