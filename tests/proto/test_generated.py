"""What is generated is right: the typed services, the descriptors, the classes."""

import filecmp
import importlib
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType

import google.rpc
import kcore_api
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor
from kcore_api.kcore.api.v1 import api_pb2, typed_pb2
from kcore_api.kcore.core.v1 import pod_pb2, pod_service_pb2
from kcore_api.kcore.meta.v1 import options_pb2

from kcore.wire import typed

ROOT = Path(__file__).resolve().parents[2]
FILES = descriptor_pb2.FileDescriptorSet.FromString(kcore_api.KINDS.read_bytes())


def _kinds() -> list[Descriptor]:
    found = []
    for file in FILES.file:
        if not file.name.startswith("kcore/"):
            continue
        module = importlib.import_module(f"kcore_api.{file.name[:-6].replace('/', '.')}_pb2")
        for message in module.DESCRIPTOR.message_types_by_name.values():
            if message.GetOptions().HasExtension(options_pb2.kind):
                found.append(message)
    return found


KINDS = _kinds()
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.name)


def _shape(message: Descriptor) -> list[tuple[int, str, str, bool]]:
    return [
        (field.number, field.name, field.json_name, field.is_repeated) for field in message.fields
    ]


@each_kind
def test_every_kind_has_its_service(kind: Descriptor) -> None:
    name = typed.file_name(kind).removesuffix(".proto").replace("/", ".")
    module = importlib.import_module(f"kcore_api.{name}_pb2")
    service = module.DESCRIPTOR.services_by_name[f"{kind.name}Service"]
    assert service.full_name == typed.service_name(kind.full_name)
    assert [method.name for method in service.methods] == [one.name for one in typed.methods(kind)]
    assert ("UpdateStatus" in service.methods_by_name) == ("status" in kind.fields_by_name)
    for method in service.methods:
        assert method.client_streaming is False
        assert method.server_streaming is (method.name == "Watch")


@each_kind
def test_answers_have_the_numbers_of_the_five_verbs(kind: Descriptor) -> None:
    name = typed.file_name(kind).removesuffix(".proto").replace("/", ".")
    messages = importlib.import_module(f"kcore_api.{name}_pb2").DESCRIPTOR.message_types_by_name
    assert _shape(messages[f"{kind.name}List"]) == _shape(api_pb2.ListResponse.DESCRIPTOR)
    assert _shape(messages[f"{kind.name}Event"]) == _shape(api_pb2.Event.DESCRIPTOR)
    assert _shape(messages[f"{kind.name}Events"]) == _shape(api_pb2.WatchResponse.DESCRIPTOR)
    assert _shape(messages[f"{kind.name}Write"]) == _shape(typed_pb2.TypedWriteRequest.DESCRIPTOR)


def test_a_typed_request_and_answer_need_no_decoding_of_the_object() -> None:
    pod = pod_pb2.Pod()
    pod.metadata.name = "web"
    write = pod_service_pb2.PodWrite(namespace="default", object=pod, dry_run=True)
    read = typed_pb2.TypedWriteRequest.FromString(write.SerializeToString())
    assert (read.namespace, read.dry_run) == ("default", True)
    assert read.object == pod.SerializeToString()

    answer = api_pb2.WatchResponse(revision=7, synced=True)
    answer.events.add(type=api_pb2.Event.ADDED, object=pod.SerializeToString(), revision=5)
    events = pod_service_pb2.PodEvents.FromString(answer.SerializeToString())
    assert events.revision == 7 and events.synced
    assert events.events[0].object == pod


@each_kind
def test_a_service_can_be_made_at_run_time(kind: Descriptor) -> None:
    pool = descriptor_pool.DescriptorPool()
    for file in FILES.file:
        pool.Add(file)
    made = typed.service_file(pool.FindMessageTypeByName(kind.full_name))
    pool.Add(made)
    assert pool.FindServiceByName(typed.service_name(kind.full_name)).methods
    assert typed.text(made) == (ROOT / "generated/proto" / made.name).read_text()


@each_kind
def test_everything_in_a_service_is_commented(kind: Descriptor) -> None:
    lines = typed.text(typed.service_file(kind)).splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"(  rpc|service|message|  [\w. ]+ = \d+;)", line):
            assert before.lstrip().startswith("//"), line


def test_the_descriptors_hold_comments_and_nothing_of_cri() -> None:
    names = [file.name for file in FILES.file]
    assert not [name for name in names if name.startswith("runtime/")]
    assert {"google/protobuf/descriptor.proto", "google/rpc/status.proto"} <= set(names)
    for place, file in enumerate(FILES.file):
        assert set(file.dependency) <= set(names[:place]), f"{file.name} before its imports"
        if file.name.startswith("kcore/"):
            said = {tuple(one.path) for one in file.source_code_info.location}
            for index, message in enumerate(file.message_type):
                assert (4, index) in said, f"{file.name}: {message.name} has no comment"
                for number, field in enumerate(message.field):
                    assert (4, index, 2, number) in said, f"{message.name}.{field.name}"


def test_the_descriptors_are_those_of_the_protos() -> None:
    made = {file.name: file for file in _generator().descriptors().file}
    for file in FILES.file:
        if file.name.startswith("kcore/"):
            assert file == made.pop(file.name), f"{file.name}: run `make gen`"
    assert not [name for name in made if name.startswith("kcore/")]


def test_the_classes_are_those_of_the_descriptors() -> None:
    for file in FILES.file:
        if not file.name.startswith("kcore/"):
            continue
        module = importlib.import_module(f"kcore_api.{file.name[:-6].replace('/', '.')}_pb2")
        pool = descriptor_pool.DescriptorPool()
        made = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        expected = descriptor_pb2.FileDescriptorProto()
        for known in FILES.file:
            pool.Add(known)
        pool.FindFileByName(file.name).CopyToProto(expected)
        for one in (made, expected):
            one.ClearField("source_code_info")
            for message in one.message_type:
                for field in message.field:
                    field.ClearField("json_name")
        assert made == expected, f"{file.name}: run `make gen`"


def test_the_reference_is_that_of_the_descriptors() -> None:
    text = _generator().reference.render(FILES)
    assert text == (ROOT / "generated/reference.md").read_text(), "run `make gen`"


def _generator() -> ModuleType:
    sys.path.insert(0, str(ROOT / "proto"))
    try:
        return importlib.import_module("gen")
    finally:
        sys.path.remove(str(ROOT / "proto"))


def test_the_copy_of_status_is_googles_own() -> None:
    installed = Path(next(iter(google.rpc.__path__))) / "status.proto"
    assert filecmp.cmp(ROOT / "proto/google/rpc/status.proto", installed, shallow=False)


@each_kind
def test_every_kind_has_a_dataclass(kind: Descriptor) -> None:
    module = importlib.import_module(f"kcore_sdk.{kind.file.package}")
    made = getattr(module, kind.name)()
    assert bytes(made) == b""


@each_kind
def test_the_reference_tells_of_every_kind(kind: Descriptor) -> None:
    text = (ROOT / "generated/reference.md").read_text()
    assert f"\n## {kind.name}\n" in text
