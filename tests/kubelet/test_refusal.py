"""What the kubelet does not run, whoever asks: S6, S9, S10, S12, S13, S15."""

from collections.abc import Callable

import pytest
from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import refusal
from tests.kubelet.scene import pod

ROOT = pb.Image(id="x")


def user(number: int) -> pb.Image:
    """An image with a numeric user."""
    return pb.Image(id="x", uid=pb.Int64Value(value=number))


HOSTILE = ["", ".", "..", "../x", "a/b", "/a", "a\0b", ".hidden", "a" * 254, "a b", "ä", "-a"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_names_of_files(name: str) -> None:
    def changed(change: Callable[[pod_pb2.Pod], None]) -> pod_pb2.Pod:
        of = pod("a b", init="i")
        of.spec.volumes.add(name="v")
        refusal.names(of)
        change(of)
        return of

    def set_container(of: pod_pb2.Pod) -> None:
        of.spec.containers[1].name = name

    def set_init(of: pod_pb2.Pod) -> None:
        of.spec.init_containers[0].name = name

    def set_volume(of: pod_pb2.Pod) -> None:
        of.spec.volumes[0].name = name

    for path, change in (
        (r"metadata\.uid", lambda of: setattr(of.metadata, "uid", name)),
        (r"metadata\.namespace", lambda of: setattr(of.metadata, "namespace", name)),
        (r"metadata\.name", lambda of: setattr(of.metadata, "name", name)),
        (r"spec\.containers\[1\]\.name", set_container),
        (r"spec\.initContainers\[0\]\.name", set_init),
        (r"spec\.volumes\[0\]\.name", set_volume),
    ):
        with pytest.raises(refusal.Refused, match=path):
            refusal.names(changed(change))


@pytest.mark.parametrize(
    ("name", "value", "spec"),
    [
        ("kernel.core_pattern", "|/bin/evil", {}),
        ("net.ipv4.tcp_syncookies", "1+kernel.core_pattern=|/bin/evil", {}),
        ("net.ipv4.tcp_syncookies", "1\nkernel.core_pattern=x", {}),
        ("net.ipv4.tcp_syncookies", "", {}),
        ("net.ipv4.tcp_syncookies", "1", {"host_network": True}),
        ("kernel.shm_rmid_forced", "1", {"host_ipc": True}),
        ("vm.swappiness", "1", {}),
        ("net.ipv4.../../kernel.core_pattern", "1", {}),
    ],
)
def test_kernel_settings_stay_in_the_pod(name: str, value: str, spec: dict[str, bool]) -> None:
    of = pod(**spec)
    of.spec.security_context.sysctls.add(name=name, value=value)
    with pytest.raises(refusal.Refused, match=r"sysctls\[0\]"):
        refusal.sandbox(of)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net/ipv4/tcp_syncookies", "1"),
        ("net.ipv4.ip_local_port_range", "1024 65535"),
        ("net.ipv4.tcp_rmem", "4096\t131072\t6291456"),
        ("net.ipv4.ip_local_reserved_ports", "8080,9000-9100"),
        ("kernel.shm_rmid_forced", "1"),
    ],
)
def test_pods_may_set_what_is_theirs(name: str, value: str) -> None:
    of = pod()
    of.spec.security_context.sysctls.add(name=name, value=value)
    refusal.sandbox(of)


@pytest.mark.parametrize(
    ("image", "own", "fine"),
    [
        (user(1000), None, True),
        (user(0), None, False),
        (ROOT, None, False),
        (pb.Image(id="x", username="root"), None, False),
        (pb.Image(id="x", username="www-data"), None, False),
        (pb.Image(id="x", username="0x0"), None, False),
        (user(-1), None, False),
        (user(4294967296), None, False),
        (user(2147483648), None, False),
        (ROOT, 1000, True),
        (ROOT, 0, False),
        (user(1000), 0, False),
        (user(1000), 2147483648, False),
    ],
)
@pytest.mark.parametrize("of_pod", [True, False])
def test_who_must_not_be_root_is_not(
    image: pb.Image, own: int | None, fine: bool, of_pod: bool
) -> None:
    of = pod()
    one = of.spec.containers[0]
    target = of.spec.security_context if of_pod else one.security_context
    target.run_as_non_root = True
    if own is not None:
        target.run_as_user = own
    if fine:
        refusal.container(of, one, image)
        return
    with pytest.raises(refusal.Refused):
        refusal.container(of, one, image)


def test_the_containers_word_on_users_goes_before_the_pods() -> None:
    of = pod()
    one = of.spec.containers[0]
    of.spec.security_context.run_as_non_root = True
    of.spec.security_context.run_as_user = 1000
    one.security_context.run_as_user = 0
    with pytest.raises(refusal.Refused, match="non-root"):
        refusal.container(of, one, ROOT)
    one.security_context.run_as_non_root = False
    refusal.container(of, one, ROOT)


def test_a_local_profile_has_a_name() -> None:
    of = pod()
    of.spec.security_context.seccomp_profile.type = "Localhost"
    with pytest.raises(refusal.Refused, match="localhostProfile"):
        refusal.container(of, of.spec.containers[0], ROOT)


@pytest.mark.parametrize(
    "directory", ["/proc/self/fd/7", "/proc", "//proc/1", "/a/../proc/self", "/./proc", "relative"]
)
def test_nobody_starts_in_the_kernels_directories(directory: str) -> None:
    of = pod()
    of.spec.containers[0].working_dir = directory
    with pytest.raises(refusal.Refused, match="workingDir"):
        refusal.container(of, of.spec.containers[0], ROOT)
    of.spec.containers[0].working_dir = "/procession"
    refusal.container(of, of.spec.containers[0], ROOT)


KERNELS = [
    "/proc",
    "/proc/",
    "//proc",
    "/proc/self/attr",
    "/sys",
    "/sys/fs/cgroup",
    "/dev",
    "/./dev",
]
NOWHERE = ["", "relative", "/a/../b", "..", "/", "//", "/a:b", "/a\0b"]


@pytest.mark.parametrize("path", [*KERNELS, *NOWHERE])
def test_mounts_do_not_hide_the_kernels_directories(path: str) -> None:
    with pytest.raises(refusal.Refused, match="mountPath"):
        refusal.mount_path(path, privileged=False)
    if path in KERNELS:
        # Who is privileged has all of it anyway: device plug-ins live of that.
        refusal.mount_path(path, privileged=True)


@pytest.mark.parametrize("path", ["/data", "/dev/shm", "/dev/termination-log", "/sysroot", "/a..b"])
def test_mounts_elsewhere_are_fine(path: str) -> None:
    refusal.mount_path(path, privileged=False)
