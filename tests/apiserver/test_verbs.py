"""The five verbs through a real gRPC server: as in process, and errors as they were raised."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2

from kcore.apiserver import serve
from kcore.client import channel
from kcore.client.kubeconfig import Target
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason, Violation
from tests.apiserver.world import CONFIG_MAP, config_map, create, ref, until, world


async def test_an_object_goes_in_and_out(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        response = await there.channel.commit(create(CONFIG_MAP, config_map("a", key="value")))
        stored = response.results[0].operations[0].object
        answer = await there.channel.get(pb.GetRequest(ref=ref(CONFIG_MAP, "a")))
        assert answer.object == stored
        assert config_map_pb2.ConfigMap.FromString(stored).data["key"] == "value"
        assert await there.session().get(pb.GetRequest(ref=ref(CONFIG_MAP, "a"))) == answer


async def test_the_kinds_and_their_limits(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        answer = await there.channel.kinds(pb.KindsRequest())
        assert answer.limits.message_bytes == serve.MESSAGE_BYTES
        assert answer.cluster_id
        again = await there.channel.kinds(pb.KindsRequest(digest=answer.digest))
        assert not again.descriptors.file


async def test_a_list_goes_on_page_by_page(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        names = [f"c{number:03}" for number in range(25)]
        await there.channel.commit(create(CONFIG_MAP, *(config_map(name) for name in names)))
        got: list[str] = []
        request = pb.ListRequest(
            selection=pb.Selection(kind=CONFIG_MAP, namespace="default"), page_size=10
        )
        while True:
            page = await there.channel.list(request)
            assert page == await there.session().list(request)
            got += [config_map_pb2.ConfigMap.FromString(one).metadata.name for one in page.items]
            request.page_token = getattr(page.metadata, "continue")
            if not request.page_token:
                break
        assert got == names


async def test_a_watch_tells_the_present_then_changes(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        await there.channel.commit(create(CONFIG_MAP, config_map("a")))
        request = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)])
        async with aclosing(there.channel.watch(request)) as responses:
            first = await anext(responses)
            assert first.synced
            assert [event.type for event in first.events] == [pb.Event.ADDED]
            await there.channel.commit(create(CONFIG_MAP, config_map("b")))
            second = await anext(responses)
            body = config_map_pb2.ConfigMap.FromString(second.events[0].object)
            assert body.metadata.name == "b"
        await until(lambda: not there.kernel.feed.readers)


async def test_watches_end_when_the_server_does(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        request = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)])
        responses = there.channel.watch(request)
        await anext(responses)
        there.kernel.feed.close()
        with pytest.raises(ApiError) as raised:
            await anext(responses)
        assert raised.value.reason is Reason.UNAVAILABLE
        assert raised.value.message == "the server is shutting down"


@pytest.mark.parametrize("reason", list(Reason))
async def test_an_error_arrives_as_it_was_raised(tmp_path: Path, reason: Reason) -> None:
    async with world(tmp_path) as there:
        original = ApiError(
            reason,
            "so nicht: ümläut, \n and 100 %",
            [Violation("spec.containers[0].image", "Required value"), Violation("", "and so")],
            retry_seconds=1.5,
            metadata={"kind": "ConfigMap"},
        )

        async def refuse(call: object, body: bytes) -> bytes:
            raise original

        path = "/kcore.api.v1.ApiService/Get"
        found = there.apiserver.services.find(path)
        assert found is not None
        replaced = type(found)(found.service, found.name, found.kind, refuse)
        there.apiserver.services._fixed[path] = replaced
        with pytest.raises(ApiError) as raised:
            await there.channel.get(pb.GetRequest())
        error = raised.value
        assert (error.reason, error.message) == (original.reason, original.message)
        assert error.violations == original.violations
        assert (error.retry_seconds, error.metadata) == (1.5, {"kind": "ConfigMap"})


async def test_an_error_that_is_too_long_is_cut_politely(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        data = {f"bad key {number} ü": "" for number in range(400)}
        with pytest.raises(ApiError) as raised:
            await there.channel.commit(create(CONFIG_MAP, config_map("a", **data)))
        error = raised.value
        assert error.reason is Reason.INVALID
        assert error.message.startswith('ConfigMap "a" is invalid: ')
        assert error.message.endswith("…")
        shown, last = error.violations[:-1], error.violations[-1]
        assert 5 < len(shown) < 400
        assert last.message == f"and {400 - len(shown)} more"


def test_what_passes_says_when_to_ask_again() -> None:
    for reason in Reason:
        error = errors.from_status(serve.fit(ApiError(reason, "no")))
        passes = reason in (Reason.UNAVAILABLE, Reason.EXHAUSTED)
        assert error.retry_seconds == (errors.RETRY_SECONDS if passes else None)


def test_what_is_cut_fits_whatever_it_is() -> None:
    for size in (0, 1, 10, 1000):
        for length in (1, 100, 10_000):
            violations = [Violation("p" * length, "é" * length) for _ in range(size)]
            error = ApiError(
                Reason.INVALID, "ß" * length, violations, metadata={"k" * length: "v" * length}
            )
            status = serve.fit(error)
            assert status.ByteSize() <= serve.STATUS_BYTES
            assert errors.from_status(status).reason is Reason.INVALID


async def test_of_several_transactions_each_has_its_own_result(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        request = create(CONFIG_MAP, config_map("a"))
        request.MergeFrom(create(CONFIG_MAP, config_map("a")))
        request.MergeFrom(create(CONFIG_MAP, config_map("b")))
        response = await there.channel.commit(request)
        codes = [result.error.code for result in response.results]
        assert codes == [0, Reason.ALREADY_EXISTS.value, 0]


async def test_what_is_no_message_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there.socket) as dialled:
        for path in ("kcore.api.v1.ApiService/Get", "kcore.core.v1.PodService/Create"):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await dialled.unary_unary(f"/{path}")(b"\xff\xff\xff")
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        with pytest.raises(ApiError) as raised:
            await there.channel.commit(create(CONFIG_MAP, config_map("a", k="x" * (5 << 20))))
        assert raised.value.reason is Reason.EXHAUSTED
        assert "larger than" in raised.value.message


@pytest.mark.parametrize(
    "path",
    [
        "/kcore.core.v1.PodService/",
        "/kcore.core.v1.PodService/get",
        "//kcore.core.v1.PodService/Get",
        "/kcore.core.v1.podService/Get",
        "/kcore.core.v1.PodService/Get/",
        "/kcore.core.v1.PodService/Get?x=1",
        "/kcore.core.v1.NoneService/Get",
        "/kcore.core.v1.ConfigMapService/UpdateStatus",
    ],
)
async def test_a_path_is_taken_exactly_as_it_is_written(tmp_path: Path, path: str) -> None:
    async with world(tmp_path) as there, raw(there.socket) as dialled:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await dialled.unary_unary(path)(b"")
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert there.apiserver.services.find(path) is None


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    target = Target(unix=str(tmp_path / "none.sock"))
    async with channel.connect(target) as nobody:
        with pytest.raises(ApiError) as raised:
            await nobody.get(pb.GetRequest())
        assert raised.value.reason is Reason.UNAVAILABLE
        said = f"cannot reach kcore at {tmp_path}/none.sock: is it running? try `kcore up`"
        assert raised.value.message.startswith(said)
        with pytest.raises(ApiError, match="cannot reach kcore"):
            await anext(nobody.watch(pb.WatchRequest()))


async def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as there:

        async def never(call: object, body: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        path = "/kcore.api.v1.ApiService/Get"
        found = there.apiserver.services.find(path)
        assert found is not None
        there.apiserver.services._fixed[path] = type(found)(
            found.service, found.name, found.kind, never
        )
        there.channel._deadline_seconds = 0.1
        with pytest.raises(ApiError, match=r"no answer from kcore at .* within 0.1 s"):
            await there.channel.get(pb.GetRequest())


async def test_a_server_that_starts_again_is_found_again(tmp_path: Path) -> None:
    target = Target(unix=str(tmp_path / "kcore.sock"))
    async with channel.connect(target) as dialled:
        for _ in range(2):
            async with world(tmp_path):
                async with asyncio.timeout(5):
                    while True:
                        try:
                            await dialled.who_am_i()
                            break
                        except ApiError:
                            await asyncio.sleep(0.05)


async def test_an_internal_fault_is_not_told_to_the_caller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as there:

        async def fail(call: object, body: bytes) -> bytes:
            raise RuntimeError("the password is swordfish")

        path = "/kcore.api.v1.ApiService/Get"
        found = there.apiserver.services.find(path)
        assert found is not None
        there.apiserver.services._fixed[path] = type(found)(
            found.service, found.name, found.kind, fail
        )
        with pytest.raises(ApiError) as raised:
            await there.channel.get(pb.GetRequest())
        assert "swordfish" not in raised.value.message
        assert "swordfish" in caplog.text


def raw(socket: Path) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"unix:{socket}", options=channel.OPTIONS)
