"""A pod's volumes on the node's disk.

`content` is pure: which files a ConfigMap, Secret, downward API or projected volume has. `make`
puts every volume below the pod's directory and answers where each is; `remove` takes them away.

Files of objects are written to a fresh directory and shown by swapping the link `..data`, so that
a reader sees all of the old or all of the new. Memory is tmpfs: emptyDir of medium Memory, and
every Secret.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2, volume_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import env
from kcore.kubelet.env import Missing
from kcore.wire import quantity

DEFAULT_MODE = 0o644
SECRET_BYTES = 64 * 1024 * 1024
_PROPAGATION = {
    "HostToContainer": pb.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": pb.PROPAGATION_BIDIRECTIONAL,
}


class VolumeError(Exception):
    """A volume cannot be made: reason FailedMount, tried again."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume."""

    data: bytes
    mode: int


def content(
    source: volume_pb2.VolumeSource, pod: pod_pb2.Pod, named: env.Named, facts: env.Facts
) -> dict[str, File]:
    """Files by relative path."""
    if source.HasField("config_map"):
        one = source.config_map
        return _keys(
            "configmap",
            one.local_object_reference.name,
            named.config_maps,
            one.items,
            one.default_mode if one.HasField("default_mode") else DEFAULT_MODE,
            one.optional,
        )
    if source.HasField("secret"):
        secret = source.secret
        return _keys(
            "secret",
            secret.secret_name,
            named.secrets,
            secret.items,
            secret.default_mode if secret.HasField("default_mode") else DEFAULT_MODE,
            secret.optional,
        )
    if source.HasField("downward_api"):
        down = source.downward_api
        mode = down.default_mode if down.HasField("default_mode") else DEFAULT_MODE
        return _downward(down.items, mode, pod, facts)
    projected = source.projected
    mode = projected.default_mode if projected.HasField("default_mode") else DEFAULT_MODE
    files: dict[str, File] = {}
    for part in projected.sources:
        if part.HasField("config_map"):
            name = part.config_map.local_object_reference.name
            items, optional = part.config_map.items, part.config_map.optional
            files |= _keys("configmap", name, named.config_maps, items, mode, optional)
        elif part.HasField("secret"):
            name = part.secret.local_object_reference.name
            items, optional = part.secret.items, part.secret.optional
            files |= _keys("secret", name, named.secrets, items, mode, optional)
        elif part.HasField("downward_api"):
            files |= _downward(part.downward_api.items, mode, pod, facts)
        else:
            raise Missing("tokens of service accounts are not given out yet")
    return files


def directory(root: Path, uid: str) -> Path:
    """Where a pod's things are."""
    return root / "pods" / uid


def make(pod: pod_pb2.Pod, named: env.Named, facts: env.Facts, root: Path) -> dict[str, Path]:
    """Makes what is missing, renews what has changed; answers each volume's path."""
    base = directory(root, pod.metadata.uid) / "volumes"
    base.mkdir(parents=True, exist_ok=True, mode=0o750)
    group = (
        pod.spec.security_context.fs_group
        if pod.spec.security_context.HasField("fs_group")
        else None
    )
    places: dict[str, Path] = {}
    for volume in pod.spec.volumes:
        source, place = volume.volume_source, base / volume.name
        places[volume.name] = place
        try:
            if source.HasField("host_path"):
                places[volume.name] = _host_path(source.host_path)
            elif source.HasField("empty_dir"):
                _empty_dir(source.empty_dir, place, group)
            elif source.HasField("persistent_volume_claim") or source.HasField("ephemeral"):
                raise VolumeError("volumes of claims are not made yet")
            else:
                files = content(source, pod, named, facts)
                if source.HasField("secret"):
                    _memory(place, SECRET_BYTES)
                _show(files, place, group)
        except (OSError, Missing, VolumeError) as error:
            said = f'MountVolume.SetUp failed for volume "{volume.name}" : {error}'
            raise VolumeError(said) from error
    return places


def mounts(
    container: container_pb2.Container,
    places: Mapping[str, Path],
    variables: Mapping[str, str],
    spec_volumes: Iterable[volume_pb2.Volume],
) -> list[pb.Mount]:
    """What the runtime mounts into a container."""
    sources = {volume.name: volume.volume_source for volume in spec_volumes}
    found = []
    for mount in container.volume_mounts:
        if mount.name not in places:
            raise VolumeError(f'volume "{mount.name}" is not one of the pod\'s')
        host = places[mount.name]
        below = mount.sub_path or env.expand(mount.sub_path_expr, variables)
        source = sources[mount.name]
        if below:
            made = source.HasField("empty_dir") or source.HasField("host_path")
            host = _below(host, below, create=made)
        frozen = any(
            source.HasField(name) for name in ("config_map", "secret", "downward_api", "projected")
        )
        found.append(
            pb.Mount(
                container_path=mount.mount_path,
                host_path=str(host),
                readonly=mount.read_only or frozen,
                propagation=_PROPAGATION.get(mount.mount_propagation, pb.PROPAGATION_PRIVATE),
            )
        )
    return found


def remove(root: Path, uid: str) -> None:
    """Unmounts and removes a pod's directory; what a hostPath shows is never touched."""
    where = directory(root, uid)
    prefix = f"{where}/"
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].encode().decode("unicode_escape") for line in lines]
    for point in sorted((one for one in points if one.startswith(prefix)), reverse=True):
        subprocess.run(["umount", point], check=False, capture_output=True)
    shutil.rmtree(where, ignore_errors=True)


def _keys(
    what: str,
    name: str,
    table: Mapping[str, Mapping[str, bytes]],
    items: Iterable[volume_pb2.KeyToPath],
    mode: int,
    optional: bool,
) -> dict[str, File]:
    if name not in table:
        if optional:
            return {}
        raise Missing(f'{what} "{name}" not found')
    data, chosen = table[name], list(items)
    if not chosen:
        return {key: File(value, mode) for key, value in sorted(data.items())}
    files = {}
    for item in chosen:
        if item.key in data:
            files[item.path] = File(data[item.key], item.mode if item.HasField("mode") else mode)
        elif not optional:
            raise Missing(f'{what} "{name}" has no key "{item.key}"')
    return files


def _downward(
    items: Iterable[volume_pb2.DownwardAPIVolumeFile],
    mode: int,
    pod: pod_pb2.Pod,
    facts: env.Facts,
) -> dict[str, File]:
    files = {}
    for item in items:
        if item.HasField("field_ref"):
            text = env.field_value(pod, item.field_ref.field_path, facts)
        else:
            text = env.resource_value(pod, pod.spec.containers[0], item.resource_field_ref, facts)
        files[item.path] = File(text.encode(), item.mode if item.HasField("mode") else mode)
    return files


def _empty_dir(source: volume_pb2.EmptyDirVolumeSource, place: Path, group: int | None) -> None:
    limit = quantity.value(source.size_limit.string) if source.size_limit.string else 0
    fresh = not place.exists()
    if source.medium == "Memory":
        _memory(place, limit)
    else:
        place.mkdir(exist_ok=True)
    if fresh:
        # Whatever the umask.
        place.chmod(0o777)
        if group is not None:
            os.chown(place, -1, group)
            place.chmod(0o2777)


def _memory(place: Path, limit_bytes: int) -> None:
    place.mkdir(exist_ok=True)
    if place.is_mount():
        return
    options = ["-o", f"size={limit_bytes}"] if limit_bytes else []
    done = subprocess.run(
        ["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        raise VolumeError(f"tmpfs: {done.stderr.strip()}")


def _host_path(source: volume_pb2.HostPathVolumeSource) -> Path:
    path, kind = Path(source.path), source.type
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(parents=True, mode=0o755)
    if kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    if not kind:
        return path
    checks = {
        "DirectoryOrCreate": stat.S_ISDIR,
        "Directory": stat.S_ISDIR,
        "FileOrCreate": stat.S_ISREG,
        "File": stat.S_ISREG,
        "Socket": stat.S_ISSOCK,
        "CharDevice": stat.S_ISCHR,
        "BlockDevice": stat.S_ISBLK,
    }
    if not path.exists() or not checks[kind](path.stat().st_mode):
        raise VolumeError(f"hostPath type check failed: {path} is not a {kind}")
    return path


def _show(files: Mapping[str, File], place: Path, group: int | None) -> None:
    """Writes the files and swaps `..data` to them; nothing happens if they are the same."""
    place.mkdir(exist_ok=True)
    place.chmod(0o755 if group is None else 0o2775)
    data = place / "..data"
    if data.is_symlink() and _same(files, data):
        return
    number = 0
    while (fresh := place / f"..{number}").exists():
        number += 1
    fresh.mkdir()
    fresh.chmod(0o755)
    for name, file in files.items():
        target = fresh / _relative(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
        target.chmod(file.mode | (0o440 if group is not None else 0))
        if group is not None:
            os.chown(target, -1, group)
    old = data.resolve() if data.is_symlink() else None
    link = place / "..data_new"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(data)
    for top in {PurePosixPath(name).parts[0] for name in files}:
        shown = place / top
        if not shown.is_symlink():
            shown.symlink_to(f"..data/{top}")
    for shown in place.iterdir():
        if shown.is_symlink() and not shown.name.startswith("..") and not shown.exists():
            shown.unlink()
    if old is not None and old.parent == place:
        shutil.rmtree(old, ignore_errors=True)


def _same(files: Mapping[str, File], data: Path) -> bool:
    there = {
        str(path.relative_to(data.resolve())): path
        for path in data.resolve().rglob("*")
        if path.is_file()
    }
    return there.keys() == {str(_relative(name)) for name in files} and all(
        there[str(_relative(name))].read_bytes() == file.data for name, file in files.items()
    )


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise VolumeError(f"{name!r} leads out of the volume")
    return path


def _below(root: Path, path: str, *, create: bool) -> Path:
    """A path within a volume, reached without following any link out of it."""
    current = root.resolve()
    inside = current
    for part in _relative(path).parts:
        current = current / part
        if current.is_symlink():
            current = current.resolve()
            if not current.is_relative_to(inside):
                raise VolumeError(f"subPath {path!r} leads out of the volume")
        if not current.exists():
            if not create:
                raise VolumeError(f"subPath {path!r} is not there")
            current.mkdir(mode=0o750)
            current.chmod(0o777 & inside.stat().st_mode | 0o700)
    return current
