"""Makes container images on the spot, without a network: pause and busybox, from Debian's files.

An image is a tar that is an OCI layout and, by one more file, what `docker load` reads too. The
same input gives the same bytes: no times, no users, entries in order, layers not compressed (so
that no version of a compressor has a say). `write_image` serves every other image as well: give
it layers and a `Config`.

It must not know who runs the images. `load` is the only function that talks to anybody.
"""

import asyncio
import hashlib
import io
import json
import os
import platform
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

PAUSE = "kcore.local/pause:1"
BUSYBOX = "kcore.local/busybox:1"
COREDNS = "kcore.local/coredns:1"

# The names of runtime.GOARCH, which images are labelled with.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}

# The header that names the interpreter of a program that is not static.
PT_INTERP = 3


class ImageError(Exception):
    """An image cannot be made or loaded; the text says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a layer. `path` has no leading slash; root owns it unless told otherwise.

    A directory has neither `data`, `source` nor `target`; a symbolic link has a `target`; the
    bytes of a file are `data`, or those of the file `source` on this machine.
    """

    path: str
    mode: int = 0o644
    data: bytes | None = None
    source: Path | None = None
    target: str | None = None
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A tar of files, in memory or in a file. `digest` is `sha256:` and hex digits."""

    digest: str
    size: int
    content: bytes | Path = field(repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """What an image says about running it."""

    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: Sequence[str] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    exposed_ports: Sequence[str] = ()
    volumes: Sequence[str] = ()
    labels: dict[str, str] = field(default_factory=dict)


def machine() -> str:
    """This machine's architecture, by the name that images use."""
    name = platform.machine()
    return ARCHITECTURES.get(name, name)


def write_layer(out: BinaryIO, entries: Iterable[Entry]) -> None:
    """Writes a layer's tar: entries sorted by path, parents of none are made up."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in sorted(entries, key=lambda entry: entry.path):
            info = tarfile.TarInfo(entry.path)
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            if entry.target is not None:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
                tar.addfile(info)
            elif entry.source is not None:
                with entry.source.open("rb") as file:
                    info.size = os.fstat(file.fileno()).st_size
                    tar.addfile(info, file)
            elif entry.data is not None:
                info.size = len(entry.data)
                tar.addfile(info, io.BytesIO(entry.data))
            else:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)


def layer(entries: Iterable[Entry]) -> Layer:
    """A layer in memory, for small ones."""
    out = io.BytesIO()
    write_layer(out, entries)
    content = out.getvalue()
    return Layer(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), content)


def layer_file(path: Path) -> Layer:
    """A layer that is a tar on disk: made by `write_layer`, or by another program."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Layer(f"sha256:{digest}", os.fstat(file.fileno()).st_size, path)


def tree(root: Path, prefix: str = "") -> Iterator[Entry]:
    """The files below a directory of this machine, as entries; links are never followed.

    Owners become root. Sockets, pipes and devices are left out: no image should bring them.
    """
    for found in sorted(root.rglob("*")):
        info = found.lstat()
        path = f"{prefix}{found.relative_to(root).as_posix()}"
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISLNK(info.st_mode):
            yield Entry(path, target=os.readlink(found))
        elif stat.S_ISDIR(info.st_mode):
            yield Entry(path, mode)
        elif stat.S_ISREG(info.st_mode):
            yield Entry(path, mode, source=found)


def write_image(
    out: BinaryIO,
    name: str,
    layers: Sequence[Layer],
    config: Config,
    architecture: str | None = None,
) -> None:
    """Writes an image's tar. `name` is whole: `registry/path:tag`."""
    if ":" not in name.rpartition("/")[2]:
        raise ImageError(f"image name {name!r} has no tag")
    target = {"architecture": architecture or machine(), "os": "linux"}
    settings = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "Env": list(config.env),
        "WorkingDir": config.working_dir,
        "User": config.user,
        "StopSignal": config.stop_signal,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Volumes": {path: {} for path in config.volumes},
        "Labels": config.labels,
    }
    config_blob = _json(
        {
            **target,
            "created": "1970-01-01T00:00:00Z",
            "config": {key: value for key, value in settings.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created": "1970-01-01T00:00:00Z"} for _ in layers],
        }
    )
    manifest_blob = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("config.v1+json", config_blob),
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer.digest,
                    "size": layer.size,
                }
                for layer in layers
            ],
        }
    )
    index_blob = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    **_descriptor("manifest.v1+json", manifest_blob),
                    "platform": target,
                    "annotations": {
                        "io.containerd.image.name": name,
                        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
                    },
                }
            ],
        }
    )
    docker_blob = _json(
        [
            {
                "Config": _blob_path(_digest(config_blob)),
                "RepoTags": [name],
                "Layers": [_blob_path(layer.digest) for layer in layers],
            }
        ]
    )
    blobs: dict[str, bytes | Path] = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": index_blob,
        "manifest.json": docker_blob,
        _blob_path(_digest(config_blob)): config_blob,
        _blob_path(_digest(manifest_blob)): manifest_blob,
        **{_blob_path(layer.digest): layer.content for layer in layers},
    }
    write_layer(
        out,
        [
            Entry("blobs", 0o755),
            Entry("blobs/sha256", 0o755),
            *(
                Entry(path, source=content)
                if isinstance(content, Path)
                else Entry(path, data=content)
                for path, content in blobs.items()
            ),
        ],
    )


def image_tar(
    name: str, layers: Sequence[Layer], config: Config, architecture: str | None = None
) -> bytes:
    """An image's tar in memory, for small ones."""
    out = io.BytesIO()
    write_image(out, name, layers, config, architecture)
    return out.getvalue()


def pause_image(program: Path = Path("/usr/bin/catatonit")) -> bytes:
    """The image whose one process holds a pod's namespaces and reaps its orphans."""
    entries = [Entry("pause", 0o755, data=static_program(program))]
    return image_tar(PAUSE, [layer(entries)], Config(entrypoint=("/pause", "-P"), env=()))


def busybox_image(program: Path = Path("/usr/bin/busybox")) -> bytes:
    """A shell and the usual commands, for tests, examples and debugging."""
    listed = subprocess.run([program, "--list"], capture_output=True, check=True, text=True)
    applets = sorted(set(listed.stdout.split()) - {"busybox"})
    entries = [
        *(Entry(path, 0o755) for path in ("bin", "etc", "home", "usr", "usr/bin", "var")),
        *(Entry(path, 0o755) for path in ("dev", "proc", "sys", "run", "var/www")),
        Entry("root", 0o700),
        Entry("tmp", 0o1777),
        Entry("var/tmp", 0o1777),
        Entry("bin/busybox", 0o755, data=static_program(program)),
        *(Entry(f"bin/{applet}", target="busybox") for applet in applets),
        # Where scripts look for it.
        Entry("usr/bin/env", target="../../bin/env"),
        Entry(
            "etc/passwd",
            data=b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        ),
        Entry("etc/group", data=b"root:x:0:\nnogroup:x:65534:\n"),
        Entry("etc/nsswitch.conf", data=b"passwd: files\ngroup: files\nhosts: files dns\n"),
    ]
    return image_tar(BUSYBOX, [layer(entries)], Config(command=("sh",)))


def coredns_image(program: Path) -> bytes:
    """The server of the cluster's names; `make coredns` builds the program."""
    entries = [Entry("coredns", 0o755, data=static_program(program))]
    config = Config(entrypoint=("/coredns",), env=(), exposed_ports=("53/tcp", "53/udp"))
    return image_tar(COREDNS, [layer(entries)], config)


def static_program(path: Path) -> bytes:
    """A program's bytes, once it is sure that it runs without any library beside it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} is not there: {error.strerror}") from error
    if content[:6] != b"\x7fELF\x02\x01":
        raise ImageError(f"{path} is not a 64-bit program")
    headers = int.from_bytes(content[32:40], "little")
    size, count = (int.from_bytes(content[at : at + 2], "little") for at in (54, 56))
    for at in range(headers, headers + size * count, size):
        if int.from_bytes(content[at : at + 4], "little") == PT_INTERP:
            raise ImageError(f"{path} is not static: it would miss its libraries")
    return content


async def load(
    tar: bytes | Path, endpoint: Path, namespace: str = "k8s.io", ctr: str = "ctr"
) -> None:
    """Gives an image to the containerd behind the socket `endpoint`; repeating it does no harm.

    CRI lists the image a moment later: ask for its status until it is there.
    """
    source = str(tar) if isinstance(tar, Path) else "-"
    process = await asyncio.create_subprocess_exec(
        *(ctr, "--address", str(endpoint), "--namespace", namespace, "images", "import", source),
        stdin=subprocess.PIPE if isinstance(tar, bytes) else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, errors = await process.communicate(tar if isinstance(tar, bytes) else None)
    if process.returncode:
        raise ImageError(f"images import: {errors.decode('utf-8', 'replace').strip()}")


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _descriptor(kind: str, blob: bytes) -> dict[str, Any]:
    return {
        "mediaType": f"application/vnd.oci.image.{kind}",
        "digest": _digest(blob),
        "size": len(blob),
    }
