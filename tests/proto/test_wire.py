"""Field numbers, JSON names and types are Kubernetes' own: k8s-wire.tsv beside this file.

The table is a part of the facts: the messages that kcore has, with all their fields. A field that
kcore leaves out is in the table and not in the protos; never the other way.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import kcore_api
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

PACKAGES = {
    "k8s.io.api.core.v1": "kcore.core.v1",
    "k8s.io.api.apps.v1": "kcore.apps.v1",
    "k8s.io.api.batch.v1": "kcore.batch.v1",
    "k8s.io.api.coordination.v1": "kcore.coordination.v1",
    "k8s.io.api.policy.v1": "kcore.policy.v1",
    "k8s.io.api.rbac.v1": "kcore.rbac.v1",
    "k8s.io.api.discovery.v1": "kcore.discovery.v1",
    "k8s.io.apimachinery.pkg.apis.meta.v1": "kcore.meta.v1",
    "k8s.io.apimachinery.pkg.api.resource": "kcore.meta.v1",
    "k8s.io.apimachinery.pkg.runtime": "kcore.meta.v1",
    "k8s.io.apimachinery.pkg.util.intstr": "kcore.meta.v1",
}
# Messages that are ours alone.
OURS = {"kcore.core.v1.Pool", "kcore.core.v1.PoolSpec"}
# The same fields under another name.
SAME = {"kcore.core.v1.EphemeralContainerCommon": "kcore.core.v1.Container"}

FILES = descriptor_pb2.FileDescriptorSet.FromString(kcore_api.KINDS.read_bytes())
POOL = descriptor_pool.DescriptorPool()
for _file in FILES.file:
    POOL.Add(_file)


def _facts() -> dict[str, dict[str, tuple[int, str]]]:
    """Message -> JSON name -> number and type, in our names."""
    table: dict[str, dict[str, tuple[int, str]]] = {}
    with (Path(__file__).parent / "k8s-wire.tsv").open() as lines:
        rows = csv.reader((line for line in lines if not line.startswith("#")), delimiter="\t")
        for package, message, field, number, kind, _ in rows:
            fields = table.setdefault(f"{PACKAGES[package]}.{message}", {})
            fields[field] = (int(number), _ours(package, kind))
    return table


def _ours(package: str, kind: str) -> str:
    found = re.fullmatch(r"(repeated |map<\w+, )?\.?([\w.]+)(>?)", kind)
    assert found, kind
    before, name, after = found[1] or "", found[2], found[3]
    if name in ("string", "bytes", "bool", "int32", "int64"):
        return f"{before}{name}{after}"
    home, _, last = name.rpartition(".")
    full_name = f"{PACKAGES.get(home or package, home)}.{last}"
    return f"{before}{SAME.get(full_name, full_name)}{after}"


def _type(field: FieldDescriptor) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = message.fields_by_name["key"], message.fields_by_name["value"]
        return f"map<{_type(key)}, {_type(value)}>"
    name = (
        message.full_name
        if message is not None
        else descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    )
    return f"repeated {name}" if field.is_repeated else name


def _messages() -> Iterator[Descriptor]:
    for file in FILES.file:
        if file.package in PACKAGES.values() and not file.name.endswith("meta/v1/options.proto"):
            yield from POOL.FindFileByName(file.name).message_types_by_name.values()


MESSAGES = sorted(_messages(), key=lambda one: one.full_name)
FACTS = _facts()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: one.full_name)
def test_numbers_names_and_types_are_kubernetes_own(message: Descriptor) -> None:
    if message.full_name in OURS:
        pytest.skip("ours alone")
    facts = FACTS[message.full_name]
    ours = {field.json_name: (field.number, _type(field)) for field in message.fields}
    assert ours == {name: facts.get(name) for name in ours}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: one.full_name)
def test_every_scalar_knows_presence(message: Descriptor) -> None:
    for field in message.fields:
        assert field.is_repeated or field.has_presence, field.full_name


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: one.full_name)
def test_proto_names_are_snake_case(message: Descriptor) -> None:
    for field in message.fields:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field.name), field.full_name


def test_every_object_has_metadata_first_and_status_third() -> None:
    for name in ("Pod", "Node", "Namespace", "ConfigMap", "Secret", "ServiceAccount", "Event"):
        message = POOL.FindMessageTypeByName(f"kcore.core.v1.{name}")
        assert message.fields_by_name["metadata"].number == 1
        status = message.fields_by_name.get("status")
        assert status is None or status.number == 3


def test_bytes_of_kubernetes_encoding_decode_here() -> None:
    from kcore_api.kcore.core.v1.pod_pb2 import Pod

    # A pod "p" with a container "c", podIP 10.0.0.1 and a field of Kubernetes that is left out
    # here (status.resize, 14): written by hand, by the table's numbers.
    container = b"\x0a\x01c" + b"\x12\x05nginx"
    spec = b"\x12" + bytes([len(container)]) + container
    status = b"\x0a\x07Running" + b"\x32\x0810.0.0.1" + b"\x72\x08Proposed"
    data = (
        b"\x0a\x03\x0a\x01p"
        + b"\x12" + bytes([len(spec)]) + spec
        + b"\x1a" + bytes([len(status)]) + status
    )  # fmt: skip
    pod = Pod.FromString(data)
    assert pod.metadata.name == "p"
    assert pod.spec.containers[0].image == "nginx"
    assert pod.status.pod_ip == "10.0.0.1"
    assert b"Proposed" in pod.SerializeToString()
