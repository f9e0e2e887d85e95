"""Kinds that were uploaded, over gRPC: as if they had always been there."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.internal import api_implementation
from grpc_reflection.v1alpha import reflection_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pool_pb2
from kcore_api.kcore.meta.v1 import options_pb2

from kcore.apiserver import reflection
from kcore.client import kinds
from kcore.kernel import frame
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.test_typed import ask, files_of, raw, reflected
from tests.apiserver.world import POOL, World, create, ref, soon, world
from tests.kernel import uploads
from tests.kernel.uploads import PROTO_TEXT, SCHEMA, WIDGET, widget

SERVICE = "acme.v1.WidgetService"


async def bring(there: World, text: str | bytes = PROTO_TEXT, name: str = "acme") -> None:
    """Commits a Schema as a client does."""
    await there.channel.commit(create(SCHEMA, uploads.schema(text, name)))


async def serials(there: World) -> None:
    """The pool that widgets draw from."""
    pool = pool_pb2.Pool(metadata={"name": "serials"}, spec={"first": 10, "last": 99})
    await there.channel.commit(create(POOL, pool))


async def services(dialled: grpc.aio.Channel, version: str) -> set[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="*")
    (answer,) = await ask(dialled, version, request)
    return {one.name for one in answer.list_services_response.service}


class Stranger:
    """A client that knows of the service what reflection says, and nothing else."""

    def __init__(self, dialled: grpc.aio.Channel, files: dict[str, bytes]) -> None:
        self._dialled = dialled
        self._pool = reflected(files)
        self.service = self._pool.FindServiceByName(SERVICE)

    def message(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def answer(self, method: str) -> Any:
        output = self.service.methods_by_name[method].output_type
        return message_factory.GetMessageClass(output).FromString

    async def call(self, method: str, request: Any) -> Any:
        path = f"/{SERVICE}/{method}"
        ready = self._dialled.unary_unary(path, response_deserializer=self.answer(method))
        return await ready(request.SerializeToString())

    def watch(self, request: Any) -> Any:
        path = f"/{SERVICE}/Watch"
        ready = self._dialled.unary_stream(path, response_deserializer=self.answer("Watch"))
        return ready(request.SerializeToString())


async def test_an_uploaded_kind_has_its_typed_service_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        await serials(there)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await dialled.unary_unary(f"/{SERVICE}/List")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await bring(there)
        # Not a moment later: what was committed is served.
        assert SERVICE in await services(dialled, reflection.V1)
        assert SERVICE in await services(dialled, reflection.V1_ALPHA)
        files = await files_of(dialled, SERVICE)
        file = descriptor_pb2.FileDescriptorProto.FromString(files["acme/v1/widget.proto"])
        # As it was uploaded: with comments, and with options that a stranger can look up.
        assert "Its color." in {
            one.leading_comments.strip() for one in file.source_code_info.location
        }
        said: Any = options_pb2.kind
        assert file.message_type[0].options.Extensions[said].plural == "widgets"
        assert "kcore/meta/v1/options.proto" in files

        stranger = Stranger(dialled, files)
        write = stranger.message("acme.v1.WidgetWrite")(namespace="default", name="a")
        write.object.spec.color = "red"
        asked = stranger.message("kcore.api.v1.TypedWatchRequest")(namespace="default")
        stream = stranger.watch(asked)
        assert (await soon(stream.read())).synced  # type: ignore[attr-defined]
        made = await stranger.call("Create", write)
        assert (made.spec.size, made.spec.serial) == (3, 10)
        told: Any = await soon(stream.read())
        assert [(one.type, one.object.metadata.name) for one in told.events] == [(1, "a")]
        assert told.events[0].object.spec == made.spec
        stream.cancel()
        got = await stranger.call(
            "Get", stranger.message("kcore.api.v1.TypedGetRequest")(namespace="default", name="a")
        )
        assert got == made
        page = await stranger.call("List", stranger.message("kcore.api.v1.TypedListRequest")())
        assert [one.metadata.name for one in page.items] == ["a"]
        write.object.Clear()
        write.object.spec.color = "blue"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            write.object.spec.serial = 77
            await stranger.call("Update", write)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "spec.serial: field is immutable" in str(caught.value.details())
        write.object.spec.serial = 10
        assert (await stranger.call("Apply", write)).spec.color == "blue"


async def test_another_version_shows_at_once_and_the_last_takes_the_service_along(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as there, raw(there) as dialled:
        await bring(there)
        text = PROTO_TEXT.replace("notes = 6;", "notes = 6; optional string motto = 8;")
        schema = uploads.schema(text)
        request = pb.CommitRequest()
        operation = request.transactions.add().operations.add(ref=pb.Ref(kind=SCHEMA, name="acme"))
        operation.update = schema.SerializeToString()
        await there.channel.commit(request)
        pool = reflected(await files_of(dialled, SERVICE))
        spec = pool.FindMessageTypeByName("acme.v1.WidgetSpec")
        assert "motto" in spec.fields_by_name
        request.transactions[0].operations[0].delete.SetInParent()
        await there.channel.commit(request)
        assert SERVICE not in await services(dialled, reflection.V1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await dialled.unary_unary(f"/{SERVICE}/List")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_watch_of_all_kinds_sees_those_that_come(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        await serials(there)
        stream = there.channel.watch(
            pb.WatchRequest(selections=[pb.Selection(kind="*")], progress_ms=10)
        )
        async with asyncio.timeout(5):
            async for response in stream:
                if response.synced:
                    break
            await bring(there)
            await there.channel.commit(create(WIDGET, widget("a")))
            seen: list[str] = []
            async for response in stream:
                seen += [event.kind for event in response.events]
                if WIDGET in seen:
                    break
        assert seen == [SCHEMA, WIDGET]
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_client_that_has_the_kinds_is_sent_none(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        assert await kinds.fetch(there.channel) is kinds.built_in()
        await bring(there)
        catalogue = await kinds.fetch(there.channel)
        (kind,) = catalogue.resolve("wd")
        assert (kind.full_name, kind.api_version) == (WIDGET, "acme.dev/v1")
        answer = await there.channel.kinds(pb.KindsRequest())
        assert answer.revision == there.kernel.head
        again = await there.channel.kinds(pb.KindsRequest(digest=answer.digest))
        assert not again.descriptors.file


async def test_an_incompatible_upload_is_refused_over_the_wire_by_field(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        await bring(there)
        text = PROTO_TEXT.replace("int32 size = 2", "int64 size = 2")
        request = pb.CommitRequest()
        operation = request.transactions.add().operations.add(ref=pb.Ref(kind=SCHEMA, name="acme"))
        operation.apply.object = uploads.schema(text).SerializeToString()
        operation.apply.force = True
        with pytest.raises(ApiError) as caught:
            await there.channel.commit(request)
        assert caught.value.reason is Reason.INVALID
        assert [str(one) for one in caught.value.violations] == [
            "spec.descriptors: acme/v1/widget.proto: acme.v1.WidgetSpec.size: the type of field 2 "
            'was "int32", and is "int64"'
        ]


def _within(tag: int, body: bytes) -> bytes:
    return bytes((tag,)) + frame.varint(len(body)) + body


def _nested(depth: int) -> bytes:
    """A FileDescriptorSet whose message types are nested so deep."""
    message = _within(0x0A, b"M")
    for _ in range(depth):
        message = _within(0x0A, b"M") + _within(0x1A, message)
    file = descriptor_pb2.FileDescriptorProto(name="a.proto", package="a.v1", syntax="proto3")
    return _within(0x0A, file.SerializeToString() + _within(0x22, message))


# Bytes that are no descriptors, or too deep ones: CVE-2025-4565, CVE-2026-0994.
S35 = {
    "nested_messages": _nested(10_000),
    "groups": b"\x0b" * 10_000 + b"\x0c" * 10_000,
    "not_closed": b"\x0b" * 100_000,
    "any_in_any": b"\x0a\x80\x80\x04" + b"\x12" * 65_536,
    "nothing": b"",
    "text": b"{" * 10_000,
}


@pytest.mark.parametrize("row", S35)
async def test_S35_deep_or_broken_descriptors_are_refused(tmp_path: Path, row: str) -> None:
    assert api_implementation.Type() == "upb"
    async with world(tmp_path) as there:
        with pytest.raises(ApiError) as caught:
            await soon(bring(there, S35[row]))
        assert caught.value.reason is Reason.INVALID, caught.value
        assert "spec.descriptors" in caught.value.message
        # And it is alive.
        await bring(there)


def _rule(expression: str) -> str:
    rule = f'rules: {{expression: "{expression}" message: "the bomb" path: "spec.parts"}}'
    return PROTO_TEXT.replace('plural: "widgets"', f'plural: "widgets" {rule}')


def _doubling() -> str:
    text = "x24.size() > 1"
    for at in range(24, 0, -1):
        text = f"cel.bind(x{at}, x{at - 1} + x{at - 1}, {text})"
    return f"cel.bind(x0, 'xxxxxxxxxxxxxxxx', {text})"


_PARTS = "self.spec.parts"
# Uploads that are refused as they come.
S47_REFUSED = {
    "concatenation_of_10_MiB": (_rule(_doubling()), "it costs too much on the smallest object"),
    "shadows_Secret": (
        PROTO_TEXT.replace('plural: "widgets"', 'plural: "secrets"'),
        "already what kcore.core.v1.Secret is called",
    ),
    "package_of_ours": (PROTO_TEXT.replace("package acme.v1", "package kcore.core.v1"), "reserved"),
    "number_clash": (
        uploads.changed(lambda file: setattr(file.message_type[1].field[1], "number", 1)),
        "acme/v1/widget.proto: ",
    ),
    "json_name_clash": (
        uploads.changed(lambda file: setattr(file.message_type[1].field[1], "json_name", "color")),
        'WidgetSpec.size: its JSON name "color" is also that of color',
    ),
}


@pytest.mark.parametrize("row", S47_REFUSED)
async def test_S47_an_upload_that_cannot_be_bounded_is_refused(tmp_path: Path, row: str) -> None:
    text, said = S47_REFUSED[row]
    async with world(tmp_path) as there:
        with pytest.raises(ApiError) as caught:
            await soon(bring(there, text))
        assert caught.value.reason is Reason.INVALID
        assert said in caught.value.message and "spec.descriptors" in caught.value.message
        assert (await there.channel.kinds(pb.KindsRequest())).revision == 0


# Rules that are harmless on small objects and bombs on large ones.
S47_BOUNDED = {
    "nested_all_over_3_lists": f"{_PARTS}.all(a, {_PARTS}.all(b, {_PARTS}.all(c, a.name != '')))",
    "growing_list": f"{_PARTS}.map(p, p.name).size() >= 0",
    "regex_of_many_states": "!self.spec.secret.matches('(a|b)*a(a|b){500}c')",
    "regex_of_nested_repetition": "!self.spec.secret.matches('((a+)+b){200}$')",
    "replace": "self.spec.secret.replace('a', self.spec.secret).size() >= 0",
}


@pytest.mark.parametrize("row", S47_BOUNDED)
async def test_S47_a_rule_that_explodes_is_not_evaluated_and_named(
    tmp_path: Path, row: str
) -> None:
    async with world(tmp_path) as there:
        await serials(there)
        await bring(there, _rule(S47_BOUNDED[row]))
        await there.channel.commit(create(WIDGET, widget("small", parts=[{"name": "a"}])))
        large = widget("large", secret="ab" * 100_000)
        for number in range(4_000):
            large.spec.parts.add(name=str(number))
        with pytest.raises(ApiError) as caught:
            await soon(there.channel.commit(create(WIDGET, large)))
        assert caught.value.reason is Reason.INVALID
        assert "spec.parts: the bomb (the rule could not be evaluated" in caught.value.message
        # The next one is served as ever.
        await soon(there.channel.get(pb.GetRequest(ref=ref(WIDGET, "small"))))
