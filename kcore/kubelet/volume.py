"""A pod's volumes on the node's disk.

`content` is pure: which files a ConfigMap, Secret, downward API or projected volume has. `make`
puts every volume below the pod's directory and answers where each is, `renew` follows changes of
those objects, `mounts` says what a container sees of them, `overfull` which have grown too large,
and `remove` takes all of it away.

Files of objects are written to a fresh directory and shown by swapping the link `..data`, so that
a reader sees all of the old or all of the new. Memory is tmpfs: emptyDir of medium Memory, and
every Secret. A subPath is opened without leaving its volume and mounted at a place of its own, so
that no container can swap it for something else in between.

All of this may be done again at any time, after any crash. It touches the disk: not for the loop.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2, volume_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import env, mount, refusal
from kcore.kubelet.env import Missing
from kcore.wire import quantity

DEFAULT_MODE = 0o644
SECRET_BYTES = 64 * 1024 * 1024
OBJECTS = ("config_map", "secret", "downward_api", "projected")
_GENERATION = re.compile(r"\.\.[0-9]+")
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
    if not refusal.is_name(uid):
        raise VolumeError(f"{uid!r} is no uid")
    return root / "pods" / uid


def make(pod: pod_pb2.Pod, named: env.Named, facts: env.Facts, root: Path) -> dict[str, Path]:
    """Makes what is missing, renews what has changed; answers each volume's path."""
    base = directory(root, pod.metadata.uid) / "volumes"
    base.mkdir(parents=True, exist_ok=True, mode=0o750)
    group = fs_group(pod)
    places: dict[str, Path] = {}
    for volume in pod.spec.volumes:
        source, place = volume.volume_source, base / volume.name
        places[volume.name] = place
        try:
            if source.HasField("host_path"):
                places[volume.name] = _host_path(source.host_path)
            elif source.HasField("empty_dir"):
                _empty_dir(source.empty_dir, place, group)
            elif _is_of_objects(source):
                if source.HasField("secret"):
                    _memory(place, SECRET_BYTES, 0o755, group)
                _fill(source, pod, named, facts, place)
            else:
                raise VolumeError("volumes of claims are not made yet")
        except (OSError, ValueError, Missing, VolumeError) as error:
            said = f'MountVolume.SetUp failed for volume "{volume.name}" : {error}'
            raise VolumeError(said) from error
    return places


def follows(pod: pod_pb2.Pod) -> bool:
    """Whether there is anything that `renew` could change."""
    return any(_is_of_objects(volume.volume_source) for volume in pod.spec.volumes)


def renew(pod: pod_pb2.Pod, named: env.Named, facts: env.Facts, root: Path) -> None:
    """Shows what objects have become. One that is gone leaves its files as they were."""
    base = directory(root, pod.metadata.uid) / "volumes"
    for volume in pod.spec.volumes:
        if _is_of_objects(volume.volume_source) and (base / volume.name).is_dir():
            _fill(volume.volume_source, pod, named, facts, base / volume.name)


def is_limited(pod: pod_pb2.Pod) -> bool:
    """Whether one of its volumes may grow too large."""
    return any(_limit(volume) for volume in pod.spec.volumes)


def overfull(pod: pod_pb2.Pod, root: Path) -> str:
    """What is wrong with the first volume that has outgrown its limit; "" if none has."""
    base = directory(root, pod.metadata.uid) / "volumes"
    for volume in pod.spec.volumes:
        limit = _limit(volume)
        if limit and _size(base / volume.name) > limit:
            said = volume.volume_source.empty_dir.size_limit.string
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{said}".'
    return ""


def mounts(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    places: Mapping[str, Path],
    variables: Mapping[str, str],
    root: Path,
) -> list[pb.Mount]:
    """What the runtime mounts into a container that is about to start."""
    sources = {volume.name: volume.volume_source for volume in pod.spec.volumes}
    held = directory(root, pod.metadata.uid) / "subpaths" / container.name
    if held.exists():
        mount.clear(held)
    found = []
    for index, one in enumerate(container.volume_mounts):
        if one.name not in places:
            raise VolumeError(f'volume "{one.name}" is not one of the pod\'s')
        refusal.mount_path(one.mount_path, privileged=container.security_context.privileged)
        host = places[one.name]
        below = one.sub_path or env.resolve(one.sub_path_expr, variables)
        source = sources[one.name]
        frozen = _is_of_objects(source)
        if below:
            host = _hold(host, below, held / str(index), create=not frozen)
        found.append(
            pb.Mount(
                container_path=one.mount_path,
                host_path=str(host),
                readonly=one.read_only or frozen,
                propagation=_PROPAGATION.get(one.mount_propagation, pb.PROPAGATION_PRIVATE),
            )
        )
    return found


def remove(root: Path, uid: str) -> None:
    """Unmounts and removes a pod's directory; nothing is removed across a mount."""
    where = directory(root, uid)
    if not where.exists():
        return
    mount.clear(where)
    shutil.rmtree(where, ignore_errors=True)


def fs_group(pod: pod_pb2.Pod) -> int | None:
    """The group that volumes belong to, if there is one."""
    context = pod.spec.security_context
    return context.fs_group if context.HasField("fs_group") else None


def _is_of_objects(source: volume_pb2.VolumeSource) -> bool:
    return any(source.HasField(name) for name in OBJECTS)


def _fill(
    source: volume_pb2.VolumeSource,
    pod: pod_pb2.Pod,
    named: env.Named,
    facts: env.Facts,
    place: Path,
) -> None:
    try:
        files = content(source, pod, named, facts)
    except Missing:
        # What containers see already stays until there is something else to show.
        if _generation(place) is None:
            raise
        return
    _show(files, place, fs_group(pod))


def _limit(volume: volume_pb2.Volume) -> int:
    """Bytes that an emptyDir on disk may take; 0: as many as there are. Memory has its own."""
    source = volume.volume_source.empty_dir
    if source.medium == "Memory" or not source.size_limit.string:
        return 0
    return quantity.value(source.size_limit.string)


def _size(place: Path) -> int:
    """Bytes on disk, of this file system alone."""
    found, left = 0, [str(place)]
    try:
        device = os.lstat(place).st_dev
    except OSError:
        return 0
    seen = set()
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    # Containers write and remove while we look.
                    there = entry.stat(follow_symlinks=False)
                    if there.st_dev != device or there.st_ino in seen:
                        continue
                    seen.add(there.st_ino)
                    found += there.st_blocks * 512
                    if stat.S_ISDIR(there.st_mode):
                        left.append(entry.path)
        except OSError:
            continue
    return found


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
    """Made whole, or not at all: what a container does to its mode later is its own business."""
    if source.medium == "Memory":
        limit = quantity.value(source.size_limit.string) if source.size_limit.string else 0
        _memory(place, limit, 0o777, group)
        return
    if place.is_dir():
        return
    draft = place.with_name(f".{place.name}")
    draft.mkdir(exist_ok=True)
    if group is not None:
        os.chown(draft, -1, group)
    # Whatever the umask.
    draft.chmod(0o777 if group is None else 0o2777)
    draft.replace(place)


def _memory(place: Path, limit_bytes: int, mode: int, group: int | None) -> None:
    place.mkdir(exist_ok=True)
    if not place.is_mount():
        mode = mode if group is None else mode | 0o2000
        mount.tmpfs(place, mode=mode, group=group, limit_bytes=limit_bytes)


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
    if group is not None:
        os.chown(place, -1, group)
    place.chmod(0o755 if group is None else 0o2775)
    current = _generation(place)
    if current is not None and _same(files, current):
        return
    number = 0
    while (fresh := place / f"..{number}").exists():
        number += 1
    fresh.mkdir()
    fresh.chmod(0o755)
    for name, file in sorted(files.items()):
        target = fresh / _relative(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
        if group is not None:
            os.chown(target, -1, group)
        target.chmod(file.mode | (0o440 if group is not None else 0))
    link = place / "..data_new"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(place / "..data")
    for top in sorted({_relative(name).parts[0] for name in files}):
        shown = place / top
        if not shown.is_symlink():
            shown.symlink_to(f"..data/{top}")
    for old in sorted(place.iterdir()):
        if _GENERATION.fullmatch(old.name) and old != fresh and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
        elif old.is_symlink() and not old.name.startswith("..") and not old.exists():
            old.unlink()


def _generation(place: Path) -> Path | None:
    """The directory that is shown, if it is one of ours."""
    try:
        name = os.readlink(place / "..data")
    except OSError:
        return None
    found = place / name
    ours = _GENERATION.fullmatch(name) and found.is_dir() and not found.is_symlink()
    return found if ours else None


def _same(files: Mapping[str, File], shown: Path) -> bool:
    there = {
        str(path.relative_to(shown)): path
        for path in shown.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    wanted = {str(_relative(name)): file for name, file in files.items()}
    return there.keys() == wanted.keys() and all(
        there[name].read_bytes() == file.data for name, file in wanted.items()
    )


def _relative(name: str) -> PurePosixPath:
    """A path in a volume of objects. Names that begin with two dots are the volume's own."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or any(one.startswith("..") for one in path.parts):
        raise VolumeError(f"{name!r} leads out of the volume")
    return path


def _hold(volume: Path, path: str, place: Path, *, create: bool) -> Path:
    """Mounts what is at `path` of a volume at a place of its own."""
    try:
        found = mount.open_below(volume, path, create=create)
    except OSError as error:
        raise VolumeError(f"subPath {path!r}: {error.strerror}") from error
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        _vacate(place)
        if stat.S_ISDIR(os.fstat(found).st_mode):
            place.mkdir()
        else:
            place.touch()
        mount.bind(found, place)
    except OSError as error:
        raise VolumeError(f"subPath {path!r}: {error}") from error
    finally:
        os.close(found)
    return place


def _vacate(place: Path) -> None:
    """Removes a place for mounts that nothing is mounted on."""
    if place.is_dir():
        place.rmdir()
    else:
        place.unlink(missing_ok=True)
