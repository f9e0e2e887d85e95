"""Who a caller is.

Each listener has one way to tell: the Unix socket is root's alone (`of_socket`), the mTLS listener
asks for a certificate (`of_certificate`), the TLS listener for a bearer token (`Tokens`). An
`Identify` is given a call's metadata and its connection's properties; what it cannot tell is
`ApiError(UNAUTHENTICATED)`. It must not know what anybody may do.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from kcore.wire.errors import ApiError, Reason

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
ACCOUNT_PREFIX = "system:serviceaccount:"
ACCOUNTS = "system:serviceaccounts"
# Of gRPC: the peer's certificate among a connection's properties.
PEER_CERTIFICATE = "x509_pem_cert"

# A call's metadata: the last value of each key.
Metadata = Mapping[str, str]
# A connection's properties, as gRPC gives them.
Connection = Mapping[str, Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a service account's token is bound to: it is good no longer than all of it is there."""

    namespace: str
    account: str
    account_uid: str
    # Empty: no pod.
    pod: str
    pod_uid: str
    # Seconds since 1970.
    expires: float


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, by name, and the groups they are in."""

    name: str
    groups: tuple[str, ...] = ()
    # Of those who came by a service account's token.
    claim: Claim | None = None

    @property
    def node(self) -> str:
        """The node whose kubelet this is; empty: it is no kubelet."""
        if NODES in self.groups and self.name.startswith(NODE_PREFIX):
            return self.name.removeprefix(NODE_PREFIX)
        return ""


def account_of(name: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user is; None: it is none."""
    if not name.startswith(ACCOUNT_PREFIX):
        return None
    namespace, _, account = name.removeprefix(ACCOUNT_PREFIX).partition(":")
    return (namespace, account) if namespace and account else None


def account_groups(namespace: str) -> tuple[str, ...]:
    """The groups of a namespace's service accounts."""
    return ACCOUNTS, f"{ACCOUNTS}:{namespace}", AUTHENTICATED


Identify = Callable[[Metadata, Callable[[], Connection]], User]

ADMIN = User("kcore-admin", (MASTERS, AUTHENTICATED))
# Whoever does not say who they are, where that is not asked.
ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


def of_socket(metadata: Metadata, connection: Callable[[], Connection]) -> User:
    """Whoever can open the socket is root."""
    return ADMIN


def of_certificate(metadata: Metadata, connection: Callable[[], Connection]) -> User:
    """The certificate's common name is the user, its organizations are the groups."""
    pem = next(iter(connection().get(PEER_CERTIFICATE, ())), None)
    if pem is None:
        raise ApiError(Reason.UNAUTHENTICATED, "this listener takes client certificates only")
    return _read(pem)


@functools.lru_cache(maxsize=1024)
def _read(pem: bytes) -> User:
    subject = x509.load_pem_x509_certificate(pem).subject
    names = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(names) != 1 or not names[0]:
        raise ApiError(Reason.UNAUTHENTICATED, "the client certificate must have one common name")
    groups = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return User(names[0], (*groups, AUTHENTICATED))


class Tokens:
    """Bearer tokens: those known beforehand, and service accounts'.

    The former are kept as digests: a lookup tells nothing by time.
    """

    def __init__(
        self, users: Mapping[str, User], of_account: Callable[[str], User] | None = None
    ) -> None:
        """`users` by token; `of_account` says whose a JWT is, or raises UNAUTHENTICATED."""
        self._of_account = of_account
        self._users = {_digest(token): user for token, user in users.items()}

    def __call__(self, metadata: Metadata, connection: Callable[[], Connection]) -> User:
        """The holder of the call's token."""
        said = metadata.get("authorization", "")
        if not said:
            raise ApiError(
                Reason.UNAUTHENTICATED,
                "no credentials: send `authorization: Bearer TOKEN`, or use the mTLS listener",
            )
        scheme, _, token = said.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise ApiError(Reason.UNAUTHENTICATED, "authorization must be `Bearer TOKEN`")
        user = self._users.get(_digest(token))
        if user is not None:
            return user
        if token.count(".") == 2 and self._of_account is not None:
            return self._of_account(token)
        raise ApiError(Reason.UNAUTHENTICATED, "the bearer token is not known")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
