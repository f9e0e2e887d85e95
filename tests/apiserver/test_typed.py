"""The typed services: the same bytes as the verbs', found and described by reflection."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import typed_pb2
from kcore_api.kcore.core.v1 import config_map_pb2, pod_pb2

from kcore.apiserver import reflection
from kcore.apiserver.services import Call, Method
from kcore.client.channel import OPTIONS
from tests.apiserver.world import (
    CONFIG_MAP,
    NODE,
    POD,
    World,
    compiled,
    config_map,
    create,
    node,
    pod,
    ref,
    world,
)

GRPCURL = shutil.which("grpcurl") or shutil.which("grpcurl", path=os.path.expanduser("~/go/bin"))


@asynccontextmanager
async def raw(there: World) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{there.socket}", options=OPTIONS) as dialled:
        yield dialled


def reflected(files: dict[str, bytes]) -> DescriptorPool:
    """A pool made of what reflection gave."""
    pool = DescriptorPool()

    def add(name: str) -> None:
        file = descriptor_pb2.FileDescriptorProto.FromString(files.pop(name, b""))
        for dependency in file.dependency:
            if dependency in files:
                add(dependency)
        if file.name:
            pool.Add(file)

    while files:
        add(next(iter(files)))
    return pool


async def ask(
    dialled: grpc.aio.Channel, service: str, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    call = dialled.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [one async for one in call(iter(requests))]


async def files_of(dialled: grpc.aio.Channel, *symbols: str) -> dict[str, bytes]:
    requests = [
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol) for symbol in symbols
    ]
    files: dict[str, bytes] = {}
    for answer in await ask(dialled, reflection.V1, *requests):
        assert not answer.HasField("error_response"), answer
        for body in answer.file_descriptor_response.file_descriptor_proto:
            files[descriptor_pb2.FileDescriptorProto.FromString(body).name] = body
    return files


@pytest.mark.parametrize("version", [reflection.V1, reflection.V1_ALPHA])
async def test_there_is_a_service_for_each_kind(tmp_path: Path, version: str) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        (answer,) = await ask(dialled, version, request)
        services = [one.name for one in answer.list_services_response.service]
        assert {f"{kind}Service" for kind in compiled().kinds} < set(services)
        assert {*reflection.OWN, reflection.V1, reflection.HEALTH} < set(services)
        # What is listed is described: its file has all that it needs.
        for service in services:
            pool = reflected(await files_of(dialled, service))
            assert pool.FindServiceByName(service).methods


async def test_descriptions_have_comments_options_and_error_details(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        files = await files_of(dialled, POD, "google.rpc.ErrorInfo", "google.rpc.BadRequest")
        file = descriptor_pb2.FileDescriptorProto.FromString(files["kcore/core/v1/pod.proto"])
        comments = [one.leading_comments for one in file.source_code_info.location]
        assert any("one node" in comment for comment in comments)
        assert "kcore/meta/v1/options.proto" in files
        request = reflection_pb2.ServerReflectionRequest()
        request.file_containing_extension.containing_type = "google.protobuf.MessageOptions"
        request.file_containing_extension.extension_number = 50101
        (answer,) = await ask(dialled, reflection.V1, request)
        (body, *_) = answer.file_descriptor_response.file_descriptor_proto
        assert descriptor_pb2.FileDescriptorProto.FromString(body).name.endswith("options.proto")
        nothing = reflection_pb2.ServerReflectionRequest(file_containing_symbol="kcore.None")
        (answer,) = await ask(dialled, reflection.V1, nothing)
        assert answer.error_response.error_code == 5


async def test_a_stranger_with_reflection_alone_makes_watches_and_deletes(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        pool = reflected(await files_of(dialled, "kcore.core.v1.ConfigMapService"))
        service = pool.FindServiceByName("kcore.core.v1.ConfigMapService")

        def message(full: str, **fields: Any) -> Any:
            return message_factory.GetMessageClass(pool.FindMessageTypeByName(full))(**fields)

        async def call(method: str, request: Any) -> Any:
            answer = message_factory.GetMessageClass(service.methods_by_name[method].output_type)
            ready = dialled.unary_unary(
                f"/{service.full_name}/{method}", response_deserializer=answer.FromString
            )
            return await ready(request.SerializeToString())

        write = message("kcore.core.v1.ConfigMapWrite", namespace="default")
        write.object.metadata.name = "c"
        write.object.data["k"] = "v"
        write.dry_run = True
        assert (await call("Create", write)).metadata.namespace == "default"
        write.dry_run = False
        made = await call("Create", write)
        asked = message("kcore.api.v1.TypedGetRequest", namespace="default", name="c")
        assert await call("Get", asked) == made
        page = await call("List", message("kcore.api.v1.TypedListRequest", namespace="default"))
        assert list(page.items) == [made]
        assert page.metadata.resource_version == made.metadata.resource_version
        write.object.data["k"] = "w"
        assert (await call("Apply", _manager(write, "x", force=True))).data["k"] == "w"
        events = message_factory.GetMessageClass(
            pool.FindMessageTypeByName("kcore.core.v1.ConfigMapEvents")
        )
        watch = dialled.unary_stream(
            f"/{service.full_name}/Watch", response_deserializer=events.FromString
        )
        request = message("kcore.api.v1.TypedWatchRequest", namespace="default", names=["c"])
        following = watch(request.SerializeToString())
        first = await following.read()
        assert [event.object.data["k"] for event in first.events] == ["w"]
        assert first.synced
        gone = message("kcore.api.v1.TypedDeleteRequest", namespace="default", name="c")
        await call("Delete", gone)
        second = await following.read()
        assert [event.type for event in second.events] == [3]
        following.cancel()


async def test_the_status_is_written_by_its_own_method(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        await there.session().commit(create(NODE, node("n1")))
        await there.session().commit(create(POD, pod("p", "n1")))
        told = pod("p", "n1")
        told.metadata.labels["x"] = "y"
        told.status.phase = "Running"
        update = dialled.unary_unary("/kcore.core.v1.PodService/UpdateStatus")
        write = typed_pb2.TypedWriteRequest(object=told.SerializeToString())
        answer = pod_pb2.Pod.FromString(await update(write.SerializeToString()))
        assert answer.status.phase == "Running"
        assert not answer.metadata.labels


async def test_the_past_and_masks_by_typed_services(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        await there.session().commit(create(CONFIG_MAP, config_map("a", k="v")))
        past = there.kernel.head
        changed = create(CONFIG_MAP, config_map("a", k="w"))
        operation = changed.transactions[0].operations[0]
        operation.update = config_map("a", k="w").SerializeToString()
        await there.session().commit(changed)
        get = dialled.unary_unary("/kcore.core.v1.ConfigMapService/Get")
        request = typed_pb2.TypedGetRequest(namespace="default", name="a", revision=past)
        request.mask.paths.append("data")
        answer = config_map_pb2.ConfigMap.FromString(await get(request.SerializeToString()))
        assert answer.data["k"] == "v"
        assert not answer.metadata.managed_fields


async def test_the_revision_travels_behind_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        write = typed_pb2.TypedWriteRequest(object=config_map("a").SerializeToString())
        call = dialled.unary_unary("/kcore.core.v1.ConfigMapService/Create")(
            write.SerializeToString()
        )
        made = config_map_pb2.ConfigMap.FromString(await call)
        trailing = dict(await call.trailing_metadata())
        assert trailing["kcore-revision"] == made.metadata.resource_version
        answer = await there.session().get(pb.GetRequest(ref=ref(CONFIG_MAP, "a")))
        assert made.SerializeToString(deterministic=True) == answer.object


async def test_warnings_travel_behind_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        path = "/kcore.core.v1.ConfigMapService/Create"
        found = there.apiserver.services.find(path)
        assert found is not None

        async def warns(call: Call, body: bytes) -> bytes:
            call.warnings += ["spec.x: stored, but not acted on: 100 % sure, für immer", "y" * 5000]
            return b""

        there.apiserver.services._typed[path] = Method(found.service, found.name, "unary", warns)
        call = dialled.unary_unary(path)(b"")
        await call
        said = [text for key, text in await call.trailing_metadata() if key == "kcore-warning"]
        assert said == [
            "spec.x: stored, but not acted on: 100 %25 sure, f%C3%BCr immer",
            "there are more warnings",
        ]


async def test_health_by_service(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        check = dialled.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", "kcore.core.v1.PodService", "kcore.api.v1.ApiService"):
            answer = await check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await check(health_pb2.HealthCheckRequest(service="none"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        watch = dialled.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await watch.read() == b"\x08\x01"
        watch.cancel()


@pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not installed")
async def test_grpcurl_tells_services_makes_objects_and_shows_errors(tmp_path: Path) -> None:
    async with world(tmp_path) as there:

        async def run(*words: str, options: Sequence[str] = ()) -> tuple[int, str]:
            assert GRPCURL is not None
            process = await asyncio.create_subprocess_exec(
                *(GRPCURL, "-plaintext", "-unix", *options, str(there.socket), *words),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            out, _ = await process.communicate()
            return process.returncode or 0, out.decode()

        service = "kcore.core.v1.ConfigMapService"
        code, out = await run("list", service)
        assert (code, f"{service}.Create" in out) == (0, True)
        code, out = await run("describe", CONFIG_MAP)
        assert 'plural: "configmaps"' in out
        body = '{"object": {"metadata": {"name": "c", "namespace": "default"}}}'
        code, out = await run(f"{service}/Create", options=("-d", body))
        assert code == 0, out
        code, out = await run(f"{service}/Create", options=("-d", body))
        assert code != 0
        assert '"reason": "ALREADY_EXISTS"' in out
        code, out = await run(f"{service}/Watch", options=("-max-time", "0.5"))
        assert '"synced": true' in out


def _manager(write: Any, manager: str, *, force: bool) -> Any:
    write.manager, write.force = manager, force
    return write
