"""The channel's own manners: what it repeats, and with which certificate it calls."""

import json
from dataclasses import replace
from pathlib import Path

import grpc
import kcore_api
import pytest
from google.protobuf import descriptor_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.apiserver.run import Listeners
from kcore.boot import certificates
from kcore.chance import Chance
from kcore.client import channel
from kcore.client.kubeconfig import Target
from kcore.clock import SystemClock
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import CONFIG_MAP, config_map, create, until, world


def test_the_service_config_repeats_what_is_idempotent_and_nothing_else() -> None:
    config = json.loads(kcore_api.SERVICE_CONFIG.read_text())
    (method_config,) = config["methodConfig"]
    named = {(one["service"], one["method"]) for one in method_config["name"]}
    assert method_config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    files = descriptor_pb2.FileDescriptorSet.FromString(kcore_api.KINDS.read_bytes())
    ours = {
        (f"{file.package}.{service.name}", method.name)
        for file in files.file
        for service in file.service
        for method in service.method
        if method.options.idempotency_level
    }
    assert ours < named
    assert ("kcore.api.v1.ApiService", "Commit") in ours
    typed = named - ours
    assert {method for _, method in typed} == {"Get", "List"}
    assert ("kcore.core.v1.PodService", "List") in typed


@pytest.mark.parametrize("applied", [False, True])
async def test_a_commit_is_repeated_by_itself_and_done_once(tmp_path: Path, applied: bool) -> None:
    async with world(tmp_path) as there:
        path = "/kcore.api.v1.ApiService/Commit"
        found = there.apiserver.services.find(path)
        assert found is not None
        asked: list[str] = []

        async def flaky(call: object, body: bytes) -> bytes:
            request = pb.CommitRequest.FromString(body)
            asked.append(request.transactions[0].request_id)
            if len(asked) == 1:
                if applied:
                    await found.serve(call, body)
                raise ApiError(Reason.UNAVAILABLE, "may have been applied")
            answer: bytes = await found.serve(call, body)
            return answer

        there.apiserver.services._fixed[path] = replace(found, serve=flaky)
        head = there.kernel.head
        response = await there.channel.commit(create(CONFIG_MAP, config_map("a")))
        assert len(asked) == 2
        assert asked[0] == asked[1] != ""
        assert response.results[0].operations[0].changed
        assert there.kernel.head == head + 1


async def test_what_is_not_idempotent_is_not_repeated(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        path = "/kcore.core.v1.ConfigMapService/Create"
        found = there.apiserver.services.find(path)
        assert found is not None
        asked = 0

        async def failing(call: object, body: bytes) -> bytes:
            nonlocal asked
            asked += 1
            raise ApiError(Reason.UNAVAILABLE, "may have been applied")

        there.apiserver.services._typed[path] = replace(found, serve=failing)
        with pytest.raises(grpc.aio.AioRpcError):
            await there.channel._channel.unary_unary(path)(b"")
        assert asked == 1


async def test_a_renewed_client_certificate_is_used_and_streams_go_on(tmp_path: Path) -> None:
    pki, ca = tmp_path / "pki", tmp_path / "ca.crt"
    certificates.ensure(pki, ca, "n1", SystemClock(), Chance(), addresses=[])
    certificate, key = certificates.files(pki, certificates.SERVER)
    listeners = Listeners(
        socket=tmp_path / "kcore.sock",
        mutual="127.0.0.1:0",
        certificate=certificate,
        key=key,
        authority=ca,
    )
    mine, my_key = tmp_path / "mine.crt", tmp_path / "mine.key"

    def become(name: str) -> None:
        for source, place in zip(certificates.files(pki, name), (mine, my_key), strict=True):
            fresh = place.with_suffix(".new")
            fresh.write_bytes(source.read_bytes())
            fresh.replace(place)

    become(certificates.ADMIN)
    async with world(tmp_path, listeners) as there:
        target = Target(
            grpc=f"127.0.0.1:{there.ports[1]}",
            authority=ca.read_bytes(),
            client_certificate=mine.read_bytes(),
            client_key=my_key.read_bytes(),
            client_certificate_file=str(mine),
            client_key_file=str(my_key),
        )
        async with channel.connect(target) as dialled:
            assert (await dialled.who_am_i()).user == "kcore-admin"
            watch = dialled.watch(pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)]))
            await anext(watch)
            become(certificates.CONTROLLER_MANAGER)
            assert (await dialled.who_am_i()).user == "system:kube-controller-manager"
            await there.session().commit(create(CONFIG_MAP, config_map("a")))
            assert (await anext(watch)).events
            # What cannot be read leaves all as it was.
            my_key.unlink()
            mine.write_bytes(b"")
            assert (await dialled.who_am_i()).user == "system:kube-controller-manager"
            become(certificates.SCHEDULER)
            assert (await dialled.who_am_i()).user == "system:kube-scheduler"
            await there.session().commit(create(CONFIG_MAP, config_map("b")))
            assert (await anext(watch)).events
            await watch.aclose()
        await until(lambda: not there.kernel.feed.readers)
