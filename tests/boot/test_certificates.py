"""Certificates hold in real TLS handshakes, are kept while good and renewed when due."""

import contextlib
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from kcore.boot import certificates
from kcore.chance import Chance
from kcore.clock import SystemClock

NOW = 1_767_225_600.0
DAY = certificates.DAY_SECONDS


class Calendar:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def make(tmp_path: Path, now: float | None = None) -> tuple[Path, Path]:
    """All files, as of `now`; None: today, as a TLS library sees it."""
    clock = SystemClock() if now is None else Calendar(now)
    pki, ca = tmp_path / "pki", tmp_path / "etc" / "ca.crt"
    certificates.ensure(pki, ca, "n1", clock, Chance(7), addresses=["192.0.2.7"])
    return pki, ca


def handshake(pki: Path, ca: Path, name: str, client: str | None) -> dict[str, object]:
    """Connects; what the server saw of the client's certificate."""
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(*certificates.files(pki, certificates.SERVER))
    listening.load_verify_locations(ca)
    listening.verify_mode = ssl.CERT_REQUIRED if client else ssl.CERT_NONE
    dialling = ssl.create_default_context(cafile=str(ca))
    if client:
        dialling.load_cert_chain(*certificates.files(pki, client))
    near, far = socket.socketpair()
    seen: list[dict[str, object]] = []

    def serve() -> None:
        # A dialler that does not trust us hangs up; it is the one who says so.
        with (
            contextlib.suppress(ssl.SSLError),
            listening.wrap_socket(near, server_side=True) as peer,
        ):
            seen.append(dict(peer.getpeercert() or {}))
            peer.sendall(b"k")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with dialling.wrap_socket(far, server_hostname=name) as connection:
            assert connection.recv(1) == b"k"
    finally:
        far.close()
        thread.join()
    return seen[0]


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1",
        "::1",
        "n1",
        "192.0.2.7",
        "10.96.0.1",
        "kubernetes",
        "kubernetes.default.svc",
        socket.gethostname(),
    ],
)
def test_the_server_is_trusted_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    pki, ca = make(tmp_path)
    handshake(pki, ca, name, None)


def test_another_name_is_refused(tmp_path: Path) -> None:
    pki, ca = make(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(pki, ca, "example.org", None)


def test_a_component_is_known_by_its_certificate(tmp_path: Path) -> None:
    pki, ca = make(tmp_path)
    seen = handshake(pki, ca, "localhost", certificates.KUBELET)
    subject = {key: value for part in seen["subject"] for key, value in part}  # type: ignore[attr-defined]
    assert subject == {"organizationName": "system:nodes", "commonName": "system:node:n1"}


def test_keys_are_for_their_owner_alone_and_the_authority_for_everybody(tmp_path: Path) -> None:
    pki, ca = make(tmp_path)
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in pki.iterdir()} == {0o600}
    assert stat.S_IMODE(ca.stat().st_mode) == 0o644
    assert b"PRIVATE" not in ca.read_bytes()


def contents(pki: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(pki.iterdir())}


def test_what_is_good_is_kept(tmp_path: Path) -> None:
    pki, _ = make(tmp_path, NOW)
    before = contents(pki)
    make(tmp_path, NOW + 200 * DAY)
    assert contents(pki) == before


def test_what_is_due_is_renewed_and_the_authority_keeps_its_key(tmp_path: Path) -> None:
    pki, _ = make(tmp_path, NOW)
    before = contents(pki)
    make(tmp_path, NOW + 300 * DAY)
    after = contents(pki)
    assert after["ca.crt"] == before["ca.crt"]
    assert after["apiserver.crt"] != before["apiserver.crt"]
    assert after["scheduler.crt"] != before["scheduler.crt"]

    make(tmp_path, NOW + 2_600 * DAY)
    late = contents(pki)
    assert late["ca.crt"] != before["ca.crt"]
    assert late["ca.key"] == before["ca.key"]
    old = x509.load_pem_x509_certificate(after["scheduler.crt"])
    old.verify_directly_issued_by(x509.load_pem_x509_certificate(late["ca.crt"]))


def test_a_key_without_its_certificate_is_made_anew(tmp_path: Path) -> None:
    pki, _ = make(tmp_path, NOW)
    certificate, key = certificates.files(pki, certificates.SCHEDULER)
    key.write_bytes(certificates.files(pki, certificates.ADMIN)[1].read_bytes())
    broken = certificate.read_bytes()
    make(tmp_path, NOW)
    assert certificate.read_bytes() != broken
    key.unlink()
    make(tmp_path, NOW)
    assert key.exists()


def test_another_address_needs_another_certificate(tmp_path: Path) -> None:
    pki, ca = make(tmp_path, NOW)
    before = contents(pki)
    certificates.ensure(pki, ca, "n1", Calendar(NOW), Chance(7), addresses=["192.0.2.8"])
    after = contents(pki)
    assert {name for name in after if after[name] != before[name]} == {
        "apiserver.crt",
        "apiserver.key",
    }


def test_the_machine_has_an_address() -> None:
    for address in certificates.machine_addresses():
        assert socket.getaddrinfo(address, 1)
