"""The door to a server: the Api, streams and identity over gRPC.

    async with connect(target) as channel:
        await channel.get(request)

A `Channel` is an Api (kcore/wire/api.py), a PodStreams and a NodeLink (kcore/client/streams.py).
Every error is an ApiError: the server's own as it said it, the transport's as UNAVAILABLE with what
to do about it. Unary calls have a deadline. A connection that is lost is dialled again by itself.
Calls meanwhile are repeated for less than a second, if the API says that they may be (a Commit may,
since each of its transactions gets a request id here at the latest); then whoever makes them
decides what to do. What was seen of the cluster is said with every call, so that a server that has
forgotten it refuses. A client certificate whose file has changed is used from the next call on.

No stubs: methods are paths, messages are kcore_api's.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType
from typing import Any, TypeVar

import grpc
import kcore_api
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc._cython import cygrpc  # type: ignore[attr-defined]
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import auth_pb2, node_pb2
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps

from kcore.chance import Chance
from kcore.client.kubeconfig import Target
from kcore.tasks import Tasks
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason

logger = logging.getLogger(__name__)

DEADLINE_SECONDS = 10.0
# More is no token.
_TOKEN_LETTERS = 64 << 10
MESSAGE_BYTES = 16 << 20

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # The server says what it takes.
    ("grpc.max_send_message_length", -1),
    # A silent loss of the connection is noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that starts again is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # What may be repeated stands in the service config.
    ("grpc.enable_retries", 1),
    # The cluster is near; a proxy of the environment is for what is far.
    ("grpc.enable_http_proxy", 0),
    # Each channel has its own connection, since each is somebody.
    ("grpc.use_local_subchannel_pool", 1),
)

_DETAILS = "grpc-status-details-bin"
_API = "/kcore.api.v1.ApiService"
_AUTH = "/kcore.api.v1.AuthService"
_POD = "/kcore.api.v1.PodStreamService"
_NODE = "/kcore.api.v1.NodeService"

Asked = TypeVar("Asked", bound=Message)
Metadata = tuple[tuple[str, str], ...]


def connect(target: Target, chance: Chance | None = None) -> "Channel":
    """A channel to a server; nothing is dialled before the first call. Needs a running loop.

    As whoever the target's credentials say; without any, by its socket. Request ids that a Commit
    lacks are drawn from `chance`.
    """
    chance = chance or Chance()
    options: tuple[tuple[str, Any], ...] = (
        *OPTIONS,
        ("grpc.service_config", kcore_api.SERVICE_CONFIG.read_text()),
    )
    known = bool(target.token or target.token_file or target.client_certificate)
    if target.unix and not (target.grpc and known):
        where = f"unix:{target.unix}"
        return Channel(
            lambda: grpc.aio.insecure_channel(where, options=options), target.unix, chance
        )
    if target.server_name:
        options += (("grpc.ssl_target_name_override", target.server_name),)
    certificate = Certificate(target)

    def dial() -> grpc.aio.Channel:
        wrapped = grpc.ssl_channel_credentials(
            target.authority, certificate.key, certificate.certificate
        )
        return grpc.aio.secure_channel(target.grpc, wrapped, options=options)

    token = Token(target.token, target.token_file)
    return Channel(dial, target.grpc, chance, token, certificate)


class Certificate:
    """A client certificate and its key, read again from their files when those change."""

    def __init__(self, target: Target) -> None:
        """As the target says."""
        self.certificate, self.key = target.client_certificate, target.client_key
        self._certificate_file = target.client_certificate_file
        self._key_file = target.client_key_file
        self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether there is another one now than when this was last asked, and it was read."""
        seen = self._stamp()
        if seen == self._seen:
            return False
        try:
            # The certificate is written last, after its key: what is read now belongs together.
            with open(self._key_file, "rb") as file:
                key = file.read()
            with open(self._certificate_file, "rb") as file:
                certificate = file.read()
        except OSError as error:
            logger.error("the client certificate cannot be read, the old one stays: %s", error)
            return False
        self._seen, self.key, self.certificate = seen, key, certificate
        return True

    def _stamp(self) -> tuple[int, int]:
        if not self._certificate_file or not self._key_file:
            return 0, 0
        try:
            status = os.stat(self._certificate_file)
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino


class Token:
    """A bearer token, read again from its file when that changes."""

    def __init__(self, token: str = "", file: str = "") -> None:
        """`file` takes precedence."""
        self._token = token
        self._file = file
        self._seen: tuple[int, int] = (0, 0)

    def read(self) -> str:
        """The token as of now; "" where there is none."""
        if not self._file:
            return self._token
        try:
            status = os.stat(self._file)
            seen = status.st_mtime_ns, status.st_ino
            if seen != self._seen:
                with open(self._file, encoding="ascii") as file:
                    self._token = file.read(_TOKEN_LETTERS).strip()
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            said = f"the token cannot be read: {error}"
            raise ApiError(Reason.UNAUTHENTICATED, said) from error
        return self._token


class Channel:
    """One connection to one server, as one user."""

    def __init__(
        self,
        dial: Callable[[], grpc.aio.Channel],
        where: str,
        chance: Chance,
        token: Token | None = None,
        certificate: Certificate | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """`where`: how errors name the server. `dial` uses what `certificate` has."""
        self._dial = dial
        self._channel = dial()
        # Those with former certificates: what goes over them goes on. Renewals are months apart.
        self._former: list[grpc.aio.Channel] = []
        self._where = where
        self._chance = chance
        self._token = token or Token()
        self._certificate = certificate
        self._deadline_seconds = deadline_seconds
        self._cluster = ""
        self._seen = 0
        self._methods: dict[str, Any] = {}

    async def __aenter__(self) -> "Channel":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and all that goes over it."""
        for one in (self._channel, *self._former):
            await one.close()

    # Api.

    async def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        """The kinds that are served."""
        response: pb.KindsResponse = await self._ask(f"{_API}/Kinds", request, pb.KindsResponse)
        self._cluster = f"{response.cluster_id}/{response.epoch}"
        return response

    async def get(self, request: pb.GetRequest) -> pb.GetResponse:
        """One object."""
        response: pb.GetResponse = await self._ask(f"{_API}/Get", request, pb.GetResponse)
        return response

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        """A page of objects."""
        response: pb.ListResponse = await self._ask(f"{_API}/List", request, pb.ListResponse)
        return response

    async def watch(self, request: pb.WatchRequest) -> AsyncGenerator[pb.WatchResponse, None]:
        """Objects, then their changes; ends only by error or by being closed."""
        call = self._method("unary_stream", f"{_API}/Watch", pb.WatchResponse)(
            request, metadata=self._metadata()
        )
        try:
            async for response in call:
                self._seen = max(self._seen, response.revision)
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()
        raise ApiError(Reason.UNAVAILABLE, f"kcore at {self._where} has ended the watch")

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        """Transactions. One alone raises its error; of several each result has its own."""
        if not all(one.request_id for one in request.transactions):
            whole = pb.CommitRequest()
            whole.CopyFrom(request)
            for one in whole.transactions:
                one.request_id = one.request_id or self._chance.uid()
            request = whole
        response: pb.CommitResponse = await self._ask(f"{_API}/Commit", request, pb.CommitResponse)
        for result in response.results:
            self._seen = max(self._seen, result.revision)
        return response

    # Identity.

    async def who_am_i(self) -> auth_pb2.WhoAmIResponse:
        """The caller, as the server sees it."""
        response: auth_pb2.WhoAmIResponse = await self._ask(
            f"{_AUTH}/WhoAmI", auth_pb2.WhoAmIRequest(), auth_pb2.WhoAmIResponse
        )
        return response

    async def can_i(self, request: auth_pb2.CanIRequest) -> auth_pb2.CanIResponse:
        """Whether the caller may do something."""
        response: auth_pb2.CanIResponse = await self._ask(
            f"{_AUTH}/CanI", request, auth_pb2.CanIResponse
        )
        return response

    async def permissions(
        self, request: auth_pb2.ListPermissionsRequest
    ) -> auth_pb2.ListPermissionsResponse:
        """All that the caller may do in a namespace."""
        response: auth_pb2.ListPermissionsResponse = await self._ask(
            f"{_AUTH}/ListPermissions", request, auth_pb2.ListPermissionsResponse
        )
        return response

    async def create_token(
        self, request: auth_pb2.CreateTokenRequest
    ) -> auth_pb2.CreateTokenResponse:
        """A token for a service account."""
        response: auth_pb2.CreateTokenResponse = await self._ask(
            f"{_AUTH}/CreateToken", request, auth_pb2.CreateTokenResponse
        )
        return response

    # PodStreams.

    async def logs(self, request: ps.LogsRequest) -> AsyncGenerator[ps.LogsResponse, None]:
        """A container's log."""
        call = self._method("unary_stream", f"{_POD}/Logs", ps.LogsResponse)(
            request, metadata=self._metadata()
        )
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()

    def exec(
        self, requests: AsyncIterator[ps.ExecRequest]
    ) -> AsyncGenerator[ps.ExecResponse, None]:
        """Runs a command."""
        return self._stream(f"{_POD}/Exec", requests, ps.ExecResponse)

    def attach(
        self, requests: AsyncIterator[ps.AttachRequest]
    ) -> AsyncGenerator[ps.AttachResponse, None]:
        """Joins a container's main process."""
        return self._stream(f"{_POD}/Attach", requests, ps.AttachResponse)

    def port_forward(
        self, requests: AsyncIterator[ps.PortForwardRequest]
    ) -> AsyncGenerator[ps.PortForwardResponse, None]:
        """One connection to a port of a pod."""
        return self._stream(f"{_POD}/PortForward", requests, ps.PortForwardResponse)

    # NodeLink.

    async def link(self, node: str) -> AsyncGenerator[node_pb2.OpenSession, None]:
        """A kubelet's link: says which streams are wanted, for as long as it is read."""
        call = self._method("stream_stream", f"{_NODE}/Link", node_pb2.LinkResponse)(
            metadata=self._metadata()
        )
        try:
            # Our side stays open: its end would be the kubelet's.
            await call.write(node_pb2.LinkRequest(node=node))
            async for response in call:
                yield response.open
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()
        raise ApiError(Reason.UNAVAILABLE, f"kcore at {self._where} has ended the link")

    def session(
        self, requests: AsyncIterator[node_pb2.SessionRequest]
    ) -> AsyncGenerator[node_pb2.SessionResponse, None]:
        """A kubelet's end of a stream."""
        return self._stream(f"{_NODE}/Session", _to_the_end(requests), node_pb2.SessionResponse)

    async def _ask(self, path: str, request: Message, answer: type[Any]) -> Any:
        call = self._method("unary_unary", path, answer)(
            request, metadata=self._metadata(), timeout=self._deadline_seconds
        )
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    async def _stream(
        self, path: str, requests: AsyncIterator[Asked], answer: type[Any]
    ) -> AsyncGenerator[Any, None]:
        # Not given to gRPC, which would go on waiting for requests when the call has ended.
        call = self._method("stream_stream", path, answer)(metadata=self._metadata())
        failed: Exception | None = None
        async with Tasks() as tasks:
            talking = tasks.start(_talk(call, requests), f"requests of {path}")
            try:
                async for response in call:
                    yield response
            except grpc.aio.AioRpcError as error:
                failed = self._error(error)
            except GeneratorExit:
                # A group of tasks would make an error of it.
                pass
            except asyncio.CancelledError:
                if not talking.done() or talking.cancelled() or talking.result() is None:
                    raise
            finally:
                call.cancel()
                talking.cancel()
            if talking.done() and not talking.cancelled():
                failed = talking.result() or failed
        if failed is not None:
            raise failed

    def _method(self, kind: str, path: str, answer: type[Any]) -> Any:
        if self._certificate is not None and self._certificate.changed():
            self._former.append(self._channel)
            self._channel, self._methods = self._dial(), {}
        found = self._methods.get(path)
        if found is None:
            make = getattr(self._channel, kind)
            found = make(
                path,
                request_serializer=_serialize,
                response_deserializer=answer.FromString,
            )
            self._methods[path] = found
        return found

    def _metadata(self) -> Metadata:
        metadata: Metadata = ()
        token = self._token.read()
        if token:
            metadata += (("authorization", f"Bearer {token}"),)
        if self._cluster:
            metadata += (("kcore-cluster", self._cluster), ("kcore-seen", str(self._seen)))
        return metadata

    def _error(self, error: grpc.aio.AioRpcError) -> ApiError:
        """What the server, or the transport, said."""
        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS and isinstance(value, bytes):
                return errors.from_status(status_pb2.Status.FromString(value))
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            said = f"no answer from kcore at {self._where} within {self._deadline_seconds:g} s"
            return ApiError(Reason.UNAVAILABLE, said)
        if code is grpc.StatusCode.UNAVAILABLE:
            return ApiError(Reason.UNAVAILABLE, _unreachable(self._where, details))
        return errors.from_status(
            status_pb2.Status(code=code.value[0], message=f"kcore at {self._where}: {details}")
        )


async def _talk(call: Any, requests: AsyncIterator[Message]) -> Exception | None:
    """Sends the requests; returns what went wrong with getting them, which ends the call."""
    try:
        await call.wait_for_connection()
        async for request in requests:
            # Not `call.write`: where the server ends the call meanwhile, that makes an internal
            # error of its own and hides how the server ended it (grpcio 1.85; every other time).
            await call._cython_call.send_serialized_message(request.SerializeToString())
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, cygrpc.InternalError):
        # The call has ended; whoever reads it knows how.
        pass
    except Exception as error:
        call.cancel()
        return error
    return None


async def _to_the_end(
    requests: AsyncIterator[node_pb2.SessionRequest],
) -> AsyncGenerator[node_pb2.SessionRequest, None]:
    """Says that all was said: a connection that breaks looks like an end, too."""
    async for request in requests:
        yield request
    complete = node_pb2.SessionRequest()
    complete.error.status.code = 0
    yield complete


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _unreachable(where: str, details: str) -> str:
    """What to do when a server cannot be reached, by what gRPC says of it."""
    low = details.lower()
    if "certificate_verify_failed" in low or "self-signed" in low or "self signed" in low:
        return (
            f"the certificate of kcore at {where} is not signed by the authority that the"
            f" kubeconfig names: is it another cluster's? ({details})"
        )
    if "hostname" in low and "verif" in low:
        return f"the certificate of kcore is not for the name {where} ({details})"
    if "permission denied" in low:
        return f"cannot reach kcore at {where}: permission denied: the socket is root's alone"
    return f"cannot reach kcore at {where}: is it running? try `kcore up` ({details})"
