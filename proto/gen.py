"""Makes generated/ from proto/: `make gen`. With --check, says whether it is fresh.

    proto/kcore/**.proto -> kinds.binpb      descriptors with options and comments
    the kinds in it      -> proto/           their typed services (kcore/wire/typed.py)
    both protos          -> kcore_api/       upb's classes; imports moved to kcore_api.*
                         -> kcore_sdk/       dataclasses
    kinds.binpb          -> reference.md     (proto/reference.py)
    all services         -> service_config.json, within kcore_api/ (proto/service_config.py)

All of it is made in a folder of its own, then generated/ is made equal to it, touching only files
that differ. Imports no generated code.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import reference  # noqa: E402
import service_config  # noqa: E402

from kcore.wire import typed  # noqa: E402

# Packages that get classes: google.* comes with its own.
_CLASSES = ("cel", "etcdserverpb", "kcore", "mvccpb", "runtime", "store")
_KEPT = ("__pycache__",)

_API_INIT = '''\
"""The API as Python classes: kcore_api.kcore.core.v1.pod_pb2, …. Generated, never edited."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

# Descriptors of all kinds, with options and comments: a FileDescriptorSet. Inside the package when
# it is installed, beside it in a checkout.
KINDS = _HERE / "kinds.binpb" if (_HERE / "kinds.binpb").exists() else _HERE.parent / "kinds.binpb"
# Which calls a client may repeat by itself: gRPC's service config, for the channel option
# grpc.service_config of any language.
SERVICE_CONFIG = _HERE / "service_config.json"
'''
_SDK_INIT = '''\
"""The API as dataclasses: kcore_sdk.kcore.core.v1.Pod, …. Generated, never edited.

Their to_json does not know Kubernetes' names (podIP): for YAML and JSON pass their bytes through
kcore.client.codec.
"""
'''


def descriptors() -> descriptor_pb2.FileDescriptorSet:
    """Our protos and what they import, each after its imports, with the comments of ours."""
    protos = ROOT / "proto"
    files = sorted(str(path.relative_to(protos)) for path in (protos / "kcore").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        includes = [protos, Path(grpc_tools.__file__).parent / "_proto"]
        failed = protoc.main(
            [
                "protoc",
                *(f"-I{path}" for path in includes),
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={made}",
                *files,
            ]
        )
        if failed:
            raise SystemExit(failed)
        found = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())
    for file in found.file:
        commented = [
            place
            for place in file.source_code_info.location
            if file.name.startswith("kcore/") and place.HasField("leading_comments")
        ]
        file.ClearField("source_code_info")
        file.source_code_info.location.extend(commented)
    return found


def kinds(found: descriptor_pb2.FileDescriptorSet) -> list[Descriptor]:
    """The messages that are kinds, by full name."""
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:
        pool.Add(file)
    options = reference.Options(pool)
    messages = [
        message
        for file in found.file
        for message in pool.FindFileByName(file.name).message_types_by_name.values()
    ]
    return sorted(
        (message for message in messages if options.kind(message)), key=lambda one: one.full_name
    )


def make(out: Path) -> None:
    """Makes all of generated/ in `out`."""
    found = descriptors()
    out.mkdir(parents=True, exist_ok=True)
    (out / "kinds.binpb").write_bytes(found.SerializeToString(deterministic=True))
    faces = [typed.service_file(kind) for kind in kinds(found)]
    for file in faces:
        place = out / "proto" / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(typed.text(file))
    (out / "reference.md").write_text(reference.render(found))
    with tempfile.TemporaryDirectory() as folder:
        _classes(Path(folder), out)
    config = service_config.render([*found.file, *faces])
    (out / "kcore_api/service_config.json").write_text(config)


def _classes(work: Path, out: Path) -> None:
    """The classes of proto/ and of `out`/proto."""
    shutil.copytree(ROOT / "proto", work / "proto", ignore=shutil.ignore_patterns("*.py", *_KEPT))
    shutil.copytree(out / "proto", work / "generated/proto")
    for name in ("buf.yaml", "buf.gen.yaml"):
        shutil.copy(ROOT / name, work / name)
    _run(["buf", "generate"], work)

    moved = re.compile(rf"^(\s*)from ((?:{'|'.join(_CLASSES)})(?:\.\w+)*) import", re.MULTILINE)
    for top in _CLASSES:
        for source in sorted((work / "kcore_api" / top).rglob("*_pb2.py*")):
            place = out / source.relative_to(work)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(moved.sub(r"\1from kcore_api.\2 import", source.read_text()))
    folders = {place.parent for place in (out / "kcore_api").rglob("*_pb2.py")}
    for folder in sorted({above for one in folders for above in (one, *one.parents)}):
        if folder.is_relative_to(out / "kcore_api"):
            (folder / "__init__.py").write_text("")
    (out / "kcore_api/__init__.py").write_text(_API_INIT)
    (out / "kcore_api/py.typed").write_text("")

    for top in _CLASSES:
        if top != "kcore":
            shutil.rmtree(work / "kcore_sdk" / top)
    shutil.copytree(work / "kcore_sdk", out / "kcore_sdk")
    (out / "kcore_sdk/__init__.py").write_text(_SDK_INIT)
    (out / "kcore_sdk/py.typed").write_text("")


def _run(command: list[str], where: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command, cwd=where, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def _files(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not set(_KEPT) & set(path.parts)
    }


def differences(made: Path, committed: Path) -> list[Path]:
    """Files that differ, by their path in either folder."""
    new, old = _files(made), _files(committed)
    return sorted(path for path in new.keys() | old.keys() if new.get(path) != old.get(path))


def main() -> None:
    """Makes generated/, or compares it."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--check", action="store_true", help="change nothing; fail if stale")
    check = arguments.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        made, committed = Path(folder) / "generated", ROOT / "generated"
        make(made)
        stale = differences(made, committed)
        for path in stale:
            print(f"generated/{path}")
            if check:
                continue
            if (made / path).exists():
                (committed / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(made / path, committed / path)
            else:
                (committed / path).unlink()
        if check and stale:
            raise SystemExit("stale: run `make gen` and commit what it changes")


if __name__ == "__main__":
    main()
