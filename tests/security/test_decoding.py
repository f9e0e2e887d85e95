"""The doors that decode: YAML, JSON, patches, protobuf. Bombs are refused, soon and in small room.

Times are of the processor, with much room: what is refused late takes minutes.
"""

import contextlib
import functools
import json
import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import deployment_pb2
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.client import codec, document
from kcore.kubelet import manifests
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import POD, create
from tests.security.test_fuzz import Door, door

__all__ = ["door"]

MIB = 1 << 20
TREE = Path(__file__).parents[2]
COMMIT = "/kcore.api.v1.ApiService/Commit"


@contextlib.contextmanager
def bounded(seconds: float = 2.0, mebibytes: int = 200) -> Iterator[None]:
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - started < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < mebibytes << 10


def aliases(first: str, others: str) -> str:
    text = f"a: &a {first}\n"
    for number in range(9):
        name, before = chr(98 + number), chr(97 + number)
        text += f"{name}: &{name} {others.format(','.join([f'*{before}'] * 9))}\n"
    return text


BOMBS = {
    "S30-laughs": aliases("[x,x,x,x,x,x,x,x,x]", "[{}]"),
    "S30-merge-keys": aliases("{x: 1}", "{{<<: [{}]}}"),
    "S30-itself": "a: &a [*a]",
    "S31-brackets": "[" * MIB,
    "S31-braces": "{" * MIB,
    "S31-keys": "? " * (MIB // 2),
    "S31-dashes": "- " * (MIB // 2),
    "S31-anchors": "a: " + "".join(f"&a{number} " for number in range(100_000)),
    "S31-json": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "S31-tag": "!<" + "x" * MIB,
    "S31-unterminated": 'a: "' + "x\n" * 500_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(tmp_path: Path, name: str) -> None:
    with bounded(mebibytes=64):
        documents = document.read(BOMBS[name], "x.yaml")
        assert documents[-1].problems
    if len(BOMBS[name]) < 4 * MIB:
        (tmp_path / "bomb.yaml").write_text(BOMBS[name])
        (tmp_path / "good.yaml").write_text(
            "{apiVersion: v1, kind: Pod, metadata: {name: p},"
            " spec: {containers: [{name: c, image: i}]}}"
        )
        with bounded(mebibytes=64):
            reading = manifests.read(tmp_path, "n1")
        # The kubelet's other pods run on.
        assert len(reading.pods) == 1
        assert "bomb.yaml" in reading.problems


def test_s31_a_long_line_is_a_long_line() -> None:
    with bounded():
        (one,) = document.read("a: &a " + "x" * MIB, "x.yaml")
        assert not one.problems


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [touch {}]", "!!python/name:os.system", "!x y"]
)
def test_s32_a_manifest_runs_no_code(tmp_path: Path, tag: str) -> None:
    (one,) = document.read(f"a: {tag.format(tmp_path / 'p')}", "x.yaml")
    assert one.problems
    assert not (tmp_path / "p").exists()


def test_s90_a_manifest_without_end(tmp_path: Path) -> None:
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(1 << 30)
    with bounded(mebibytes=64):
        reading = manifests.read(tmp_path, "n1")
    assert not reading.pods
    assert "large.yaml" in reading.problems


def copies(source: str, count: int) -> list[dict[str, Any]]:
    return [{"op": "copy", "from": source, "path": f"/metadata/m{n}"} for n in range(count)]


PATCHES: dict[str, tuple[str, Any]] = {
    "S33-copies-of-copies": ("json", copies("/metadata", 40)),
    "S33-ten-thousand": (
        "json",
        [
            {"op": "add", "path": "/metadata/annotations", "value": {"a": "x" * 200_000}},
            *copies("/metadata/annotations", 9_999),
        ],
    ),
    "S33-too-many": ("json", copies("/metadata/name", 10_001)),
    "S33-deeper-and-deeper": (
        "json",
        [
            {"op": "copy", "from": "/metadata", "path": "/metadata" + "/a" * n}
            for n in range(1, 300)
        ],
    ),
    "S35-deep-merge": ("json_merge", '{"a":' * 900 + "1" + "}" * 900),
    "S35-deep-strategic": ("strategic", '{"a":' * 900 + "1" + "}" * 900),
    "S35-deeper-than-python": ("json", "[" * 100_000),
    "S35-long-number": ("json_merge", '{"metadata": {"generation": ' + "9" * 500_000 + "}}"),
    "S35-half-a-letter": ("json_merge", '{"metadata": {"labels": {"\\ud800": "\\udfff"}}}'),
}


@pytest.mark.parametrize("name", PATCHES)
def test_patches_that_explode_are_refused(door: Door, name: str) -> None:
    sort, patch = PATCHES[name]
    request = pb.CommitRequest()
    operation = request.transactions.add().operations.add()
    operation.ref.kind, operation.ref.name = "kcore.core.v1.Namespace", "default"
    setattr(operation.patch, sort, patch if isinstance(patch, str) else json.dumps(patch))
    with bounded(mebibytes=128):
        assert door.ask(COMMIT, request.SerializeToString()) is None


def nested(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        if len(body) > 60_000:
            break
        size = len(body)
        prefix = (
            bytes((size,))
            if size < 128
            else bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14))
        )
        body = b"\x0a" + prefix + body
    return body


PROTOBUFS = {
    "S35-nested": nested(10_000),
    "S35-groups": b"\x0b" * 10_000,
    "S35-groups-that-end": b"\x0b" * 5_000 + b"\x0c" * 5_000,
    "S35-endless-number": b"\x08" + b"\xff" * 100,
    "S35-length": b"\x0a\xff\xff\xff\xff\x0f",
    "S35-not-utf8": b"\x0a\x04\x0a\x02\xff\xfe",
}


@pytest.mark.parametrize("name", PROTOBUFS)
@pytest.mark.parametrize("door_name", ["request", "object"])
def test_protobuf_bombs_are_refused(door: Door, door_name: str, name: str) -> None:
    body = PROTOBUFS[name]
    if door_name == "object":
        request = pb.CommitRequest()
        operation = request.transactions.add().operations.add()
        operation.ref.kind, operation.ref.name = POD, "a"
        operation.ref.namespace = "default"
        operation.create = body
        body = request.SerializeToString()
    with bounded():
        assert door.ask(COMMIT, body) is None


def test_s35_protobuf_is_upb() -> None:
    assert api_implementation.Type() == "upb"
    with pytest.raises(DecodeError):
        pod_pb2.Pod.FromString(b"\xff")


@pytest.mark.parametrize(
    "value",
    [2**31, 2**32 + 80, -(2**31) - 1, "080", "0x50", True, 1.5, 10**400, "9" * 5000, [], {}],
)
def test_s85_numbers_that_do_not_fit_are_refused_with_their_path(value: Any) -> None:
    for spec, path in (
        ({"replicas": value}, "spec.replicas"),
        ({"minReadySeconds": value}, "spec.minReadySeconds"),
    ):
        with pytest.raises(ApiError) as raised:
            codec.from_plain(deployment_pb2.Deployment.DESCRIPTOR, {"spec": spec})
        assert raised.value.reason is Reason.INVALID
        assert raised.value.violations[0].path == path


@pytest.mark.parametrize("port", [-1, 0, 65_536, 2**31 - 1])
def test_s85_ports_that_are_none_are_refused(door: Door, port: int) -> None:
    pod = pod_pb2.Pod()
    pod.metadata.name, pod.metadata.namespace = "p", "default"
    pod.spec.containers.add(name="c", image="i").ports.add(container_port=port)
    assert door.ask(COMMIT, create(POD, pod).SerializeToString()) is None


def test_p18_an_object_of_very_many_parts_does_not_hold_up_the_others(door: Door) -> None:
    for filled in (False, True):
        pod = pod_pb2.Pod()
        pod.metadata.name, pod.metadata.namespace = "p", "default"
        for number in range(100_000 if not filled else 30_000):
            pod.spec.containers.add(**({"name": f"c{number}", "image": "i"} if filled else {}))
        with bounded(3.0):
            assert door.ask(COMMIT, create(POD, pod).SerializeToString()) is None


def test_p18_an_error_quotes_what_cannot_be_encoded() -> None:
    with pytest.raises(ApiError) as raised:
        codec.from_plain(pod_pb2.Pod.DESCRIPTOR, {"metadata": {"name": "\ud800"}})
    assert raised.value.message.encode()


@functools.cache
def program() -> dict[str, str]:
    """The program's files."""
    return {
        str(path.relative_to(TREE)): path.read_text()
        for path in sorted((TREE / "kcore").rglob("*.py"))
    }


def having(pattern: str) -> set[str]:
    """The files in which there is something."""
    return {path for path, text in program().items() if re.search(pattern, text, re.MULTILINE)}


def test_s32_nothing_loads_yaml_but_the_document() -> None:
    allowed = {"kcore/client/document.py", "kcore/client/yaml_writer.py"}
    assert having(r"^\s*(import yaml|from yaml)\b") <= allowed
    assert not having(r"yaml\.(unsafe_|full_)?load|pickle|marshal\.load")


def test_s92_what_is_not_encrypted_is_a_socket() -> None:
    known = {
        "kcore/client/channel.py",
        "kcore/kubelet/cri.py",
        "kcore/apiserver/serve.py",
        # Where no certificates are given: an etcd on the loopback.
        "kcore/kernel/store/etcd_client.py",
        # Probes ask containers as they are.
        "kcore/kubelet/handler.py",
    }
    assert having(r"\binsecure_channel\(|\badd_insecure_port\(") == known
    # The apiserver's listener without TLS is its socket.
    assert having(r"serve\.Listener\((?!f\"unix:|listeners\.(tls|mutual), .*wrapped)") == set()


def test_s86_secrets_are_compared_in_constant_time() -> None:
    # There a signature is what a file looks like from outside.
    allowed = {"kcore/kubelet/manifests.py"}
    secret = r"(token|password|secret|signature)"
    assert having(rf"\b{secret}\s*[!=]=|[!=]=\s*[\w.]*\b{secret}\b(?!\w)") <= allowed
