"""Service accounts' tokens: made, told apart from forgeries, void when what they are of has gone.

    accounts = Accounts(key_pem, kernel, clock)
    token, expires = accounts.issue(account, pod, audiences, seconds)
    user = accounts.user(token)         # UNAUTHENTICATED unless it is good, now
    accounts.lasts(user)                # whether it still is

A token is a JWT in Kubernetes' shape, signed by the cluster's own key with ES256 and nothing else:
what a token says of algorithm and key is compared, never obeyed. It must not know who may have one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kcore.apiserver.authorize import POD, SERVICE_ACCOUNT
from kcore.apiserver.identity import ACCOUNT_PREFIX, Claim, User, account_groups
from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kernel.record import Key, Stored
from kcore.wire.errors import ApiError, Reason

# Who has made a token, and, unless it says otherwise, whom it is for.
ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
DEFAULT_SECONDS: Final = 3600
LEAST_SECONDS: Final = 600
MOST_SECONDS: Final = 1 << 32

_ALGORITHM: Final = "ES256"
_KNOWN: Final = 4096


class Objects(Protocol):
    """What is asked of the kernel."""

    def shown(self, key: Key) -> Stored | None:
        """One object as it is seen here."""
        ...


class Accounts:
    """The tokens of one cluster."""

    def __init__(self, key: bytes, objects: Objects, clock: Clock, chance: Chance) -> None:
        """`key`: PEM of a private key on P-256."""
        private = serialization.load_pem_private_key(key, password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("the key of service accounts is not an elliptic curve key")
        self._private = private
        self._public = private.public_key()
        spki = self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = hashlib.sha256(spki).hexdigest()[:32]
        self._objects = objects
        self._clock = clock
        self._chance = chance
        # Whose signature was found good, by digest: what time and objects say is asked each time.
        self._known: dict[bytes, tuple[User, float]] = {}

    def issue(
        self,
        account: Stored,
        pod: Stored | None,
        audiences: Sequence[str],
        seconds: int,
    ) -> tuple[str, int]:
        """A token, and when it ends."""
        now = int(self._clock.now())
        namespace, name = account.key.namespace, account.key.name
        bound: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account.uid},
        }
        if pod is not None:
            bound["pod"] = {"name": pod.key.name, "uid": pod.uid}
        expires = now + (seconds or DEFAULT_SECONDS)
        claims = {
            "iss": ISSUER,
            "sub": f"{ACCOUNT_PREFIX}{namespace}:{name}",
            "aud": list(audiences) or [ISSUER],
            "iat": now,
            "nbf": now,
            "exp": expires,
            "jti": self._chance.token(32),
            "kubernetes.io": bound,
        }
        made = jwt.encode(
            claims, self._private, algorithm=_ALGORITHM, headers={"kid": self._key_id}
        )
        return made, expires

    def user(self, token: str) -> User:
        """Whose token it is; UNAUTHENTICATED unless it is good, now."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._read(token)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[digest] = known
        user, not_before = known
        if not_before > self._clock.now():
            raise _refused("it is not good yet")
        if not self.lasts(user):
            raise _refused("it has expired, or the account or the pod that it was for has gone")
        return user

    def lasts(self, user: User) -> bool:
        """Whether what the user's token is bound to is still there."""
        claim = user.claim
        if claim is None:
            return True
        if claim.expires <= self._clock.now():
            return False
        account = self._objects.shown(Key(SERVICE_ACCOUNT, claim.namespace, claim.account))
        if account is None or account.uid != claim.account_uid:
            return False
        if not claim.pod_uid:
            return True
        pod = self._objects.shown(Key(POD, claim.namespace, claim.pod))
        return pod is not None and pod.uid == claim.pod_uid

    def _read(self, token: str) -> tuple[User, float]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != _ALGORITHM or header.get("kid") != self._key_id:
                raise _refused("it was not signed by this cluster's key")
            # Time is the clock's, below.
            claims = jwt.decode(
                token,
                self._public,
                algorithms=[_ALGORITHM],
                audience=ISSUER,
                issuer=ISSUER,
                options={
                    "require": ["iss", "sub", "aud", "iat", "nbf", "exp", "kubernetes.io"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError as error:
            raise _refused(str(error)) from error
        return _user(claims), _seconds(claims, "nbf")


def _user(claims: Mapping[str, Any]) -> User:
    bound = _part(claims, "kubernetes.io")
    account = _part(bound, "serviceaccount")
    pod = _part(bound, "pod") if "pod" in bound else {"name": "", "uid": ""}
    claim = Claim(
        namespace=_text(bound, "namespace"),
        account=_text(account, "name"),
        account_uid=_text(account, "uid"),
        pod=_text(pod, "name"),
        pod_uid=_text(pod, "uid"),
        expires=_seconds(claims, "exp"),
    )
    name = f"{ACCOUNT_PREFIX}{claim.namespace}:{claim.account}"
    if claims["sub"] != name:
        raise _refused("its subject is not its account")
    return User(name, account_groups(claim.namespace), claim)


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    if not isinstance(found, dict):
        raise _refused(f"{name} is no object")
    return found


def _text(of: Mapping[str, Any], name: str) -> str:
    found = of.get(name)
    if not isinstance(found, str):
        raise _refused(f"{name} is no text")
    return found


def _seconds(of: Mapping[str, Any], name: str) -> float:
    found = of.get(name)
    if not isinstance(found, int) or isinstance(found, bool):
        raise _refused(f"{name} is no number")
    return float(found)


def _refused(why: str) -> ApiError:
    return ApiError(Reason.UNAUTHENTICATED, f"the service account's token is not good: {why}")
