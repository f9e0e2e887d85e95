"""Who a caller is, at each listener, by real handshakes; and what a call's metadata may say."""

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import auth_pb2, typed_pb2

from kcore.apiserver.run import Listeners, owner
from kcore.boot import certificates
from kcore.chance import Chance
from kcore.client import channel
from kcore.client.channel import OPTIONS, Channel
from kcore.client.kubeconfig import Target
from kcore.clock import SystemClock
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import CONFIG_MAP, SECRET, World, config_map, create, ref, world

WHO = "/kcore.api.v1.AuthService/WhoAmI"


@asynccontextmanager
async def listening(tmp_path: Path) -> AsyncIterator[tuple[World, Path, Path]]:
    """All three listeners; the directory of keys, and the authority."""
    pki, ca = tmp_path / "pki", tmp_path / "ca.crt"
    certificates.ensure(pki, ca, "n1", SystemClock(), Chance(), addresses=[])
    certificate, key = certificates.files(pki, certificates.SERVER)
    listeners = Listeners(
        socket=tmp_path / "kcore.sock",
        tls="127.0.0.1:0",
        mutual="127.0.0.1:0",
        certificate=certificate,
        key=key,
        authority=ca,
        tokens=owner(pki / certificates.ADMIN_TOKEN),
    )
    async with world(tmp_path, listeners) as there:
        yield there, pki, ca


def mutual(there: World, pki: Path, ca: Path, name: str) -> Target:
    certificate, key = certificates.files(pki, name)
    return Target(
        grpc=f"127.0.0.1:{there.ports[2]}",
        authority=ca.read_bytes(),
        client_certificate=certificate.read_bytes(),
        client_key=key.read_bytes(),
    )


def bearer(there: World, ca: Path, **token: str) -> Target:
    return replace(
        Target(grpc=f"127.0.0.1:{there.ports[1]}", authority=ca.read_bytes()),
        **token,  # type: ignore[arg-type]
    )


async def who(dialled: Channel) -> tuple[str, list[str]]:
    answer = await dialled.who_am_i()
    return answer.user, list(answer.groups)


async def test_the_socket_is_roots_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        assert stat.S_IMODE(there.socket.stat().st_mode) == 0o600
        assert await who(there.channel) == (
            "kcore-admin",
            ["system:masters", "system:authenticated"],
        )


async def test_a_socket_in_use_is_not_taken_and_a_dead_one_is(tmp_path: Path) -> None:
    path = tmp_path / "kcore.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    async with world(tmp_path) as there:
        with pytest.raises(OSError, match="another server does"):
            async with world(tmp_path):
                pass
        assert (await who(there.channel))[0] == "kcore-admin"


@pytest.mark.parametrize(
    ("name", "user", "groups"),
    [
        (certificates.ADMIN, "kcore-admin", ["system:masters"]),
        (certificates.CONTROLLER_MANAGER, "system:kube-controller-manager", []),
        (certificates.SCHEDULER, "system:kube-scheduler", []),
        (certificates.KUBELET, "system:node:n1", ["system:nodes"]),
    ],
)
async def test_a_certificate_says_who_its_holder_is(
    tmp_path: Path, name: str, user: str, groups: list[str]
) -> None:
    async with (
        listening(tmp_path) as (there, pki, ca),
        channel.connect(mutual(there, pki, ca, name)) as dialled,
    ):
        assert await who(dialled) == (user, [*groups, "system:authenticated"])
        ask = auth_pb2.CanIRequest(verb="create", kind=SECRET, namespace="default")
        allowed = user in ("kcore-admin", "system:kube-controller-manager")
        assert (await dialled.can_i(ask)).allowed == allowed


async def test_a_token_says_who_its_holder_is(tmp_path: Path) -> None:
    async with listening(tmp_path) as (there, pki, ca):
        file = pki / certificates.ADMIN_TOKEN
        for target in (
            bearer(there, ca, token=file.read_text()),
            bearer(there, ca, token_file=str(file)),
        ):
            async with channel.connect(target) as dialled:
                assert (await who(dialled))[0] == "kcore-admin"


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "no credentials: send `authorization: Bearer TOKEN`"),
        ("wrong", "the bearer token is not known"),
        ("a.b.c", "the bearer token is not known"),
    ],
)
async def test_other_tokens_are_not_known(tmp_path: Path, token: str, message: str) -> None:
    async with (
        listening(tmp_path) as (there, _, ca),
        channel.connect(bearer(there, ca, token=token)) as dialled,
    ):
        with pytest.raises(ApiError) as raised:
            await dialled.who_am_i()
        assert raised.value.reason is Reason.UNAUTHENTICATED
        assert raised.value.message.startswith(message)
        # Streams ask as well.
        with pytest.raises(ApiError) as raised:
            await anext(dialled.link("n1"))
        assert raised.value.reason is Reason.UNAUTHENTICATED


async def test_certificates_are_no_tokens(tmp_path: Path) -> None:
    """The TLS listener asks nobody for a certificate, and believes none."""
    async with listening(tmp_path) as (there, pki, ca):
        certificate, key = certificates.files(pki, certificates.ADMIN)
        target = replace(
            bearer(there, ca),
            client_certificate=certificate.read_bytes(),
            client_key=key.read_bytes(),
        )
        async with channel.connect(target) as dialled:
            with pytest.raises(ApiError) as raised:
                await dialled.who_am_i()
            assert raised.value.reason is Reason.UNAUTHENTICATED


async def test_without_a_certificate_the_mtls_listener_lets_nobody_in(tmp_path: Path) -> None:
    async with listening(tmp_path) as (there, pki, ca):
        token = (pki / certificates.ADMIN_TOKEN).read_text()
        target = replace(bearer(there, ca, token=token), grpc=f"127.0.0.1:{there.ports[2]}")
        async with channel.connect(target) as dialled:
            with pytest.raises(ApiError) as raised:
                await dialled.who_am_i()
            assert raised.value.reason is Reason.UNAVAILABLE


async def test_a_certificate_of_another_authority_lets_nobody_in(tmp_path: Path) -> None:
    async with listening(tmp_path) as (there, _, ca):
        strangers, other_ca = tmp_path / "other", tmp_path / "other.crt"
        certificates.ensure(strangers, other_ca, "n1", SystemClock(), Chance(), addresses=[])
        stranger = mutual(there, strangers, ca, certificates.ADMIN)
        async with channel.connect(stranger) as dialled:
            with pytest.raises(ApiError) as raised:
                await dialled.who_am_i()
            assert raised.value.reason is Reason.UNAVAILABLE
        target = replace(bearer(there, other_ca), token="x")
        async with channel.connect(target) as dialled:
            with pytest.raises(ApiError, match="is it another cluster's"):
                await dialled.who_am_i()


async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    async with listening(tmp_path) as (there, pki, ca):
        token = (pki / certificates.ADMIN_TOKEN).read_text()
        for _ in range(2):
            async with channel.connect(bearer(there, ca, token=token)) as dialled:
                assert (await who(dialled))[0] == "kcore-admin"
            # Another authority altogether: only who reads again can serve under it.
            for file in pki.iterdir():
                if file.name != certificates.ADMIN_TOKEN:
                    file.unlink()
            certificates.ensure(pki, ca, "n1", SystemClock(), Chance(), addresses=[])


async def test_who_may_can_be_somebody_else(tmp_path: Path) -> None:
    async with listening(tmp_path) as (there, pki, ca), raw(there) as dialled:
        call = dialled.unary_unary(WHO)
        metadata = (
            ("kcore-impersonate-user", "alice"),
            ("kcore-impersonate-group", "dev"),
            ("kcore-impersonate-group", "ops"),
        )
        answer = auth_pb2.WhoAmIResponse.FromString(await call(b"", metadata=metadata))
        assert answer.user == "alice"
        assert list(answer.groups) == ["dev", "ops", "system:authenticated"]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await dialled.unary_unary("/kcore.core.v1.PodService/List")(b"", metadata=metadata)
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert 'User "alice" cannot list' in (raised.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", metadata=metadata[1:])
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        manager = mutual(there, pki, ca, certificates.CONTROLLER_MANAGER)
        async with channel.connect(manager) as other:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await other._channel.unary_unary(WHO)(b"", metadata=metadata)
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_typed_call_says_its_cause_and_its_id_in_metadata(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        make = dialled.unary_unary("/kcore.core.v1.ConfigMapService/Create")
        body = typed_pb2.TypedWriteRequest(object=config_map("a").SerializeToString())
        metadata = (("kcore-request-id", "once"), ("kcore-because", "1"))
        first = await make(body.SerializeToString(), metadata=metadata)
        assert await make(body.SerializeToString(), metadata=metadata) == first
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await make(body.SerializeToString(), metadata=(("kcore-because", "x"),))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_server_that_has_forgotten_what_was_seen_refuses(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        dialled = there.channel
        known = await dialled.kinds(pb.KindsRequest())
        await dialled.commit(create(CONFIG_MAP, config_map("a")))
        await dialled.get(pb.GetRequest(ref=ref(CONFIG_MAP, "a")))
        dialled._seen += 1
        with pytest.raises(ApiError) as raised:
            await dialled.get(pb.GetRequest(ref=ref(CONFIG_MAP, "a")))
        assert raised.value.reason is Reason.REFUSED
        assert "it has lost writes" in raised.value.message
        dialled._cluster, dialled._seen = f"another/{known.epoch}", 0
        with pytest.raises(ApiError, match=f"this is cluster {known.cluster_id}"):
            await dialled.get(pb.GetRequest(ref=ref(CONFIG_MAP, "a")))


@asynccontextmanager
async def raw(there: World) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{there.socket}", options=OPTIONS) as dialled:
        yield dialled
