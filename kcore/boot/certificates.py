"""The cluster's certificates: one authority, the apiserver's own, one for each component.

Beside them a bearer token for the owner, for clients that have no certificate.

    ensure(pki, ca, node, clock, chance)          # all files, made or kept or renewed
    certificate, key = files(pki, SCHEDULER)      # paths for a channel

`authority`, `server` and `client` are pure but for the keys, which only the system's entropy may
make. A certificate says who its holder is as in Kubernetes: the common name is the user, the
organizations are the groups. Files are written as a whole or not at all; what is there and good is
kept, what has less than a third of its life left is made anew (the authority's with its old key, so
that what it has signed stays good).

It must not know who uses the certificates, nor what they permit.
"""

import contextlib
import datetime
import functools
import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kcore.chance import Chance
from kcore.clock import Clock

DAY_SECONDS = 86_400
AUTHORITY_SECONDS = 3_650 * DAY_SECONDS
LEAF_SECONDS = 365 * DAY_SECONDS
# Clocks of other machines may be behind.
BACKDATED_SECONDS = 3_600
RENEW_SHARE = 1 / 3

AUTHORITY = "ca"
SERVER = "apiserver"
ADMIN = "admin"
CONTROLLER_MANAGER = "controller-manager"
SCHEDULER = "scheduler"
KUBELET = "kubelet"
PROXY = "kube-proxy"
DNS = "kube-dns"
ADMIN_TOKEN = "admin.token"
# What service accounts' tokens are signed with; it never changes, or all of them were void.
ACCOUNT_KEY = "sa.key"
TOKEN_LETTERS = 40

SERVICE_ADDRESS = "10.96.0.1"
SERVICE_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """What a component's certificate says of it; `name` is that of its files."""

    name: str
    user: str
    groups: tuple[str, ...] = ()


def identities(node: str) -> tuple[Identity, ...]:
    """Those of a machine that runs everything."""
    return (
        Identity(ADMIN, "kcore-admin", ("system:masters",)),
        Identity(CONTROLLER_MANAGER, "system:kube-controller-manager"),
        Identity(SCHEDULER, "system:kube-scheduler"),
        Identity(KUBELET, f"system:node:{node}", ("system:nodes",)),
        Identity(PROXY, "system:kube-proxy"),
        Identity(DNS, "system:kube-dns"),
    )


def files(pki: Path, name: str) -> tuple[Path, Path]:
    """Where a certificate and its key are."""
    return pki / f"{name}.crt", pki / f"{name}.key"


def authority(now: float, chance: Chance, key: bytes | None = None) -> Pair:
    """A new authority, or one more certificate for the key of an old one."""
    own = _new_key() if key is None else _read_key(key)
    subject = _name("kcore-ca", ())
    public = own.public_key()
    builder = (
        _builder(subject, subject, public, now, AUTHORITY_SECONDS, chance)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _sign(builder, own, own)


def server(
    ca: Pair, names: Iterable[str], addresses: Iterable[str], now: float, chance: Chance
) -> Pair:
    """A server's certificate, good for these names and addresses."""
    known: list[x509.GeneralName] = [x509.DNSName(name) for name in sorted(set(names))]
    known += [x509.IPAddress(ipaddress.ip_address(one)) for one in sorted(set(addresses))]
    return _leaf(
        ca,
        _name("kcore-apiserver", ()),
        ExtendedKeyUsageOID.SERVER_AUTH,
        x509.SubjectAlternativeName(known),
        now,
        chance,
    )


def client(ca: Pair, user: str, groups: Sequence[str], now: float, chance: Chance) -> Pair:
    """A certificate that says that its holder is `user`, of `groups`."""
    subject = _name(user, groups)
    return _leaf(ca, subject, ExtendedKeyUsageOID.CLIENT_AUTH, None, now, chance)


def ensure(
    pki: Path,
    ca: Path,
    node: str,
    clock: Clock,
    chance: Chance,
    addresses: Iterable[str] | None = None,
) -> None:
    """Makes what is missing or due in `pki`, and the authority's certificate at `ca` for everybody.

    `addresses` of this machine, at which others will dial the apiserver; None: looked up.
    """
    now = clock.now()
    pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = [*(machine_addresses() if addresses is None else addresses)]
    root = _ensure_authority(pki, now, chance)
    # Everybody may read it, and nobody else's umask decides that.
    if not ca.exists() or ca.read_bytes() != root.certificate:
        ca.parent.mkdir(parents=True, exist_ok=True)
        _write(ca, root.certificate, 0o644)
    names = ("localhost", socket.gethostname(), node, *SERVICE_NAMES)
    known = ("127.0.0.1", "::1", SERVICE_ADDRESS, *found)
    have = _read(pki, SERVER)
    if have is None or not _good(have, root, now) or not _covers(have, names, known):
        _keep(pki, SERVER, server(root, names, known, now, chance))
    for identity in identities(node):
        have = _read(pki, identity.name)
        subject = _name(identity.user, identity.groups)
        if have is None or not _good(have, root, now) or _load(have.certificate).subject != subject:
            _keep(pki, identity.name, client(root, identity.user, identity.groups, now, chance))
    token = pki / ADMIN_TOKEN
    if not token.exists():
        _write(token, chance.token(TOKEN_LETTERS).encode(), 0o600)
    account_key = pki / ACCOUNT_KEY
    if not account_key.exists():
        _write(account_key, _pem(_new_key()), 0o600)


def due(certificate: bytes, now: float) -> bool:
    """Whether a certificate should be replaced: less than a third of its life is left."""
    loaded = _load(certificate)
    start = loaded.not_valid_before_utc.timestamp()
    end = loaded.not_valid_after_utc.timestamp()
    return now < start or end - now < (end - start) * RENEW_SHARE


def machine_addresses() -> list[str]:
    """This machine's own addresses, as far as others would dial them."""
    found: set[str] = set()
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # Nothing is sent: the kernel only says from which address it would be.
        with (
            contextlib.suppress(OSError),
            socket.socket(family, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect((far, 9))
            found.add(probe.getsockname()[0].partition("%")[0])
    with contextlib.suppress(OSError):
        for one in socket.getaddrinfo(socket.gethostname(), None):
            found.add(str(one[4][0]).partition("%")[0])
    return sorted(found)


def reachable_address() -> str:
    """The IPv4 address at which pods can dial this machine; "" if it has none."""
    found = (ipaddress.ip_address(one) for one in machine_addresses())
    return next((str(one) for one in found if one.version == 4 and not one.is_loopback), "")


def _ensure_authority(pki: Path, now: float, chance: Chance) -> Pair:
    have = _read(pki, AUTHORITY)
    if have is not None and _matches(have):
        if not due(have.certificate, now):
            return have
        renewed = authority(now, chance, have.key)
    else:
        renewed = authority(now, chance)
    _keep(pki, AUTHORITY, renewed)
    return renewed


def _good(pair: Pair, ca: Pair, now: float) -> bool:
    if not _matches(pair) or due(pair.certificate, now):
        return False
    try:
        _load(pair.certificate).verify_directly_issued_by(_load(ca.certificate))
    except Exception:
        # Signed by another authority, or not a signature at all: either way not ours.
        return False
    return True


def _matches(pair: Pair) -> bool:
    """Whether key and certificate belong together: a crash may have come between their files."""
    try:
        own = _read_key(pair.key).public_key()
        return own == _load(pair.certificate).public_key()
    except ValueError:
        return False


def _covers(pair: Pair, names: Iterable[str], addresses: Iterable[str]) -> bool:
    extension = _load(pair.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    has_names = set(extension.value.get_values_for_type(x509.DNSName))
    has_addresses = {str(one) for one in extension.value.get_values_for_type(x509.IPAddress)}
    wanted = {str(ipaddress.ip_address(one)) for one in addresses}
    return set(names) <= has_names and wanted <= has_addresses


def _read(pki: Path, name: str) -> Pair | None:
    certificate, key = files(pki, name)
    try:
        return Pair(certificate.read_bytes(), key.read_bytes())
    except FileNotFoundError:
        return None


def _keep(pki: Path, name: str, pair: Pair) -> None:
    certificate, key = files(pki, name)
    _write(key, pair.key, 0o600)
    _write(certificate, pair.certificate, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """As a whole or not at all; never readable by more than `mode` says, not even for a moment."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    part.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _leaf(
    ca: Pair,
    subject: x509.Name,
    purpose: x509.ObjectIdentifier,
    names: x509.SubjectAlternativeName | None,
    now: float,
    chance: Chance,
) -> Pair:
    own, signer = _new_key(), _read_key(ca.key)
    issuer = _load(ca.certificate)
    builder = (
        _builder(subject, issuer.subject, own.public_key(), now, LEAF_SECONDS, chance)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return _sign(builder, own, signer)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: float,
    seconds: float,
    chance: Chance,
) -> x509.CertificateBuilder:
    start = datetime.datetime.fromtimestamp(int(now) - BACKDATED_SECONDS, datetime.UTC)
    end = datetime.datetime.fromtimestamp(int(now + seconds), datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(chance.integer(1, 2**159 - 1))
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder,
    own: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> Pair:
    signed = builder.sign(signer, hashes.SHA256())
    return Pair(signed.public_bytes(serialization.Encoding.PEM), _pem(own))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
    return x509.Name(parts)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key


@functools.lru_cache(maxsize=64)
def _load(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)
