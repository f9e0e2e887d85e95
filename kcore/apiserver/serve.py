"""gRPC: listeners, and what a call is on the way in and on the way out.

`Server(services, sessions, listeners…)` has one gRPC server for each listener, since each has its
own way to tell who calls; behind all is the same handler, which finds a path's method and passes
bytes through. On the way in: what the metadata weighs, identity, impersonation, the cluster that
the caller means, how much the caller has under way, and how long the answer is waited for. On the
way out: an ApiError becomes a google.rpc.Status (cut to what metadata may weigh), warnings and the
revision travel behind the answer, and everything is counted. It must not know what methods do.
"""

import asyncio
import functools
import logging
import os
import re
import socket
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from kcore.apiserver import authorize, metrics
from kcore.apiserver.allowance import Allowance
from kcore.apiserver.broker import Broker
from kcore.apiserver.identity import (
    ANONYMOUS,
    AUTHENTICATED,
    Identify,
    User,
    account_groups,
    account_of,
)
from kcore.apiserver.metrics import Metrics
from kcore.apiserver.services import Call, Method, Services
from kcore.apiserver.session import Decide, Kernel, Session
from kcore.apiserver.streams import Streams
from kcore.clock import Clock
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason, Violation

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 4 << 20
# Clients take 8 KiB of metadata; base64 makes 4 bytes of 3, percent-encoding 3 of 1.
STATUS_BYTES = 3 << 10
SAID_BYTES = 1 << 10
WARNINGS_BYTES = 1 << 10
# Of the callers: the longest that anybody sends is a token of some kilobytes.
METADATA_BYTES = 16 << 10
METADATA_VALUE_BYTES = 8 << 10
METADATA_PAIRS = 64
# Who sets no deadline waits so long for an answer.
UNARY_SECONDS = 60.0
KNOWN_CALLERS = 4096

_NEVER = 2**31 - 1

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # An answer may be larger than what was asked for; whoever asked bounds it.
    ("grpc.max_send_message_length", -1),
    # Two servers on one port would share callers by chance.
    ("grpc.so_reuseport", 0),
    # What clients send is permitted, idle ones are asked, dead ones are noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.max_concurrent_streams", 512),
    # Links of kubelets live as long as the server: no connection is too old. What has connected
    # and does not say who it is goes soon.
    ("grpc.max_connection_age_ms", _NEVER),
    ("grpc.server_handshake_timeout_ms", 8_000),
    # What gRPC refuses by itself, before there is a call; from here to there it refuses some.
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * METADATA_BYTES),
)

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Behaviour: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class CannotListen(OSError):
    """An address is taken, or cannot be had."""

    def __init__(self, address: str, why: str) -> None:
        """Says what to do about it."""
        super().__init__(
            f"cannot listen at {address}: {why}; `ss -lntxp` shows who has it,"
            " `kcore up --port` takes others"
        )


@dataclass(frozen=True, slots=True)
class Listener:
    """An address, how callers there are told apart, and what the wire is wrapped in."""

    # "[::]:6443", or "unix:/run/kcore/kcore.sock".
    address: str
    identify: Identify
    # None: nothing.
    credentials: grpc.ServerCredentials | None = None


class Gate:
    """From a call's metadata and connection to a `Call`."""

    def __init__(self, kernel: Kernel, broker: Broker, decide: Decide) -> None:
        """`kernel` and `broker`: what sessions are made for; `decide`: who may do what."""
        self._kernel = kernel
        self._broker = broker
        self._decide = decide
        self._of_user = functools.lru_cache(maxsize=KNOWN_CALLERS)(self._make)

    def call(self, identify: Identify, context: Context, anybody: bool) -> Call:
        """Who calls, and what the metadata says. Raises ApiError for those who may not.

        `anybody`: also those may who do not say who they are.
        """
        pairs = context.invocation_metadata() or ()
        _weigh(pairs)
        metadata: dict[str, str] = dict(pairs)  # type: ignore[arg-type] # Ours are all text.
        try:
            user = identify(metadata, context.auth_context)
        except ApiError as error:
            if not anybody or error.reason is not Reason.UNAUTHENTICATED:
                raise
            user = ANONYMOUS
        if "kcore-impersonate-user" in metadata or "kcore-impersonate-group" in metadata:
            groups = tuple(str(value) for key, value in pairs if key == "kcore-impersonate-group")
            user = self.impersonated(user, metadata.get("kcore-impersonate-user", ""), groups)
        if "kcore-cluster" in metadata or "kcore-seen" in metadata:
            self._check_seen(metadata.get("kcore-cluster", ""), metadata.get("kcore-seen", ""))
        session, streams = self._of_user(user)
        return Call(
            session,
            streams,
            request_id=metadata.get("kcore-request-id", ""),
            because=_number(metadata, "kcore-because"),
        )

    def _make(self, user: User) -> tuple[Session, Streams]:
        session = Session(self._kernel, user, self._decide)
        return session, Streams(session, self._broker)

    def impersonated(self, user: User, name: str, groups: tuple[str, ...]) -> User:
        """Somebody else, for those who may be just that one, and in each of these groups."""
        if not name:
            said = "kcore-impersonate-group needs a kcore-impersonate-user"
            raise ApiError(Reason.INVALID, said)
        wanted = [(authorize.GROUPS, "", group) for group in groups]
        account = account_of(name)
        if account is not None:
            wanted.append((authorize.SERVICE_ACCOUNT, *account))
            groups = groups or account_groups(account[0])
        else:
            wanted.append((authorize.USERS, "", name))
        for what, namespace, one in wanted:
            if not self._decide(user, authorize.IMPERSONATE, what, namespace, one, "").allowed:
                plural = "serviceaccounts" if account and what != authorize.GROUPS else what
                said = authorize.denial(user, authorize.IMPERSONATE, plural, "", namespace, one)
                raise ApiError(Reason.FORBIDDEN, said)
        return User(name, tuple(dict.fromkeys((*groups, AUTHENTICATED))), user.claim)

    def _check_seen(self, cluster: str, seen: str) -> None:
        """Refuses callers who mean another cluster, or one that knew more than this."""
        named, _, epoch_text = cluster.partition("/")
        if named and named != self._kernel.cluster_id:
            said = f"this is cluster {self._kernel.cluster_id}, and the caller knows {named}"
            raise ApiError(Reason.REFUSED, said)
        epoch = int(epoch_text) if epoch_text.isdecimal() else self._kernel.epoch
        revision = int(seen) if seen.isdecimal() else 0
        ahead = epoch == self._kernel.epoch and revision > self._kernel.head
        if epoch > self._kernel.epoch or ahead:
            raise ApiError(
                Reason.REFUSED,
                f"this server is at revision {self._kernel.head} of epoch {self._kernel.epoch},"
                f" and the caller has seen {revision} of epoch {epoch}: it has lost writes",
            )


class Handler(grpc.GenericRpcHandler):
    """All methods behind one listener, with bytes for messages."""

    def __init__(
        self,
        services: Services,
        gate: Gate,
        allowance: Allowance,
        identify: Identify,
        counted: Metrics,
        clock: Clock,
    ) -> None:
        """`identify`: the listener's way to tell who calls."""
        self._services = services
        self._gate = gate
        self._allowance = allowance
        self._identify = identify
        self._metrics = counted
        self._clock = clock
        self._handlers: dict[int, tuple[Method, Behaviour]] = {}

    def service(self, details: grpc.HandlerCallDetails) -> "Behaviour | None":
        """What handles a path; None: nothing does."""
        method = self._services.find(details.method)
        if method is None:
            return None
        known = self._handlers.get(id(method))
        if known is not None and known[0] is method:
            return known[1]
        made: Behaviour
        if method.kind == "unary":
            made = grpc.unary_unary_rpc_method_handler(functools.partial(self._unary, method))
        elif method.kind == "server_stream":
            made = grpc.unary_stream_rpc_method_handler(functools.partial(self._stream, method))
        else:
            made = grpc.stream_stream_rpc_method_handler(functools.partial(self._stream, method))
        if len(self._handlers) > KNOWN_CALLERS:
            self._handlers.clear()
        self._handlers[id(method)] = method, made
        return made

    async def _unary(self, method: Method, body: bytes, context: Context) -> bytes:
        started = self._clock.monotonic()
        call: Call | None = None
        code, http = "OK", "200"
        self._metrics.started(method.kind, method.service, method.name)
        try:
            call = self._gate.call(self._identify, context, method.anybody)
            lease = self._allowance.take(call.user.name, False)
            # When the answer has left, later than when gRPC is given it. (Its stubs are wrong.)
            context.add_done_callback(lambda _: lease.release())  # type: ignore[arg-type]
            answer = await _in_time(context, method, call, body)
            lease.hold(len(answer))
            trailing = _trailing(call)
            if trailing:
                context.set_trailing_metadata(trailing)
            return answer
        except asyncio.CancelledError:
            code, http = "CANCELLED", "499"
            raise
        except Exception as error:
            code, http = _words(error)
            await _abort(context, method, error, call)
            raise
        finally:
            self._metrics.call(method.kind, method.service, method.name, code)
            if call is not None and call.verb:
                seconds = self._clock.monotonic() - started
                self._metrics.request(call.verb, call.resource, call.subresource, http, seconds)

    async def _stream(
        self,
        method: Method,
        asked: bytes | AsyncIterator[bytes],
        context: Context,
    ) -> None:
        code = "OK"
        call: Call | None = None
        self._metrics.started(method.kind, method.service, method.name)
        try:
            call = self._gate.call(self._identify, context, method.anybody)
            lease = self._allowance.take(call.user.name, True)
            context.add_done_callback(lambda _: lease.release())  # type: ignore[arg-type]
            # The caller knows at once that it is served, however long nothing is said.
            await context.send_initial_metadata(())
            responses: AsyncGenerator[bytes, None] = method.serve(call, asked)
            async with aclosing(responses):
                async for response in responses:
                    lease.hold(len(response))
                    try:
                        await context.write(response)
                    except Exception:
                        # The connection has ended; there is nobody to tell.
                        code = "CANCELLED"
                        return
                    lease.hold(0)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            code, _ = _words(error)
            await _abort(context, method, error, call)
        finally:
            self._metrics.call(method.kind, method.service, method.name, code)


class Server:
    """All listeners."""

    def __init__(
        self,
        kernel: Kernel,
        services: Services,
        broker: Broker,
        decide: Decide,
        counted: Metrics,
        clock: Clock,
        listeners: Sequence[Listener],
        allowance: Allowance,
    ) -> None:
        """Call `start`."""
        self._listeners = listeners
        gate = Gate(kernel, broker, decide)
        self._servers: list[grpc.aio.Server] = []
        for listener in listeners:
            server = grpc.aio.server(options=OPTIONS)
            handler = Handler(services, gate, allowance, listener.identify, counted, clock)
            server.add_generic_rpc_handlers((handler,))
            self._servers.append(server)
        # Ports as bound, in the order of the listeners; 1 for sockets.
        self.ports: list[int] = []

    async def start(self) -> None:
        """Binds all, then serves. `CannotListen` where an address is taken."""
        for server, listener in zip(self._servers, self._listeners, strict=True):
            self.ports.append(_bind(server, listener))
        for server in self._servers:
            await server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more calls; those under way have so long to end."""
        await asyncio.gather(*(server.stop(grace_seconds) for server in self._servers))


def credentials(
    certificate: Path, key: Path, authority: Path | None = None
) -> grpc.ServerCredentials:
    """TLS with a certificate that is read again when its file changes.

    With `authority` every client must show a certificate that it has signed.
    """

    def written() -> tuple[int, int]:
        # The certificate is written last, after its key.
        status = os.stat(certificate)
        return status.st_mtime_ns, status.st_ino

    def read() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(key.read_bytes(), certificate.read_bytes())],
            authority.read_bytes() if authority is not None else None,
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        try:
            seen = written()
            if last == [seen]:
                return None
            fresh = read()
        except OSError as error:
            logger.error("the certificate cannot be read again, the old one stays: %s", error)
            return None
        last[:] = [seen]
        return fresh

    first = read()
    last = [written()]
    return grpc.dynamic_ssl_server_credentials(
        first,
        fetch,  # type: ignore[arg-type] # None: no change; the stubs forget it.
        require_client_authentication=authority is not None,
    )


def _bind(server: grpc.aio.Server, listener: Listener) -> int:
    address, wrapped = listener.address, listener.credentials
    if address.startswith("unix:"):
        # gRPC takes a socket's place without asking whether somebody is there.
        _check_free(address.removeprefix("unix:"))
        # Root's alone from the first moment: nothing else runs between the two changes.
        before = os.umask(0o177)
        try:
            port = _add(server, address, wrapped)
        finally:
            os.umask(before)
    else:
        port = _add(server, address, wrapped)
    return port


def _check_free(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            # Nobody, or what somebody has left behind who was killed.
            return
    raise CannotListen(path, "another server does")


def _add(server: grpc.aio.Server, address: str, wrapped: grpc.ServerCredentials | None) -> int:
    try:
        if wrapped is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, wrapped))
    except RuntimeError as error:
        raise CannotListen(address, str(error).partition(";")[0]) from error


def _number(metadata: dict[str, str], key: str) -> int:
    text = metadata.get(key, "")
    if not text:
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ApiError(Reason.INVALID, f"{key}: {text!r} is no revision")
    return int(text)


def _trailing(call: Call) -> tuple[tuple[str, str], ...]:
    found = []
    if call.revision:
        found.append(("kcore-revision", str(call.revision)))
    room = WARNINGS_BYTES
    for warning in call.warnings:
        # Metadata is printable ASCII; the rest is percent-encoded, as in grpc-message.
        text = urllib.parse.quote(warning, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
        room -= len(text)
        if room < 0:
            found.append(("kcore-warning", "there are more warnings"))
            break
        found.append(("kcore-warning", text))
    return tuple(found)


def _words(error: Exception) -> tuple[str, str]:
    """The code by gRPC's name, and by HTTP's number."""
    if isinstance(error, ApiError):
        return _CODES[error.reason.value].name, metrics.http_code(error.reason)
    if isinstance(error, DecodeError):
        return grpc.StatusCode.INVALID_ARGUMENT.name, metrics.http_code(Reason.INVALID)
    return grpc.StatusCode.INTERNAL.name, metrics.INTERNAL


async def _in_time(context: Context, method: Method, call: Call, body: bytes) -> bytes:
    """The answer, unless nobody waits for it any more."""
    left = context.time_remaining()
    if left is not None and left <= 0:
        raise ApiError(Reason.UNAVAILABLE, "the deadline had passed before the call was looked at")
    # Where the caller has said how long it waits, gRPC cancels the call then.
    own = left is None or left > UNARY_SECONDS
    try:
        async with asyncio.timeout(UNARY_SECONDS if own else None):
            answer: bytes = await method.serve(call, body)
            return answer
    except TimeoutError:
        said = f"no answer within {UNARY_SECONDS:g} s: a write may have been applied"
        raise ApiError(Reason.UNAVAILABLE, f"{said}; ask with the same request id") from None


async def _abort(context: Context, method: Method, error: Exception, call: Call | None) -> None:
    """Ends the call with the error."""
    if isinstance(error, DecodeError):
        said = f"{method.service}.{method.name}: the request is not the message that it should be"
        error = ApiError(Reason.INVALID, said)
    if not isinstance(error, ApiError):
        logger.error("%s/%s failed", method.service, method.name, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error: see the server's log")
        return
    if not error.help:
        error.help = _next_step(error, call)
    status = fit(error)
    await context.abort(
        _CODES[status.code],
        status.message,
        (("grpc-status-details-bin", status.SerializeToString()),),
    )


def fit(error: ApiError) -> status_pb2.Status:
    """The error as a Status that metadata can carry: what is too much is counted, not said."""
    status = errors.to_status(error)
    if status.ByteSize() <= STATUS_BYTES and len(error.message) <= SAID_BYTES:
        return status
    message = _cut(error.message, SAID_BYTES)
    kept = list(error.violations)
    while True:
        left = len(error.violations) - len(kept)
        shown = [Violation(_cut(one.path, 256), _cut(one.message, 512)) for one in kept]
        if left:
            shown.append(Violation("", f"and {left} more"))
        status = errors.to_status(
            ApiError(
                error.reason,
                message,
                shown,
                retry_seconds=error.retry_seconds,
                metadata={_cut(k, 64): _cut(v, 128) for k, v in [*error.metadata.items()][:4]},
                help=_cut(error.help, 256),
            )
        )
        if status.ByteSize() <= STATUS_BYTES or not kept:
            return status
        kept = kept[: len(kept) * 3 // 4]


def _next_step(error: ApiError, call: Call | None) -> str:
    """What the caller can do to learn more."""
    if call is None or not call.resource:
        return ""
    if error.reason is Reason.INVALID and error.violations:
        # "spec.containers[0].image" is explained as "spec.containers.image".
        path = re.sub(r"\[[^\]]*\]", "", error.violations[0].path)
        plain = re.fullmatch(r"[A-Za-z0-9]+(\.[A-Za-z0-9]+)*", path)
        return f"kcore explain {call.resource}{f'.{path}' if plain else ''}"
    return ""


def _weigh(pairs: Iterable[tuple[str, str | bytes]]) -> None:
    """Refuses metadata that is too much: gRPC's own limit lets a multiple of it pass."""
    said = ""
    count = total = 0
    for key, value in pairs:
        count += 1
        total += len(key) + len(value)
        if len(value) > METADATA_VALUE_BYTES:
            said = f"{_cut(key, 64)} has {len(value)} bytes, at most {METADATA_VALUE_BYTES}"
    if count > METADATA_PAIRS:
        said = f"{count} entries, at most {METADATA_PAIRS}"
    elif total > METADATA_BYTES:
        said = f"{total} bytes, at most {METADATA_BYTES}"
    if said:
        raise ApiError(Reason.EXHAUSTED, f"the call's metadata is too large: {said} are allowed")


def _cut(text: str, size: int) -> str:
    encoded = text.encode()
    if len(encoded) <= size:
        return text
    return encoded[: size - 3].decode(errors="ignore") + "…"
