"""The door to etcd: keys, transactions and watches over gRPC.

    etcd = Etcd(Endpoints(("https://10.0.0.1:2379",), authority, certificate, key))
    await etcd.txn(request)
    async with aclosing(etcd.watch(request)) as responses: ...
    await etcd.close()

It talks to one endpoint until that fails, then to the next. Nothing is tried twice: what a failure
means is for whoever asked. Errors are told apart by what they say of the request: `ApiError`
UNAVAILABLE (the outcome is unknown), GONE (compacted), `Full` and `TooLarge` (nothing was done).
Knows nothing of what the keys mean.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message
from kcore_api.etcdserverpb import rpc_pb2 as pb

from kcore.kernel.store import Full, Refused, TooLarge
from kcore.wire.errors import ApiError, Reason

M = TypeVar("M", bound=Message)

_OPTIONS: Final = (
    # What etcd answers is as large as what was written to it.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A silent loss of the connection is noticed.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # An etcd that starts again is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
# Without a leader etcd shall say so at once, and not wait for one.
_METADATA: Final = (("hasleader", "true"),)
_READ_SECONDS: Final = 5.0
_WRITE_SECONDS: Final = 10.0
# What TLS says, and what it means to people.
_TLS: Final = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not from the authority that was given"),
    ("Hostname Verification Check failed", "its certificate is for another name"),
    ("Peer name", "its certificate is for another name"),
    ("TSI_DATA_CORRUPTED", "it refused our certificate, or we have none"),
    ("BAD_CERTIFICATE", "it refused our certificate"),
    ("CERTIFICATE_REQUIRED", "it wants a client certificate, and we have none"),
    ("UNKNOWN_CA", "it does not know the authority of our certificate"),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS: use http://"),
    ("TSI_PROTOCOL_FAILURE", "TLS failed: one of the two certificates is not accepted"),
)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where etcd is, and with which certificates it is spoken to; all are PEM."""

    # https://host:port, http://host:port or unix:///path
    urls: tuple[str, ...]
    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("no endpoint of etcd is given")
        for url in self.urls:
            _target(url)


def _target(url: str) -> tuple[str, bool]:
    """What gRPC dials, and whether with TLS."""
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.netloc + parts.path:
        return f"unix:{parts.netloc}{parts.path}", False
    if parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/"):
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{host}:{parts.port or 2379}", parts.scheme == "https"
    raise ValueError(
        f"{url!r} is no endpoint of etcd: expected http(s)://host:port or unix:///path"
    )


class Etcd:
    """A connection to one etcd cluster. Needs a running loop."""

    def __init__(self, endpoints: Endpoints) -> None:
        """Nothing is dialled before the first call."""
        self._endpoints = endpoints
        self._current = 0
        self._channels: dict[int, grpc.aio.Channel] = {}

    @property
    def endpoint(self) -> str:
        """The one that is spoken to."""
        return self._endpoints.urls[self._current]

    async def range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        """Reads keys."""
        return await self._call("KV/Range", request, pb.RangeResponse, _READ_SECONDS)

    async def txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        """One transaction. UNAVAILABLE leaves unknown whether it was, or will be, made."""
        return await self._call("KV/Txn", request, pb.TxnResponse, _WRITE_SECONDS)

    async def compact(self, revision: int) -> None:
        """Forgets what was before a revision of etcd's, unless it has already."""
        request = pb.CompactionRequest(revision=revision)
        try:
            await self._call("KV/Compact", request, pb.CompactionResponse, _WRITE_SECONDS)
        except ApiError as error:
            if error.reason is not Reason.GONE:
                raise

    async def watch(self, request: pb.WatchCreateRequest) -> AsyncGenerator[pb.WatchResponse, None]:
        """Changes of whole revisions, in order. `Compacted` where the start is forgotten."""
        which, endpoint = self._current, self.endpoint
        stream: Any = self._channel().stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )(metadata=_METADATA)
        try:
            await stream.write(pb.WatchRequest(create_request=request))
            while True:
                response: Any = await stream.read()
                if response is grpc.aio.EOF:
                    raise ApiError(Reason.UNAVAILABLE, f"etcd at {endpoint}: the watch has ended")
                if response.canceled:
                    if response.compact_revision:
                        raise Compacted(response.compact_revision)
                    said = response.cancel_reason or "the watch was cancelled"
                    raise ApiError(Reason.UNAVAILABLE, f"etcd at {endpoint}: {said}")
                if response.events:
                    yield response
        except grpc.aio.AioRpcError as error:
            raise self._said(error, which) from error
        except (grpc.aio.UsageError, asyncio.CancelledError) as error:
            _check_cancelled(error)
            raise ApiError(Reason.UNAVAILABLE, f"etcd at {endpoint}: hung up") from error
        finally:
            stream.cancel()

    async def close(self) -> None:
        """Hangs up."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def _call(self, path: str, request: Message, answer: type[M], seconds: float) -> M:
        which = self._current
        call: Any = self._channel().unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            answered: M = await call(request, timeout=seconds, metadata=_METADATA)
        except grpc.aio.AioRpcError as error:
            raise self._said(error, which) from error
        except (grpc.aio.UsageError, asyncio.CancelledError) as error:
            _check_cancelled(error)
            said = f"etcd at {self._endpoints.urls[which]}: hung up"
            raise ApiError(Reason.UNAVAILABLE, said) from error
        return answered

    def _channel(self) -> grpc.aio.Channel:
        found = self._channels.get(self._current)
        if found is None:
            target, secure = _target(self.endpoint)
            if secure:
                of = self._endpoints
                credentials = grpc.ssl_channel_credentials(of.authority, of.key, of.certificate)
                found = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
            else:
                found = grpc.aio.insecure_channel(target, options=_OPTIONS)
            self._channels[self._current] = found
        return found

    def _said(self, error: grpc.aio.AioRpcError, which: int) -> Exception:
        """What a failed call means."""
        code, text = error.code(), error.details() or ""
        where = f"etcd at {self._endpoints.urls[which]}"
        if code is grpc.StatusCode.OUT_OF_RANGE:
            return ApiError(Reason.GONE, f"{where}: {text}")
        if "database space exceeded" in text:
            return Full(
                f"{where} has no space left (alarm NOSPACE): free some with `etcdctl defrag`, "
                "then `etcdctl alarm disarm`"
            )
        if "too many operations" in text:
            return TooLarge(f"{where} takes fewer operations at once: raise its --max-txn-ops")
        if "request is too large" in text or "larger than max" in text:
            return TooLarge(f"{where} takes fewer bytes at once: raise its --max-request-bytes")
        if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED):
            return Refused(f"{where}: {text}")
        if which == self._current:
            self._current = (which + 1) % len(self._endpoints.urls)
        for sign, meaning in _TLS:
            if sign.lower() in text.lower():
                text = f"{meaning} ({sign})"
                break
        return ApiError(Reason.UNAVAILABLE, f"{where}: {text or code.name}", retry_seconds=1.0)


def _check_cancelled(error: BaseException) -> None:
    """Goes on raising where the caller was cancelled, and not the call under his hands."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error


class Compacted(Exception):
    """The beginning that was asked for is forgotten; etcd remembers from `revision`."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"etcd remembers from its revision {revision}")
        self.revision = revision
