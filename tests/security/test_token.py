"""Service accounts' tokens at the TLS listener: who has one, what ends it, and forgeries (S62)."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import auth_pb2
from kcore_api.kcore.core.v1 import service_account_pb2

from kcore.apiserver import token as tokens
from kcore.apiserver.identity import AUTHENTICATED, NODES, User
from kcore.apiserver.run import Listeners, owner
from kcore.apiserver.services import Call
from kcore.boot import certificates
from kcore.chance import Chance
from kcore.client import channel
from kcore.client.kubeconfig import Target
from kcore.clock import SystemClock
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import POD, World, node, pod, world
from tests.security.test_permission import binding, cluster_role, make

ACCOUNT = "kcore.core.v1.ServiceAccount"
ROBOT = "system:serviceaccount:default:robot"
KUBELET = User("system:node:n1", (NODES, AUTHENTICATED))
METHOD = "/kcore.api.v1.AuthService/CreateToken"


@dataclass
class House:
    """A server with the account robot, its pod on n1, and who may read pods."""

    world: World
    pki: Path
    ca: Path

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        pem = (self.pki / certificates.ACCOUNT_KEY).read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    async def issue(self, user: User | None = None, **asked: Any) -> str:
        """A token, by the service's own method."""
        method = self.world.apiserver.services.find(METHOD)
        assert method is not None
        session = self.world.session(user) if user is not None else self.world.session()
        request = auth_pb2.CreateTokenRequest(**{"namespace": "default", "name": "robot", **asked})
        streams = self.world.apiserver.streams(session.user)
        answer = await method.serve(Call(session, streams), request.SerializeToString())
        return auth_pb2.CreateTokenResponse.FromString(answer).token

    async def who(self, token: str) -> auth_pb2.WhoAmIResponse:
        """Who the holder is, over the TLS listener."""
        target = Target(
            grpc=f"127.0.0.1:{self.world.ports[1]}", authority=self.ca.read_bytes(), token=token
        )
        async with channel.connect(target) as dialled:
            return await dialled.who_am_i()

    async def refused(self, token: str) -> str:
        with pytest.raises(ApiError) as raised:
            await self.who(token)
        assert raised.value.reason is Reason.UNAUTHENTICATED
        return raised.value.message


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    pki, ca = tmp_path / "pki", tmp_path / "ca.crt"
    certificates.ensure(pki, ca, "n1", SystemClock(), Chance(), addresses=[])
    certificate, key = certificates.files(pki, certificates.SERVER)
    listeners = Listeners(
        socket=tmp_path / "kcore.sock",
        tls="127.0.0.1:0",
        certificate=certificate,
        key=key,
        tokens=owner(pki / certificates.ADMIN_TOKEN),
        account_key=pki / certificates.ACCOUNT_KEY,
    )
    async with world(tmp_path, listeners) as there:
        account = service_account_pb2.ServiceAccount()
        account.metadata.name, account.metadata.namespace = "robot", "default"
        one, other = pod("p", "n1"), pod("q", "n2")
        one.spec.service_account_name = other.spec.service_account_name = "robot"
        await make(there.session(), account, node("n1"), node("n2"), one, other)
        await make(
            there.session(),
            cluster_role("reader", ("get list watch", "core", "pods", "")),
            binding("reader", "ClusterRole", "reader", ROBOT),
        )
        yield House(there, pki, ca)


async def test_a_token_says_who_its_holder_is(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        made = await here.issue(pod="p")
        found = await here.who(made)
        assert found.user == ROBOT
        assert list(found.groups) == [
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated",
        ]
        claims = jwt.decode(made, options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == 3600
        assert claims["kubernetes.io"]["pod"]["name"] == "p"


@pytest.mark.parametrize(
    ("kind", "name", "bound"), [(POD, "p", "p"), (ACCOUNT, "robot", "p"), (ACCOUNT, "robot", "")]
)
async def test_S62_a_token_is_void_when_what_it_is_of_has_gone(
    tmp_path: Path, kind: str, name: str, bound: str
) -> None:
    async with house(tmp_path) as here:
        made = await here.issue(pod=bound)
        user = here.world.apiserver.accounts.user(made)  # type: ignore[union-attr]
        session = here.world.session(user)
        listing = pb.ListRequest(selection=pb.Selection(kind=POD))
        await session.list(listing)
        request = pb.CommitRequest()
        operation = request.transactions.add().operations.add(
            ref=pb.Ref(kind=kind, namespace="default", name=name)
        )
        operation.delete.grace_seconds = 0
        await here.world.session().commit(request)
        assert "has gone" in await here.refused(made)
        # Also for who came in before.
        with pytest.raises(ApiError) as raised:
            await session.list(listing)
        assert raised.value.reason is Reason.FORBIDDEN
        if kind == ACCOUNT:
            again = service_account_pb2.ServiceAccount()
            again.metadata.name, again.metadata.namespace = "robot", "default"
            await make(here.world.session(), again)
            await here.refused(made)


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ({"pod": "p"}, True),
        ({"pod": "q"}, False),
        ({"pod": "gone"}, False),
        ({}, False),
        ({"pod": "p", "name": "default"}, False),
        ({"pod": "p", "namespace": "kube-system"}, False),
    ],
)
async def test_S61_a_kubelet_has_tokens_of_its_own_pods(
    tmp_path: Path, asked: dict[str, str], allowed: bool
) -> None:
    async with house(tmp_path) as here:
        if allowed:
            assert (await here.who(await here.issue(KUBELET, **asked))).user == ROBOT
        else:
            with pytest.raises(ApiError) as raised:
                await here.issue(KUBELET, **asked)
            assert raised.value.reason in (Reason.FORBIDDEN, Reason.NOT_FOUND, Reason.INVALID)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"name": ""}, Reason.INVALID),
        ({"expiration_seconds": 60}, Reason.INVALID),
        ({"expiration_seconds": -1}, Reason.INVALID),
        ({"pod_uid": "x"}, Reason.INVALID),
        ({"pod": "p", "pod_uid": "x"}, Reason.CONFLICT),
        ({"name": "none"}, Reason.NOT_FOUND),
        ({"pod": "none"}, Reason.NOT_FOUND),
    ],
)
async def test_what_no_token_is_made_of(
    tmp_path: Path, asked: dict[str, Any], reason: Reason
) -> None:
    async with house(tmp_path) as here:
        with pytest.raises(ApiError) as raised:
            await here.issue(**asked)
        assert raised.value.reason is reason
        with pytest.raises(ApiError) as raised:
            await here.issue(User("alice", (AUTHENTICATED,)))
        assert raised.value.reason is Reason.FORBIDDEN


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({}, {"aud": ["other"]}),
        ({}, {"aud": None}),
        ({}, {"iss": "https://evil"}),
        ({}, {"exp": 1}),
        ({}, {"exp": "99999999999"}),
        ({}, {"exp": None}),
        ({}, {"exp": True}),
        ({}, {"nbf": 99_999_999_999}),
        ({}, {"nbf": "0"}),
        ({}, {"sub": "system:serviceaccount:kube-system:admin"}),
        ({}, {"kubernetes.io": None}),
        ({}, {"kubernetes.io": {"namespace": "default"}}),
        ({"kid": "../../dev/null"}, {}),
        ({"kid": None}, {}),
        ({"kid": ""}, {}),
        ({"kid": 1}, {}),
    ],
    ids=str,
)
async def test_S62_what_is_signed_and_wrong_is_refused(
    tmp_path: Path, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    async with house(tmp_path) as here:
        good = await here.issue()
        said = {**jwt.decode(good, options={"verify_signature": False}), **claims}
        said = {name: value for name, value in said.items() if value is not None}
        heads = {**jwt.get_unverified_header(good), **header}
        signing = f"{_part({k: v for k, v in heads.items() if v is not None})}.{_part(said)}"
        made = jwt.PyJWS().get_algorithm_by_name("ES256").sign(signing.encode(), here.key)
        forged = f"{signing}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
        await here.refused(forged)
        # Made the same way and not wrong, it would be good.
        same = f"{_part(jwt.get_unverified_header(good))}.{good.split('.')[1]}"
        made = jwt.PyJWS().get_algorithm_by_name("ES256").sign(same.encode(), here.key)
        await here.who(f"{same}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}")


async def test_S62_another_algorithm_or_key_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        good = await here.issue()
        body = good.split(".")[1]
        heads = jwt.get_unverified_header(good)
        public = here.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for algorithm in ("none", "None", "", "HS256", "ES384"):
            signing = f"{_part({**heads, 'alg': algorithm})}.{body}"
            made = hmac.new(public, signing.encode(), hashlib.sha256).digest()
            mac = base64.urlsafe_b64encode(made).rstrip(b"=").decode()
            for signature in ("", mac, good.split(".")[2]):
                await here.refused(f"{signing}.{signature}")
        claims = jwt.decode(good, options={"verify_signature": False})
        other = ec.generate_private_key(ec.SECP256R1())
        await here.refused(jwt.encode(claims, other, "ES256", headers={"kid": heads["kid"]}))
        own = {"jwk": {"kty": "EC"}, "x5u": "https://evil/", "kid": heads["kid"]}
        await here.refused(jwt.encode(claims, other, "ES256", headers=own))
        for broken in (good[:-4], good + "AAAA", f"..{body}", "a.b.c", good.replace(".", "..", 1)):
            await here.refused(broken)


async def test_S62_a_token_for_somebody_else_is_not_for_this_server(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.refused(await here.issue(audiences=["vault"]))
        both = await here.issue(audiences=["vault", tokens.ISSUER])
        assert (await here.who(both)).user == ROBOT
