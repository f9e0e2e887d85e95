"""The mission, sentence by sentence, as far as it is built: what needs no machine.

Sentences that need containers are in test_mission_on_a_machine.py.
"""

import re
import subprocess
from pathlib import Path

import kcore_api
from google.protobuf import descriptor_pb2
from kcore_api.kcore.meta.v1 import options_pb2

HERE = Path(__file__).resolve().parents[2]


def kinds() -> dict[str, tuple[descriptor_pb2.DescriptorProto, options_pb2.Kind]]:
    """Every kind that is served, by full name."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(kcore_api.KINDS).read_bytes())
    return {
        f"{file.package}.{message.name}": (message, message.options.Extensions[options_pb2.kind])
        for file in files.file
        for message in file.message_type
        if message.options.HasExtension(options_pb2.kind)
    }


def test_every_object_is_a_protobuf_message_with_metadata_first_and_status_third() -> None:
    found = kinds()
    assert {"Node", "Pod", "Deployment", "ReplicaSet"} <= {name.split(".")[-1] for name in found}
    for message, _ in found.values():
        numbers = {field.number: field for field in message.field}
        assert numbers[1].name == "metadata"
        assert numbers[1].type_name == ".kcore.meta.v1.ObjectMeta"
        for field in message.field:
            if field.name == "status":
                assert field.number == 3


def test_components_are_clients_and_only_the_apiserver_reaches_the_store() -> None:
    done = subprocess.run(
        ["lint-imports", "--no-cache"],
        cwd=HERE,
        capture_output=True,
        text=True,
        env={"PATH": f"{HERE}/.venv/bin:/usr/bin:/bin", "PYTHONPATH": f"{HERE}:{HERE}/generated"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


# What the kernel itself is made of: where values come from, where objects live, what is served.
KERNEL_KINDS = (".Pool", ".Namespace", ".Schema")


def test_the_kernel_names_no_kind() -> None:
    names = {name for name in kinds() if not name.endswith(KERNEL_KINDS)}
    for path in sorted((HERE / "kcore" / "kernel").rglob("*.py")):
        text = path.read_text()
        assert not [name for name in names if f'"{name}"' in text], path


def test_the_top_level_folders_are_there() -> None:
    for name in ("proto", "kcore", "generated", "deploy", "tests", "buf.yaml", "Makefile"):
        assert (HERE / name).exists(), name


def test_the_packages_asked_for_are_used_or_replaced_with_a_reason() -> None:
    wanted = (HERE / "pyproject.toml").read_text()
    readme = (HERE / "README.md").read_text()
    for package in ("grpcio", "grpcio-tools", "betterproto2", "pyroute2", "jinja2", "pytest"):
        assert re.search(rf'"{package}\b', wanted), package
    for replaced in ("betterproto", "etcd3"):
        assert replaced in readme


def test_each_kind_has_a_typed_service() -> None:
    for name in kinds():
        package, _, kind = name.rpartition(".")
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
        path = HERE / "generated/proto" / package.replace(".", "/") / f"{snake}_service.proto"
        text = path.read_text()
        for method in ("Get", "List", "Watch", "Create", "Update", "Apply", "Delete"):
            assert f"rpc {method}(" in text, (path, method)
