"""What callers of any gRPC server may expect: limits, deadlines, health, errors with a way on."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore import admission
from kcore.apiserver import serve
from kcore.apiserver.allowance import Allowance
from kcore.apiserver.run import Listeners, serving
from kcore.boot import certificates
from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel import kernel
from kcore.kernel.store.memory import MemoryStore
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason, Violation
from tests.apiserver.world import CONFIG_MAP, compiled, config_map, create, ref, until, world

WATCH = "/kcore.api.v1.ApiService/Watch"
GET = "/kcore.api.v1.ApiService/Get"
COMMIT = "/kcore.api.v1.ApiService/Commit"
WHO = "/kcore.api.v1.AuthService/WhoAmI"
CHECK = "/grpc.health.v1.Health/Check"


def test_what_one_user_has_is_bounded_and_others_have_theirs() -> None:
    allowance = Allowance(calls_per_user=2, streams_per_user=1, bytes_per_user=100)
    leases = [allowance.take("a", streaming) for streaming in (False, False, True)]
    for streaming in (False, True):
        with pytest.raises(ApiError) as raised:
            allowance.take("a", streaming)
        assert raised.value.reason is Reason.EXHAUSTED
        assert raised.value.retry_seconds
    other = allowance.take("b", False)
    assert (allowance.calls, allowance.streams) == (3, 1)
    # One alone may be of any size.
    leases[0].hold(1000)
    with pytest.raises(ApiError, match="1000 bytes of answers unread"):
        leases[1].hold(1)
    with pytest.raises(ApiError, match="1000 bytes of answers unread"):
        allowance.take("a", False)
    other.hold(1)
    leases[0].hold(50)
    leases[1].hold(50)
    assert allowance.bytes == 101
    for lease in (*leases, other):
        lease.release()
    assert (allowance.calls, allowance.streams, allowance.bytes) == (0, 0, 0)
    assert not allowance._taken


async def test_whoever_does_not_read_is_not_answered_for_ever(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there.socket) as dialled:
        there.apiserver.allowance.bytes_per_user = 2 << 20
        heavy = config_map("a", value="v" * 1_400_000)
        await there.session().commit(create(CONFIG_MAP, heavy))
        asked = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)]).SerializeToString()
        calls = [dialled.unary_stream(WATCH)(asked) for _ in range(10)]
        # Nobody reads: the first are stuck, the others are told.
        await until(lambda: there.apiserver.allowance.streams < 10)
        assert there.apiserver.allowance.bytes <= 3 << 20
        for call in calls:
            call.cancel()
        await until(lambda: not there.apiserver.allowance._taken)


@pytest.mark.parametrize("path", [GET, WATCH])
async def test_whatever_way_a_call_ends_its_allowance_comes_back(tmp_path: Path, path: str) -> None:
    async with world(tmp_path) as there, raw(there.socket) as dialled:
        calls = []
        for number in range(60):
            if path == GET:
                body = pb.GetRequest(ref=ref("kcore.core.v1.Namespace", "default", ""))
                call: Any = dialled.unary_unary(path)(body.SerializeToString())
            else:
                asked = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)])
                call = dialled.unary_stream(path)(asked.SerializeToString())
            calls.append(call)
            if number % 3 == 0:
                await asyncio.sleep(0.001)
            if number % 2 or path == WATCH:
                call.cancel()
        await dialled.unary_unary(path)(b"\xff").code()
        await asyncio.gather(*(call.code() for call in calls))
        await until(lambda: not there.apiserver.allowance._taken)


async def test_too_many_streams_of_one_user_are_refused_and_others_served(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there.socket) as dialled:
        there.apiserver.allowance.streams_per_user = 3
        asked = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)]).SerializeToString()
        async with AsyncExitStack() as stack:
            for _ in range(3):
                call = dialled.unary_stream(WATCH)(asked)
                stack.callback(call.cancel)
                await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await dialled.unary_stream(WATCH)(asked).read()
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert said(raised.value, error_details_pb2.RetryInfo)
            other = (
                ("kcore-impersonate-user", "alice"),
                ("kcore-impersonate-group", "system:masters"),
            )
            call = dialled.unary_stream(WATCH)(asked, metadata=other)
            assert await call.read()
            call.cancel()
        await until(lambda: not there.apiserver.allowance.streams)
        call = dialled.unary_stream(WATCH)(asked)
        assert await call.read()
        call.cancel()


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((("x-one", "v" * (9 << 10)),), id="one value"),
        pytest.param(tuple((f"x-{n}", "v" * 1000) for n in range(14)), id="all together"),
        pytest.param(tuple((f"x-{n}", "v") for n in range(100)), id="many"),
        pytest.param((("x-one-bin", b"\xff" * (9 << 10)),), id="binary"),
        pytest.param((("x-one", "v" * (1 << 20)),), id="a mebibyte"),
    ],
)
async def test_metadata_is_bounded(tmp_path: Path, metadata: Any) -> None:
    async with world(tmp_path) as there, raw(there.socket) as dialled:
        if len(metadata) == 14:
            metadata += tuple((f"y-{n}", "v" * 1000) for n in range(3))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await dialled.unary_unary(WHO)(b"", metadata=metadata)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        fine = (("x-one", "v" * (7 << 10)), ("x-bin", b"\x00\xff"))
        assert await dialled.unary_unary(WHO)(b"", metadata=fine)


async def test_who_sets_no_deadline_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "UNARY_SECONDS", 0.1)
    async with world(tmp_path) as there, raw(there.socket) as dialled:

        async def never(call: object, body: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        found = there.apiserver.services.find(GET)
        assert found is not None
        there.apiserver.services._fixed[GET] = type(found)(
            found.service, found.name, found.kind, never
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await dialled.unary_unary(GET)(b"")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "may have been applied" in (raised.value.details() or "")
        assert said(raised.value, error_details_pb2.RetryInfo)


class SlowStore(MemoryStore):
    """Appends when it is let."""

    def __init__(self, chance: Chance) -> None:
        super().__init__(chance)
        self.let = asyncio.Event()
        self.let.set()
        self.appended = 0

    async def append(self, *arguments: Any) -> None:
        await super().append(*arguments)
        self.appended += 1
        await self.let.wait()


async def test_a_commit_that_was_synced_too_late_is_answered_by_its_request_id(
    tmp_path: Path,
) -> None:
    clock, chance = SystemClock(), Chance(1)
    store = SlowStore(chance)
    socket = tmp_path / "kcore.sock"
    async with (
        kernel.opened(store, compiled(), admission.BY_KIND, clock, chance) as made,
        serving(made, Listeners(socket=socket), clock, chance),
        raw(socket) as dialled,
    ):
        pool = compiled_namespace()
        await dialled.unary_unary(COMMIT)(pool.SerializeToString())
        request = create(CONFIG_MAP, config_map("a"))
        request.transactions[0].request_id = "once"
        store.let.clear()
        before = store.appended
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await dialled.unary_unary(COMMIT)(request.SerializeToString(), timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert store.appended == before + 1
        store.let.set()
        answer = await dialled.unary_unary(COMMIT)(request.SerializeToString())
        answered = pb.CommitResponse.FromString(answer).results[0]
        assert answered.operations[0].changed
        assert answered.revision == made.head
        assert store.appended == before + 1


async def test_health_says_when_the_store_is_stuck_and_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S87."""
    from kcore.apiserver import services

    monkeypatch.setattr(services, "STUCK_SECONDS", 0.1)
    monkeypatch.setattr(services, "HEALTH_SECONDS", 0.02)
    clock, chance = SystemClock(), Chance(1)
    store = SlowStore(chance)
    socket = tmp_path / "kcore.sock"
    words = health_pb2.HealthCheckResponse
    async with (
        kernel.opened(store, compiled(), admission.BY_KIND, clock, chance) as made,
        serving(made, Listeners(socket=socket), clock, chance) as (apiserver, _),
        raw(socket) as dialled,
    ):
        asked = health_pb2.HealthCheckRequest(service="kcore.api.v1.ApiService")
        watch = dialled.unary_stream("/grpc.health.v1.Health/Watch")(asked.SerializeToString())
        assert words.FromString(await watch.read()).status == words.SERVING
        store.let.clear()
        commit = dialled.unary_unary(COMMIT)(compiled_namespace().SerializeToString())
        assert words.FromString(await watch.read()).status == words.NOT_SERVING
        checked = words.FromString(await dialled.unary_unary(CHECK)(asked.SerializeToString()))
        assert checked.status == words.NOT_SERVING
        assert apiserver.services.ready().startswith("the store has not answered for")
        store.let.set()
        assert words.FromString(await watch.read()).status == words.SERVING
        await commit
        watch.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            none = health_pb2.HealthCheckRequest(service="none").SerializeToString()
            await dialled.unary_unary(CHECK)(none)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("open_to_all", [False, True])
async def test_s46_without_credentials_only_health_answers(
    tmp_path: Path, open_to_all: bool
) -> None:
    pki, ca = tmp_path / "pki", tmp_path / "ca.crt"
    certificates.ensure(pki, ca, "n1", SystemClock(), Chance(), addresses=[])
    certificate, key = certificates.files(pki, certificates.SERVER)
    listeners = Listeners(
        socket=tmp_path / "kcore.sock",
        tls="127.0.0.1:0",
        certificate=certificate,
        key=key,
        authority=ca,
        reflects_all=open_to_all,
    )
    async with world(tmp_path, listeners) as there:
        wrapped = grpc.ssl_channel_credentials(ca.read_bytes())
        where = f"127.0.0.1:{there.ports[1]}"
        async with grpc.aio.secure_channel(where, wrapped) as dialled:
            answer = health_pb2.HealthCheckResponse.FromString(
                await dialled.unary_unary(CHECK)(b"")
            )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            for path in (GET, WHO, COMMIT):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await dialled.unary_unary(path)(b"")
                assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            for path in (WATCH, "/grpc.health.v1.Health/Watch"):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await dialled.unary_stream(path)(b"").read()
                assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            for version in ("v1", "v1alpha"):
                path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
                call = dialled.stream_stream(path)(iter([b"\x3a\x00"]))
                if open_to_all:
                    assert b"kcore.core.v1.PodService" in await call.read()
                    call.cancel()
                    continue
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call.read()
                assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_each_reason_travels_with_the_details_that_are_its_own() -> None:
    for reason in Reason:
        error = ApiError(
            reason, "no", [Violation("a.b", "bad")], metadata={"k": "v"}, help="kcore x"
        )
        status = errors.to_status(error)
        kinds = {one.type_url.rpartition("/")[2] for one in status.details}
        expected = {"google.rpc.ErrorInfo", "google.rpc.Help"}
        if reason in (Reason.UNAVAILABLE, Reason.EXHAUSTED):
            expected |= {"google.rpc.RetryInfo"}
        if reason in (Reason.CONFLICT, Reason.REFUSED, Reason.GONE):
            expected |= {"google.rpc.PreconditionFailure"}
        else:
            expected |= {"google.rpc.BadRequest"}
        assert kinds == expected
        info = error_details_pb2.ErrorInfo()
        status.details[0].Unpack(info)
        assert (info.reason, info.domain) == (reason.name, "kcore.dev")
        back = errors.from_status(status)
        assert (back.reason, back.violations, back.help) == (reason, error.violations, "kcore x")
        assert status.code == reason.value
    assert len({reason.value for reason in Reason}) == len(Reason)


@pytest.mark.parametrize("code", [1, 2, 4, 13, 15])
def test_what_transports_say_is_that_nothing_is_known(code: int) -> None:
    assert errors.from_status(status_pb2.Status(code=code)).reason is Reason.UNAVAILABLE


def test_reasons_are_those_of_the_proto() -> None:
    from kcore_api.kcore.api.v1 import errors_pb2

    named = {
        name.removeprefix("REASON_") for name in errors_pb2.Reason.DESCRIPTOR.values_by_name
    } - {"UNSPECIFIED"}
    assert named == set(Reason.__members__)


async def test_who_breaks_a_rule_is_told_where_the_field_is_explained(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        with pytest.raises(ApiError) as raised:
            await there.channel.commit(create(CONFIG_MAP, config_map("No Name")))
        assert raised.value.help == "kcore explain configmaps.metadata.name"


async def test_objects_add_no_series_to_the_metrics(tmp_path: Path) -> None:
    async with world(tmp_path) as there:

        async def some(prefix: str, count: int) -> None:
            names = [f"{prefix}{number}" for number in range(count)]
            for start in range(0, count, 100):
                part = names[start : start + 100]
                await there.channel.commit(create(CONFIG_MAP, *map(config_map, part)))
            await there.channel.commit(create(CONFIG_MAP, config_map(f"{prefix}-one")))
            await there.channel.get(pb.GetRequest(ref=ref(CONFIG_MAP, names[0])))
            with pytest.raises(ApiError):
                await there.channel.get(pb.GetRequest(ref=ref(f"kcore.{prefix}.None", names[0])))
            watched = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)])
            async with aclosing(there.channel.watch(watched)) as responses:
                await anext(responses)
            await until(lambda: not there.kernel.feed.readers)

        def series() -> set[bytes]:
            lines = there.apiserver.metrics.text().splitlines()
            return {line.rpartition(b" ")[0] for line in lines if not line.startswith(b"#")}

        await some("a", 2)
        before = series()
        await some("b", 1000)
        assert series() == before
        for name in (
            b'apiserver_request_total{code="200",resource="configmaps",subresource="",verb="GET"}',
            b'apiserver_watch_events_total{resource="configmaps"}',
            b"apiserver_current_inflight_requests",
            b"apiserver_longrunning_requests",
            b'grpc_server_started_total{grpc_method="Get",grpc_service="kcore.api.v1.ApiService",'
            b'grpc_type="unary"}',
        ):
            assert name in before
        events = f'apiserver_watch_events_total{{resource="configmaps"}} {3 + 1004}.0'
        assert events in there.apiserver.metrics.text().decode()


def compiled_namespace() -> pb.CommitRequest:
    from kcore_api.kcore.core.v1 import namespace_pb2

    made = namespace_pb2.Namespace()
    made.metadata.name = "default"
    return create("kcore.core.v1.Namespace", made)


def said(error: grpc.aio.AioRpcError, detail: Any) -> bool:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            return any(one.Is(detail.DESCRIPTOR) for one in status.details)
    return False


def raw(socket: Path) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        f"unix:{socket}", options=(("grpc.use_local_subchannel_pool", 1),)
    )
