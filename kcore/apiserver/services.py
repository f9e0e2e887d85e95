"""All services, as functions from bytes to bytes for one caller: what gRPC carries, without gRPC.

`Services.find(path)` gives the `Method` behind a path: those of ApiService, AuthService,
PodStreamService, NodeService, reflection and health, and those of every kind's typed service,
looked up in the present generation of kinds. A `Call` says who calls and collects what is to be
said besides the answer. Everything raises `ApiError`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import auth_pb2, node_pb2
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps

from kcore.apiserver import reflection, typed
from kcore.apiserver.identity import User
from kcore.apiserver.metrics import Metrics
from kcore.apiserver.reflection import Reflection
from kcore.apiserver.session import Kernel, Session
from kcore.apiserver.streams import Streams
from kcore.apiserver.token import Accounts
from kcore.apiserver.typed import Face, Faces
from kcore.clock import Clock
from kcore.kernel import frame
from kcore.wire.errors import ApiError, Reason

HEALTH_SECONDS = 1.0
# A store that has not answered for so long is stuck.
STUCK_SECONDS = 5.0
# Labels of a call that is about no kind, or about several.
_NONE = ""
_VERBS = {"create": "POST", "update": "PUT", "apply": "APPLY", "patch": "PATCH", "delete": "DELETE"}

Asked = TypeVar("Asked", bound=Message)
Said = TypeVar("Said", bound=Message)


@dataclass(slots=True)
class Call:
    """One call: who, and what is said besides the answer."""

    session: Session
    streams: Streams
    # For the typed services, which may say them in metadata.
    request_id: str = ""
    because: int = 0
    # Of the answer: what is counted, and what travels behind it.
    verb: str = _NONE
    resource: str = _NONE
    subresource: str = _NONE
    revision: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def user(self) -> User:
        """Who calls."""
        return self.session.user


Unary = Callable[[Call, bytes], Awaitable[bytes]]
ServerStream = Callable[[Call, bytes], AsyncGenerator[bytes, None]]
BidiStream = Callable[[Call, AsyncIterator[bytes]], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True)
class Method:
    """What is behind a path; `serve` is a Unary, a ServerStream or a BidiStream."""

    service: str
    name: str
    kind: Literal["unary", "server_stream", "bidi_stream"]
    serve: Any
    # Also those are served who do not say who they are.
    anybody: bool = False


class Services:
    """What one server serves."""

    def __init__(
        self,
        kernel: Kernel,
        metrics: Metrics,
        clock: Clock,
        *,
        reflects_all: bool = False,
        accounts: Accounts | None = None,
    ) -> None:
        """`kernel`: what is behind it all. `reflects_all`: also to those without credentials.

        `accounts` makes service accounts' tokens; None: there are none.
        """
        self._accounts = accounts
        self._kernel = kernel
        self._reflects_all = reflects_all
        self._metrics = metrics
        self._clock = clock
        self._fixed = {f"/{one.service}/{one.name}": one for one in self._own()}
        self._faces = Faces(kernel.schema)
        self._reflection = Reflection(kernel.schema)
        self._typed: dict[str, Method] = {}

    def find(self, path: str) -> Method | None:
        """What is behind a path, taken exactly as it is written."""
        found = self._fixed.get(path)
        if found is not None:
            return found
        faces = self._current()
        found = self._typed.get(path)
        if found is not None:
            return found
        face = faces.find(path)
        if face is None:
            return None
        made = self._of_face(face)
        self._typed[path] = made
        return made

    def ready(self) -> str:
        """Why nothing can be served; empty: all is well."""
        try:
            self._kernel.kinds(pb.KindsRequest(digest=self._kernel.schema.digest))
        except ApiError as error:
            return error.message
        waiting = self._kernel.waiting_seconds
        if waiting > STUCK_SECONDS:
            return f"the store has not answered for {waiting:.0f} s"
        return ""

    def _current(self) -> Faces:
        """The typed services of the present generation of kinds."""
        if self._faces.digest != self._kernel.schema.digest:
            self._faces = Faces(self._kernel.schema)
            self._reflection = Reflection(self._kernel.schema)
            self._typed = {}
        return self._faces

    def _own(self) -> list[Method]:
        api, auth, pod, node = (
            "kcore.api.v1.ApiService",
            "kcore.api.v1.AuthService",
            "kcore.api.v1.PodStreamService",
            "kcore.api.v1.NodeService",
        )
        methods = [
            Method(api, "Kinds", "unary", self._kinds),
            Method(api, "Get", "unary", self._get),
            Method(api, "List", "unary", self._list),
            Method(api, "Watch", "server_stream", self._watch),
            Method(api, "Commit", "unary", self._commit),
            Method(auth, "WhoAmI", "unary", self._who_am_i),
            Method(auth, "CanI", "unary", self._can_i),
            Method(auth, "ListPermissions", "unary", self._list_permissions),
            Method(auth, "Join", "unary", partial(_later, "Join")),
            Method(auth, "CreateToken", "unary", self._create_token),
            Method(pod, "Logs", "server_stream", self._logs),
            Method(node, "Images", "bidi_stream", partial(_later_stream, "Images")),
            # Probes have no credentials, and learn nothing but that.
            Method(reflection.HEALTH, "Check", "unary", self._health_check, anybody=True),
            Method(reflection.HEALTH, "Watch", "server_stream", self._health_watch),
        ]
        methods += [
            Method(name, "ServerReflectionInfo", "bidi_stream", self._reflect, self._reflects_all)
            for name in (reflection.V1, reflection.V1_ALPHA)
        ]
        streams: list[tuple[str, str, type[Message], Callable[[Streams], Any]]] = [
            (pod, "Exec", ps.ExecRequest, lambda streams: streams.exec),
            (pod, "Attach", ps.AttachRequest, lambda streams: streams.attach),
            (pod, "PortForward", ps.PortForwardRequest, lambda streams: streams.port_forward),
            (node, "Session", node_pb2.SessionRequest, lambda streams: partial(_session, streams)),
            (node, "Link", node_pb2.LinkRequest, lambda streams: partial(_link, streams)),
        ]
        methods += [
            Method(service, name, "bidi_stream", partial(_stream, message, pick))
            for service, name, message, pick in streams
        ]
        return methods

    # ApiService.

    async def _kinds(self, call: Call, body: bytes) -> bytes:
        response = await call.session.kinds(pb.KindsRequest.FromString(body))
        return response.SerializeToString()

    async def _get(self, call: Call, body: bytes) -> bytes:
        request = pb.GetRequest.FromString(body)
        self._label(call, "GET", request.ref.kind)
        return await call.session.get_bytes(request)

    async def _list(self, call: Call, body: bytes) -> bytes:
        request = pb.ListRequest.FromString(body)
        self._label(call, "LIST", request.selection.kind)
        return await call.session.list_bytes(request)

    def _watch(self, call: Call, body: bytes) -> AsyncGenerator[bytes, None]:
        return self._watching(call, pb.WatchRequest.FromString(body))

    async def _commit(self, call: Call, body: bytes) -> bytes:
        response = await self._committed(call, pb.CommitRequest.FromString(body))
        return response.SerializeToString()

    # The typed services.

    def _of_face(self, face: Face) -> Method:
        serve: Any
        name = face.method.name
        if name == "Watch":
            serve = partial(self._typed_watch, face)
        elif name in ("Get", "List", "Delete"):
            serve = partial(getattr(self, f"_typed_{name.lower()}"), face)
        else:
            serve = partial(self._typed_write, face)
        kind: Literal["unary", "server_stream"] = "server_stream" if name == "Watch" else "unary"
        return Method(face.service, name, kind, serve)

    async def _typed_get(self, face: Face, call: Call, body: bytes) -> bytes:
        self._label(call, "GET", face.kind)
        answer = await call.session.get_bytes(typed.get(face, body))
        response = pb.GetResponse.FromString(answer)
        call.revision = response.revision
        return response.object

    async def _typed_list(self, face: Face, call: Call, body: bytes) -> bytes:
        self._label(call, "LIST", face.kind)
        return await call.session.list_bytes(typed.page(face, body))

    def _typed_watch(self, face: Face, call: Call, body: bytes) -> AsyncGenerator[bytes, None]:
        return self._watching(call, typed.watch(face, body))

    async def _typed_write(self, face: Face, call: Call, body: bytes) -> bytes:
        request = typed.write(face, body, call.request_id, call.because)
        return await self._typed_commit(call, request)

    async def _typed_delete(self, face: Face, call: Call, body: bytes) -> bytes:
        request = typed.delete(face, body, call.request_id, call.because)
        return await self._typed_commit(call, request)

    async def _typed_commit(self, call: Call, request: pb.CommitRequest) -> bytes:
        response = await self._committed(call, request)
        result = response.results[0]
        call.revision = result.revision
        call.warnings += result.operations[0].warnings
        return result.operations[0].object

    # Identity.

    async def _who_am_i(self, call: Call, body: bytes) -> bytes:
        auth_pb2.WhoAmIRequest.FromString(body)
        return call.session.who_am_i().SerializeToString()

    async def _can_i(self, call: Call, body: bytes) -> bytes:
        return call.session.can_i(auth_pb2.CanIRequest.FromString(body)).SerializeToString()

    async def _list_permissions(self, call: Call, body: bytes) -> bytes:
        request = auth_pb2.ListPermissionsRequest.FromString(body)
        return call.session.permissions(request).SerializeToString()

    async def _create_token(self, call: Call, body: bytes) -> bytes:
        request = auth_pb2.CreateTokenRequest.FromString(body)
        if self._accounts is None:
            said = "this server has no key for service accounts' tokens"
            raise ApiError(Reason.UNIMPLEMENTED, said)
        account, pod = call.session.token_of(request)
        token, expires = self._accounts.issue(
            account, pod, request.audiences, request.expiration_seconds
        )
        response = auth_pb2.CreateTokenResponse(token=token)
        response.expires.seconds = expires
        return response.SerializeToString()

    # Streams.

    async def _logs(self, call: Call, body: bytes) -> AsyncGenerator[bytes, None]:
        request = ps.LogsRequest.FromString(body)
        async with aclosing(call.streams.logs(request)) as responses:
            async for response in responses:
                yield response.SerializeToString()

    # Health and reflection.

    async def _health_check(self, call: Call, body: bytes) -> bytes:
        service = health_pb2.HealthCheckRequest.FromString(body).service
        status = self._health(service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            raise ApiError(Reason.NOT_FOUND, f"there is no service {service}")
        answer: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
        return answer

    async def _health_watch(self, call: Call, body: bytes) -> AsyncGenerator[bytes, None]:
        service = health_pb2.HealthCheckRequest.FromString(body).service
        last: int | None = None
        while True:
            status = self._health(service)
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status).SerializeToString()
            await self._clock.sleep(HEALTH_SECONDS)

    def _health(self, service: str) -> int:
        words = health_pb2.HealthCheckResponse
        self._current()
        if service and service not in self._reflection.services:
            return int(words.SERVICE_UNKNOWN)
        return int(words.NOT_SERVING if self.ready() else words.SERVING)

    async def _reflect(
        self, call: Call, requests: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        had: set[str] = set()
        digest = ""
        async for body in requests:
            self._current()
            if self._reflection.digest != digest:
                digest = self._reflection.digest
                had.clear()
            yield self._reflection.answer(body, had)

    # What several have in common.

    async def _watching(self, call: Call, request: pb.WatchRequest) -> AsyncGenerator[bytes, None]:
        kinds = {selection.kind for selection in request.selections}
        self._label(call, "WATCH", kinds.pop() if len(kinds) == 1 else _NONE)
        async with aclosing(call.session.watch_bytes(request)) as responses:
            async for response in responses:
                self._metrics.watched(call.resource, len(response), frame.events_in(response))
                yield response

    async def _committed(self, call: Call, request: pb.CommitRequest) -> pb.CommitResponse:
        operations = sum(len(one.operations) for one in request.transactions)
        if operations == 1:
            operation = next(one for t in request.transactions for one in t.operations)
            verb = _VERBS.get(operation.WhichOneof("do") or "", "COMMIT")
            self._label(call, verb, operation.ref.kind)
            known = self._kernel.schema.kinds.get(operation.ref.kind)
            if known is not None and operation.subresource in known.subresources:
                call.subresource = operation.subresource
        else:
            self._label(call, "COMMIT", _NONE)
        started = self._clock.monotonic()
        asked = len(request.transactions)
        applied = 0
        try:
            response = await call.session.commit(request)
            applied = sum(not result.HasField("error") for result in response.results)
        finally:
            seconds = self._clock.monotonic() - started
            self._metrics.commit(operations, applied, asked - applied, seconds)
        return response

    def _label(self, call: Call, verb: str, kind: str) -> None:
        call.verb = verb
        known = self._kernel.schema.kinds.get(kind)
        # What nobody serves makes no series of its own.
        call.resource = known.plural if known is not None else _NONE


def _stream(
    message: type[Asked],
    pick: Callable[[Streams], Callable[[AsyncIterator[Asked]], AsyncGenerator[Said, None]]],
    call: Call,
    requests: AsyncIterator[bytes],
) -> AsyncGenerator[bytes, None]:
    """A stream of messages both ways, as bytes."""

    async def decoded() -> AsyncGenerator[Asked, None]:
        async for body in requests:
            yield message.FromString(body)

    async def encoded() -> AsyncGenerator[bytes, None]:
        async with aclosing(pick(call.streams)(decoded())) as responses:
            async for response in responses:
                yield response.SerializeToString()

    return encoded()


async def _link(
    streams: Streams, requests: AsyncIterator[node_pb2.LinkRequest]
) -> AsyncGenerator[node_pb2.LinkResponse, None]:
    """The node is named in the first request; further ones say nothing."""
    first = await anext(requests, node_pb2.LinkRequest())
    async with aclosing(streams.link(first.node)) as wanted:
        async for one in wanted:
            yield node_pb2.LinkResponse(open=one)


async def _session(
    streams: Streams, requests: AsyncIterator[node_pb2.SessionRequest]
) -> AsyncGenerator[node_pb2.SessionResponse, None]:
    """The last request says how it ended, well (code 0) or not: without, it was broken off.

    A call that is cancelled looks like one that is half-closed, for a moment.
    """

    async def whole() -> AsyncGenerator[node_pb2.SessionRequest, None]:
        async for request in requests:
            if request.WhichOneof("frame") == "error" and not request.error.status.code:
                return
            yield request
            if request.WhichOneof("frame") == "error":
                return
        raise ApiError(Reason.UNAVAILABLE, "the kubelet has gone")

    async with aclosing(streams.session(whole())) as responses:
        async for response in responses:
            yield response


async def _later(name: str, call: Call, body: bytes) -> bytes:
    raise ApiError(Reason.UNIMPLEMENTED, f"{name} is not served by this server yet")


async def _later_stream(
    name: str, call: Call, requests: AsyncIterator[bytes]
) -> AsyncGenerator[bytes, None]:
    raise ApiError(Reason.UNIMPLEMENTED, f"{name} is not served by this server yet")
    yield b""
