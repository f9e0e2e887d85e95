"""What this kubelet does not run, whoever asks for it. Pure.

`names`, `sandbox`, `container` and `mount_path` raise `Refused` with the field's path. The API
refuses most of this already; manifests of a directory, and objects written by an older server, come
here unseen. Names become paths on this machine, so they are looked at before anything else.
"""

import posixpath
import re
from collections.abc import Iterable

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import sync

# What may be part of a path: no separator, no way up, nothing hidden.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", re.ASCII)
# Kernel settings that belong to the pod's namespaces alone and can't harm its neighbours.
_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    )
)
_SYSCTL_VALUE = re.compile(r"-?[0-9]+([ \t,-][0-9]+)*", re.ASCII)
# Where the runtime's own mounts are: over these a volume would hide what protects the machine.
_GUARDED = ("/proc", "/sys", "/dev", "/sys/fs/cgroup")
_MOST_USER = 2**31 - 1


class Refused(Exception):
    """The pod asks for something that is not done."""


def names(pod: pod_pb2.Pod) -> None:
    """Whether the pod's names can be used as names of files."""
    spec = pod.spec
    found: list[tuple[str, str]] = [
        ("metadata.uid", pod.metadata.uid),
        ("metadata.namespace", pod.metadata.namespace),
        ("metadata.name", pod.metadata.name),
    ]
    for field, containers in (
        ("initContainers", spec.init_containers),
        ("containers", spec.containers),
        ("ephemeralContainers", sync.ephemeral(pod)),
    ):
        for index, one in enumerate(containers):
            found.append((f"spec.{field}[{index}].name", one.name))
    for index, volume in enumerate(spec.volumes):
        found.append((f"spec.volumes[{index}].name", volume.name))
    for path, name in found:
        if not is_name(name):
            raise Refused(f"{path}: {name!r} is no name")


def is_name(text: str) -> bool:
    """Whether it can be the name of a file."""
    return _NAME.fullmatch(text) is not None


def sandbox(pod: pod_pb2.Pod) -> None:
    """Whether the pod's kernel settings stay in the pod."""
    for index, one in enumerate(pod.spec.security_context.sysctls):
        path = f"spec.securityContext.sysctls[{index}]"
        name = one.name.replace("/", ".")
        if name not in _SYSCTLS:
            raise Refused(f"{path}.name: {one.name!r} is not one that pods may set")
        if _SYSCTL_VALUE.fullmatch(one.value) is None:
            raise Refused(f"{path}.value: {one.value!r} is no number, nor several")
        if name.startswith("net.") and pod.spec.host_network:
            raise Refused(f"{path}.name: {one.name!r} is the node's with hostNetwork")
        if name.startswith("kernel.") and pod.spec.host_ipc:
            raise Refused(f"{path}.name: {one.name!r} is the node's with hostIPC")


def container(pod: pod_pb2.Pod, one: container_pb2.Container, image: pb.Image) -> None:
    """Whether the container's user, directory and profile are such as it may have."""
    _user(pod, one, image)
    directory = _plain(one.working_dir)
    if one.working_dir and not one.working_dir.startswith("/"):
        raise Refused(f"workingDir: {one.working_dir!r} is not absolute")
    if _is_in(directory, ("/proc",)):
        raise Refused(f"workingDir: {one.working_dir!r} is the kernel's")
    context = one.security_context
    if context.proc_mount == "Unmasked":
        raise Refused(
            "securityContext.procMount: Unmasked needs hostUsers false, which is not here"
        )
    for source in (context, pod.spec.security_context):
        profile = source.seccomp_profile
        if profile.type == "Localhost" and not profile.localhost_profile:
            raise Refused("securityContext.seccompProfile.localhostProfile: Localhost needs one")


def mount_path(path: str, *, privileged: bool) -> None:
    """Whether something may be mounted there in a container."""
    plain = _plain(path)
    if not path.startswith("/") or ".." in path.split("/") or ":" in path or "\0" in path:
        raise Refused(f"mountPath: {path!r} is not an absolute path without '..' and ':'")
    if plain == "/":
        raise Refused("mountPath: nothing is mounted over the whole file system")
    guarded = _is_in(plain, ("/proc",)) or plain in _GUARDED or _is_in(plain, ("/sys/fs/cgroup",))
    if guarded and not privileged:
        raise Refused(f"mountPath: {path!r} is the kernel's, and the container is not privileged")


def _user(pod: pod_pb2.Pod, one: container_pb2.Container, image: pb.Image) -> None:
    mine, shared = one.security_context, pod.spec.security_context
    chosen: int | None = None
    for source in (shared, mine):
        if source.HasField("run_as_user"):
            chosen = source.run_as_user
        if source.HasField("run_as_group") and not 0 <= source.run_as_group <= _MOST_USER:
            raise Refused(f"securityContext.runAsGroup: {source.run_as_group} is no group")
    if chosen is not None and not 0 <= chosen <= _MOST_USER:
        raise Refused(f"securityContext.runAsUser: {chosen} is no user")
    must_not = shared.run_as_non_root
    if mine.HasField("run_as_non_root"):
        must_not = mine.run_as_non_root
    if not must_not:
        return
    if chosen is not None:
        if chosen == 0:
            raise Refused("container's runAsUser breaks non-root policy")
        return
    if image.HasField("uid"):
        if not 0 < image.uid.value <= _MOST_USER:
            raise Refused("container has runAsNonRoot and image will run as root")
        return
    if image.username:
        raise Refused(
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
            "cannot verify user is non-root"
        )
    raise Refused("container has runAsNonRoot and image will run as root")


def _plain(path: str) -> str:
    # Two slashes at the beginning would stay two.
    return posixpath.normpath("/" + path.lstrip("/"))


def _is_in(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
