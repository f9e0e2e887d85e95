"""What is etcd's own: many writers, lost answers, death, certificates, no space, foreign hands."""

import asyncio
import contextlib
import datetime
import functools
import os
import pathlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore import admission
from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel import kernel
from kcore.kernel.record import Record, Verb
from kcore.kernel.store import Conflict, Refused, Store, TooLarge
from kcore.kernel.store.etcd import EtcdStore
from kcore.kernel.store.etcd_client import Endpoints, Etcd
from kcore.kernel.store.mark import Mark
from kcore.wire.errors import ApiError, Reason
from tests.kernel import etcd_server
from tests.kernel import world as worlds
from tests.kernel.etcd_server import Server
from tests.kernel.test_store import A, B, all_of, fill, record, reopened
from tests.kernel.world import CONFIG_MAP, World, config_map, refused

pytestmark = pytest.mark.skipif(not etcd_server.there(), reason="etcd is not installed")


@contextlib.asynccontextmanager
async def kernel_on(store: Store, seed: int | None = None) -> AsyncIterator[World]:
    """A kernel on real time."""
    clock = SystemClock()
    table = admission.BY_KIND
    async with kernel.opened(store, worlds.kinds(), table, clock, Chance(seed)) as opened:
        made = World(opened, clock)  # type: ignore[arg-type]
        with contextlib.suppress(ApiError):
            await made.create(worlds.NAMESPACE, worlds.namespace("default"))
        yield made


@pytest.fixture
def own(tmp_path: pathlib.Path) -> Iterator[Any]:
    """Makes etcds of the test's own."""
    made: list[Server] = []

    def make(*flags: str, **more: Any) -> Server:
        folder = tmp_path / f"etcd{len(made)}"
        folder.mkdir()
        made.append(Server(folder, *flags, **more).start())
        return made[-1]

    yield make
    for server in made:
        server.kill()


# Several writers.


async def test_who_comes_too_late_appends_nothing() -> None:
    server = etcd_server.shared()
    prefix = server.prefix()
    first, second = server.store(prefix), server.store(prefix)
    await first.open()
    await second.open()
    with pytest.raises(Conflict):
        # The second's opening was a write, too.
        await first.append([record(1, A, Verb.CREATE)], {})
    assert await all_of(first.since(0)) == []
    await first.append([record(1, A, Verb.CREATE)], {})
    with pytest.raises(Conflict):
        await second.append([record(1, B, Verb.CREATE)], {})
    assert await all_of(second.since(0)) == [record(1, A, Verb.CREATE)]
    # What has been read by the store, but is not known to whoever appends, is no licence.
    with pytest.raises(Conflict):
        await second.append([record(1, B, Verb.CREATE)], {})
    await second.append([record(2, B, Verb.CREATE)], {})
    assert await first.head() == 2
    assert await asyncio.wait_for(first.moved(1), 5) == 2
    assert [one.revision for one in await all_of(first.since(0))] == [1, 2]
    await first.compact(1)
    await second.compact(2)
    assert (await reopened(first)).compacted == 2
    assert [one.revision for one in await all_of(first.replay())] == [1, 2]
    await first.close()
    await second.close()


async def increment(w: World, name: str) -> None:
    """One more, whoever else counts."""
    while True:
        answer = await w.kernel.get(pb.GetRequest(ref=worlds.ref(CONFIG_MAP, name)))
        response = pb.GetResponse.FromString(answer)
        found = worlds.kinds().kind(CONFIG_MAP).parse(response.object)
        found.data["n"] = str(int(found.data["n"]) + 1)
        try:
            await w.update(CONFIG_MAP, found)
            return
        except ApiError as error:
            assert error.reason is Reason.CONFLICT, error


async def test_two_kernels_count() -> None:
    each = 100 if os.environ.get("KCORE_STORMS") else 10
    server = etcd_server.shared()
    prefix = server.prefix()
    async with (
        kernel_on(server.store(prefix)) as one,
        kernel_on(server.store(prefix)) as other,
    ):
        await one.create(CONFIG_MAP, config_map("count", n="0"))

        async def client(w: World) -> None:
            for _ in range(each):
                await increment(w, "count")

        await asyncio.gather(*[client(one if index % 2 else other) for index in range(16)])
        for w in (one, other):
            answer = await w.kernel.get(pb.GetRequest(ref=worlds.ref(CONFIG_MAP, "count")))
            body = pb.GetResponse.FromString(answer).object
            assert worlds.kinds().kind(CONFIG_MAP).parse(body).data["n"] == str(16 * each)
        assert one.head == other.head
    store = server.store(prefix)
    await store.open()
    counted = [one for one in await all_of(store.replay()) if one.key.name == "count"]
    await store.close()
    numbers = [worlds.kinds().kind(CONFIG_MAP).parse(one.body).data["n"] for one in counted]
    assert numbers == [str(number) for number in range(16 * each + 1)]


async def test_a_watch_sees_what_another_kernel_writes() -> None:
    server = etcd_server.shared()
    prefix = server.prefix()
    async with (
        kernel_on(server.store(prefix)) as writing,
        kernel_on(server.store(prefix)) as watching,
    ):
        request = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)])
        names: list[str] = []

        async def watch() -> None:
            async for data in watching.kernel.watch(request):
                for event in pb.WatchResponse.FromString(data).events:
                    names.append(worlds.kinds().kind(CONFIG_MAP).parse(event.object).metadata.name)
                if len(names) == 50:
                    return

        following = asyncio.create_task(watch())
        for index in range(50):
            await writing.create(CONFIG_MAP, config_map(f"c{index}"))
        await asyncio.wait_for(following, 10)
        assert names == [f"c{index}" for index in range(50)]
        # The same request is one transaction, whoever is asked.
        create = worlds.create(CONFIG_MAP, config_map("once"))
        first = await writing.run(create, request_id="r")
        assert (await watching.run(create, request_id="r")).revision == first.revision


# Answers that get lost.


class Proxy:
    """Stands before an etcd and loses answers of transactions, made or still to be made."""

    def __init__(self, server: Server) -> None:
        self._upstream = grpc.aio.insecure_channel(server.url.removeprefix("http://"))
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        # What to do with the transactions to come: "", "lose", "late"; "hold": lost on the way,
        # which the caller is told when `held` is set.
        self.plan: list[str] = []
        self.fired: list[str] = []
        self.held = asyncio.Event()
        self._late: list[asyncio.Task[bytes]] = []

    async def __aenter__(self) -> "Proxy":
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._late, return_exceptions=True)
        await self._server.stop(0)
        await self._upstream.close()

    def service(self, details: Any) -> Any:
        if details.method.endswith("/Watch"):
            stream = functools.partial(self._stream, details.method)
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(functools.partial(self._one, details.method))

    async def _one(self, path: str, request: bytes, context: Any) -> bytes:
        what = self.plan.pop(0) if path.endswith("/Txn") and self.plan else ""
        if what == "late":

            async def later() -> bytes:
                await asyncio.sleep(0.3)
                return await self._upstream.unary_unary(path)(request)

            self._late.append(asyncio.create_task(later()))
        elif what == "hold":
            await self.held.wait()
        else:
            try:
                answer: bytes = await self._upstream.unary_unary(path)(request)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details())
        if what:
            self.fired.append(what)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return answer

    async def _stream(self, path: str, requests: Any, context: Any) -> AsyncIterator[bytes]:
        try:
            async for answer in self._upstream.stream_stream(path)(requests):
                yield answer
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())


@pytest.mark.parametrize("what", ["lose", "late"])
async def test_a_lost_answer_is_found_out(what: str) -> None:
    server = etcd_server.shared()
    async with Proxy(server) as proxy, kernel_on(server.store(url=proxy.url)) as w:
        await w.create(CONFIG_MAP, config_map("count", n="0"))
        head = w.head
        for number in range(1, 11):
            proxy.plan = [what]
            await increment(w, "count")
            assert w.get(CONFIG_MAP, "count").data["n"] == str(number)
        assert proxy.fired == [what] * 10
        await asyncio.sleep(0.5)
        assert w.head == head + 10
        answer = await w.kernel.get(pb.GetRequest(ref=worlds.ref(CONFIG_MAP, "count")))
        assert pb.GetResponse.FromString(answer).revision == head + 10
        assert w.get(CONFIG_MAP, "count").data["n"] == "10"


async def test_nobody_else_is_overwritten_while_an_answer_is_awaited() -> None:
    server = etcd_server.shared()
    prefix = server.prefix()
    async with Proxy(server) as proxy:
        slow, quick = server.store(prefix, url=proxy.url), server.store(prefix)
        await slow.open()
        await quick.open()
        # Opening is a write, too.
        assert await all_of(slow.since(0)) == []
        proxy.plan = ["hold"]
        appended = asyncio.create_task(slow.append([record(1, A, Verb.CREATE)], {}))
        follows = asyncio.create_task(slow.moved(0))
        while proxy.plan:
            await asyncio.sleep(0.01)
        # Somebody else writes the same object meanwhile, and the slow one could know.
        await quick.append([record(1, A, Verb.CREATE)], {})
        await asyncio.sleep(0.3)
        proxy.held.set()
        with pytest.raises(Conflict):
            await appended
        assert await asyncio.wait_for(follows, 5) == 1
        assert len(await all_of(slow.since(0))) == 1
        await slow.close()
        await quick.close()


async def test_lost_answers_with_two_writers() -> None:
    server = etcd_server.shared()
    prefix = server.prefix()
    async with (
        Proxy(server) as proxy,
        kernel_on(server.store(prefix, url=proxy.url)) as shaky,
        kernel_on(server.store(prefix)) as steady,
    ):
        await steady.create(CONFIG_MAP, config_map("count", n="0"))
        proxy.plan = ["lose", "", "late", ""] * 100

        async def client(w: World) -> None:
            for _ in range(8):
                await increment(w, "count")

        await asyncio.gather(client(shaky), client(steady), client(shaky), client(steady))
        assert "lose" in proxy.fired and "late" in proxy.fired
        await asyncio.sleep(0.5)
        answer = await steady.kernel.get(pb.GetRequest(ref=worlds.ref(CONFIG_MAP, "count")))
        body = pb.GetResponse.FromString(answer).object
        assert worlds.kinds().kind(CONFIG_MAP).parse(body).data["n"] == "32"


# Death.


async def test_what_was_acknowledged_survives_etcds_death(own: Any) -> None:
    server: Server = own()
    prefix = server.prefix()
    acknowledged: list[tuple[str, int]] = []
    unknown: list[str] = []
    async with kernel_on(server.store(prefix)) as w:
        stopping = asyncio.Event()

        async def write(number: int) -> None:
            count = 0
            while not stopping.is_set():
                count += 1
                name = f"w{number}-{count}"
                try:
                    result = await w.run(worlds.create(CONFIG_MAP, config_map(name)))
                    acknowledged.append((name, result.revision))
                except ApiError as error:
                    assert error.reason in (Reason.UNAVAILABLE, Reason.EXHAUSTED), error
                    unknown.append(name)
                    await asyncio.sleep(0.05)

        writing = [asyncio.create_task(write(number)) for number in range(8)]
        for _ in range(3):
            before = len(acknowledged)
            while len(acknowledged) < before + 200:
                await asyncio.sleep(0.01)
            server.kill()
            with refused(Reason.UNAVAILABLE, server.url):
                await w.kernel.get(pb.GetRequest(ref=worlds.ref(CONFIG_MAP, "w1-1")))
            await asyncio.to_thread(server.start)
        before = len(acknowledged)
        while len(acknowledged) < before + 200:
            await asyncio.sleep(0.01)
        stopping.set()
        await asyncio.gather(*writing)
        head = w.head
    store = server.store(prefix)
    await store.open()
    created = [one for one in await all_of(store.replay()) if one.key.kind == CONFIG_MAP]
    await store.close()
    found = {one.key.name: one.revision for one in created}
    assert len(found) == len(created) and max(found.values()) == head
    assert all(found.get(name) == revision for name, revision in acknowledged)
    assert set(found) <= {name for name, _ in acknowledged} | set(unknown)


async def test_an_etcd_that_comes_late_is_waited_for(tmp_path: pathlib.Path) -> None:
    server = Server(tmp_path)
    opening = asyncio.create_task(_first_head(server))
    await asyncio.sleep(0.7)
    assert not opening.done()
    await asyncio.to_thread(server.start)
    try:
        assert await asyncio.wait_for(opening, 20) == 1
    finally:
        server.kill()


async def _first_head(server: Server) -> int:
    async with kernel_on(server.store()) as w:
        return w.head


# Certificates.


class Authority:
    """Signs certificates, into a folder."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._sign(self._subject, self._key, True).public_bytes(
            serialization.Encoding.PEM
        )
        (folder / f"{name}.crt").write_bytes(self.pem)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, False)
        pems = (
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        (self.folder / f"{self.name}-{name}.crt").write_bytes(pems[0])
        (self.folder / f"{self.name}-{name}.key").write_bytes(pems[1])
        return pems

    def _sign(self, subject: x509.Name, key: Any, authority: bool) -> x509.Certificate:
        import ipaddress

        now = datetime.datetime(2020, 1, 1)
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


async def test_certificates(own: Any, tmp_path: pathlib.Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    ours.issue("server")
    server = own(
        f"--cert-file={tmp_path}/ours-server.crt",
        f"--key-file={tmp_path}/ours-server.key",
        f"--trusted-ca-file={tmp_path}/ours.crt",
        "--client-cert-auth",
        scheme="https",
    )

    async def opened(url: str = server.url, **tls: Any) -> int:
        store = EtcdStore(Endpoints((url,), **tls), SystemClock(), Chance())
        try:
            return (await store.open()).epoch
        finally:
            await store.close()

    certificate, key = ours.issue("client")
    assert await opened(authority=ours.pem, certificate=certificate, key=key) == 1
    with refused(Reason.UNAVAILABLE, "") as caught:
        await opened(authority=ours.pem)
    assert caught.error is not None and server.url in str(caught.error)
    assert "refused our certificate" in str(caught.error) or "client cert" in str(caught.error)
    certificate, key = theirs.issue("client")
    with refused(Reason.UNAVAILABLE, "certificate"):
        await opened(authority=ours.pem, certificate=certificate, key=key)
    certificate, key = ours.issue("client")
    with refused(Reason.UNAVAILABLE, "not from the authority that was given"):
        await opened(authority=theirs.pem, certificate=certificate, key=key)
    with refused(Reason.UNAVAILABLE, "etcd at http://"):
        await opened(url=server.url.replace("https", "http"))


# Limits.


async def test_no_space(own: Any) -> None:
    server = own("--quota-backend-bytes=4194304")
    async with kernel_on(server.store()) as w:
        big = "x" * 200_000
        with refused(Reason.EXHAUSTED, "alarm NOSPACE") as caught:
            for index in range(100):
                await w.apply(CONFIG_MAP, config_map(f"c{index % 3}", k=f"{index}{big}"))
        assert caught.error is not None and caught.error.retry_seconds
        # Reading goes on.
        found = await w.kernel.list(pb.ListRequest(selection=pb.Selection(kind=CONFIG_MAP)))
        assert len(pb.ListResponse.FromString(found).items) == 3
        # Some room, as the error says: old versions are compacted all the same.
        await w.kernel.compact(w.head)
        control = ["etcdctl", f"--endpoints={server.url}"]
        environment = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"}
        with refused(Reason.EXHAUSTED, "alarm NOSPACE"):
            await w.create(CONFIG_MAP, config_map("small"))
        for words in (["defrag"], ["alarm", "disarm"]):
            subprocess.run([*control, *words], check=True, env=environment, capture_output=True)
        await w.create(CONFIG_MAP, config_map("small"))
        assert w.there(CONFIG_MAP, "small")


async def test_an_etcd_that_nobody_configured_will_do() -> None:
    async with kernel_on(etcd_server.shared().store()) as w:
        # More writers than fit into one transaction of etcd's, and more bytes.
        made = [config_map(f"c{i}", k="x" * (20_000 if i % 3 else 10)) for i in range(400)]
        await asyncio.gather(*[w.create(CONFIG_MAP, one) for one in made])
        assert w.head == 401
        # One transaction is never split.
        operations = [worlds.create(CONFIG_MAP, config_map(f"d{i}")) for i in range(200)]
        with refused(Reason.INVALID, "raise its --max-txn-ops"):
            await w.run(*operations)
        await w.run(*operations[:127])
        operations = [worlds.create(CONFIG_MAP, config_map(f"e{i}", k="x" * 900_000)) for i in "ab"]
        with refused(Reason.INVALID, "raise its --max-request-bytes"):
            await w.run(*operations)
        assert w.head == 402


async def test_a_configured_etcd_takes_all_that_the_api_allows(own: Any) -> None:
    server = own("--max-txn-ops=10000", "--max-request-bytes=8388608")
    async with kernel_on(server.store()) as w:
        await w.run(*[worlds.create(CONFIG_MAP, config_map(f"d{i}")) for i in range(512)])
        large = [config_map(f"e{i}", k="x" * 1_400_000) for i in "ab"]
        await w.run(*[worlds.create(CONFIG_MAP, one) for one in large])
    store = server.store("/other")
    await store.open()
    with pytest.raises(TooLarge):
        await store.append([record(1, A, Verb.CREATE, body=b"x" * (9 << 20))], {})
    await store.append([record(1, A, Verb.CREATE)], {})
    await store.close()


# Compaction.


async def test_what_etcd_forgot_is_gone() -> None:
    server = etcd_server.shared()
    store = server.store()
    records = await _filled(store)
    # By somebody else's hand.
    etcd = Etcd(server.endpoints())
    await etcd.compact(store._places[1])
    with refused(Reason.GONE, "compacted"):
        await store.at(A, 1)
    with refused(Reason.GONE, "compacted"):
        await all_of(store.since(0))
    assert await all_of(store.since(2)) == records[2:]
    opened = await reopened(store)
    assert (opened.head, opened.compacted) == (5, 5)
    await store.append([record(6, B)], {})
    assert [one.revision for one in await all_of(store.replay())] == [4, 4, 6]
    await etcd.close()
    await store.close()


async def _filled(store: Store) -> list[Record]:
    await store.open()
    return await fill(store)


# Foreign hands.


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("put o/k.A/default/a x", "revision|no kcore|damaged"),
        ("del o/k.A/default/b", "no kcore|missing or foreign"),
        ("put o/k.A/default/z x", "no kcore|damaged"),
        ("del head", "no head|deleted"),
        ("put head x", "head is damaged"),
    ],
)
async def test_damage_is_refused(damage: str, said: str) -> None:
    server = etcd_server.shared()
    prefix = server.prefix()
    store = server.store(prefix)
    await _filled(store)
    await store.close()
    verb, key, *value = damage.split()
    command = ["etcdctl", f"--endpoints={server.url}", verb, f"{prefix}/{key}", *value]
    environment = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    for _ in range(2):
        with pytest.raises(Refused, match=said):
            await store.open()
            await all_of(store.replay())
    await store.close()


async def test_an_etcd_that_has_forgotten_is_refused(own: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mark"
    server, empty = own(), own()
    store = server.store("/kcore", mark=Mark(path))
    await _filled(store)
    await reopened(store)
    await store.close()
    with pytest.raises(Refused, match=r"there is no database, but .* knows of revision 5"):
        await empty.store("/kcore", mark=Mark(path)).open()
    other = empty.store("/kcore")
    await _filled(other)
    await other.close()
    with pytest.raises(Refused, match="knows of cluster"):
        await empty.store("/kcore", mark=Mark(path)).open()
