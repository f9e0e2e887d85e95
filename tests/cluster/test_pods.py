"""The kubelet's pods in a real containerd: what becomes of them, and what their containers see."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2
from kcore_api.kcore.core.v1 import config_map_pb2, container_pb2, pod_pb2, secret_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.boot import containerd, images
from kcore.clock import SystemClock
from kcore.kubelet import cri, mount
from kcore.network import cni
from kcore.reconcile import transaction
from tests.kubelet.house import House, is_gone, is_ready
from tests.kubelet.world import world

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd"),
]

Pod = pod_pb2.Pod
CLOCK = SystemClock()
HOME = Path("/tmp/kcore-pods-test")
MINE = containerd.Containerd(
    root=HOME / "containerd", state=HOME / "run", cni_config=HOME / "cni/net.d"
)
NETWORK = cni.PodNetwork("10.216.7.0/24", "10.216.0.0/16", HOME / "cni/state", bridge="kcpods0")
POLITE = "trap 'exit 143' TERM; while true; do sleep 0.05; done"


async def begin() -> None:
    """As `kcore up` will."""
    await cni.up(NETWORK, MINE.cni_config)
    await containerd.start(MINE, CLOCK)
    for tar in (images.pause_image(), images.busybox_image()):
        await images.load(tar, MINE.socket)
    async with cri.Cri(MINE.endpoint) as runtime:
        for name in (images.PAUSE, images.BUSYBOX):
            while await runtime.image_status(pb.ImageSpec(image=name)) is None:
                await CLOCK.sleep(0.01)


async def end() -> None:
    """As `kcore down` will."""
    await containerd.stop(MINE, CLOCK)
    await cni.down(NETWORK, MINE.cni_config)
    shutil.rmtree(HOME)


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """One containerd for this file."""
    asyncio.run(begin())
    try:
        yield
    finally:
        asyncio.run(end())


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A kubelet on the real runtime; nothing may be left of its pods."""
    async with world() as here, cri.Cri(MINE.endpoint) as runtime:
        made = House(here, tmp_path, runtime, CLOCK)
        made.start()
        try:
            yield made
        finally:
            ours = await pods(made)
            for pod in ours:
                await made.delete(pod.metadata.name, grace_seconds=1)
            await made.world.until(lambda: _none(made), 30)
        try:
            await made.world.until(lambda: _is_clean(made, ours), 15)
        except AssertionError:
            assert await leftovers(made, ours) == []
        finally:
            mount.clear(tmp_path)
        await made.stop()


async def leftovers(here: House, ours: list[Pod]) -> list[str]:
    """What is still there of its pods."""
    left = [*here.root.glob("state/pods/*"), *here.root.glob("logs/*")]
    for one in ours:
        left += Path("/sys/fs/cgroup").glob(f"*/kcore/*/pod{one.metadata.uid}")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [
        *map(str, left),
        *(line for line in mounts if str(here.root) in line),
        *(one.id for one in await here.runtime.list_containers()),
        *(one.id for one in await here.runtime.list_pod_sandboxes()),
    ]


async def _is_clean(here: House, ours: list[Pod]) -> bool:
    return not await leftovers(here, ours)


async def pods(here: House) -> list[Pod]:
    """All that the API has."""
    selection = api_pb2.Selection(kind=Pod.DESCRIPTOR.full_name)
    found = await here.world.admin.list(api_pb2.ListRequest(selection=selection))
    return [Pod.FromString(body) for body in found.items]


async def _none(here: House) -> bool:
    return not await pods(here)


def pod(name: str, *scripts: str, policy: str = "Always", **spec: Any) -> Pod:
    """A pod of containers c0, c1, … that each run a script."""
    made = Pod()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.restart_policy = policy
    made.spec.termination_grace_period_seconds = 2
    for number, script in enumerate(scripts):
        container(made.spec.containers.add(), f"c{number}", script)
    for key, value in spec.items():
        setattr(made.spec, key, value)
    return made


def container(one: container_pb2.Container, name: str, script: str) -> container_pb2.Container:
    """A container that runs a script."""
    one.name, one.image = name, images.BUSYBOX
    one.command.extend(["sh", "-c", script])
    return one


async def until(here: House, name: str, true: Callable[[Pod], Any], seconds: float = 20) -> Pod:
    """Waits until it holds of the pod."""

    async def now() -> Pod | None:
        found = await here.pod(name)
        return found if found is not None and true(found) else None

    found: Pod = await here.world.until(now, seconds)
    return found


def is_over(one: Pod) -> bool:
    """Whether its phase is final."""
    return one.status.phase in ("Succeeded", "Failed")


def ends(one: Pod) -> list[tuple[int, str]]:
    """How its containers ended."""
    return [
        (each.state.terminated.exit_code, each.state.terminated.reason)
        for each in one.status.container_statuses
    ]


def message(one: Pod) -> str:
    """The last words of its first container."""
    return one.status.container_statuses[0].state.terminated.message


async def test_how_pods_end(tmp_path: Path) -> None:
    """Policies, phases, codes, reasons, last words: BEHAVIOUR 13, 16, 18, 21."""
    async with house(tmp_path) as here:
        for one in (
            pod("well", "true", policy="Never"),
            pod("badly", "exit 3", "true", policy="Never"),
            pod("at-last", "test -e /v/x && exit 0; touch /v/x; exit 1", policy="OnFailure"),
            pod("signal", "sh -c 'kill -9 $$$$'; exit $?", policy="Never"),
            pod("words", "echo bye > /dev/termination-log; exit 1", policy="Never"),
            pod("log", "echo lost; echo words >&2; exit 1", policy="Never"),
            pod("nothing", "", policy="Never"),
            pod("memory", "tail /dev/zero", policy="Never"),
            pod("init", "cat /v/x > /dev/termination-log", policy="Never"),
            pod("sidecar", "sleep 0.3", policy="Never"),
        ):
            match one.metadata.name:
                case "at-last" | "init":
                    one.spec.volumes.add(name="v").volume_source.empty_dir.SetInParent()
                    one.spec.containers[0].volume_mounts.add(name="v", mount_path="/v")
                case "log":
                    one.spec.containers[0].termination_message_policy = "FallbackToLogsOnError"
                case "nothing":
                    one.spec.containers[0].command[:] = ["/nowhere"]
                case "memory":
                    limits = one.spec.containers[0].resources.limits
                    limits["memory"].string, limits["cpu"].string = "16Mi", "500m"
            if one.metadata.name == "init":
                first = container(one.spec.init_containers.add(), "i", "sleep 0.2; echo 1 > /v/x")
                first.volume_mounts.add(name="v", mount_path="/v")
            if one.metadata.name == "sidecar":
                beside = container(one.spec.init_containers.add(), "s", POLITE)
                beside.restart_policy = "Always"
            await here.create(one)
        found = {
            name: await until(here, name, is_over)
            for name in sorted(one.metadata.name for one in await pods(here))
        }
        assert {name: (one.status.phase, ends(one)) for name, one in found.items()} == {
            "well": ("Succeeded", [(0, "Completed")]),
            "badly": ("Failed", [(3, "Error"), (0, "Completed")]),
            "at-last": ("Succeeded", [(0, "Completed")]),
            "signal": ("Failed", [(137, "Error")]),
            "words": ("Failed", [(1, "Error")]),
            "log": ("Failed", [(1, "Error")]),
            "nothing": ("Failed", [(128, "StartError")]),
            "memory": ("Failed", [(137, "OOMKilled")]),
            "init": ("Succeeded", [(0, "Completed")]),
            "sidecar": ("Succeeded", [(0, "Completed")]),
        }
        assert found["at-last"].status.container_statuses[0].restart_count == 1
        assert message(found["words"]) == "bye\n"
        assert sorted(message(found["log"]).splitlines()) == ["lost", "words"]
        assert "/nowhere" in message(found["nothing"])
        assert message(found["init"]) == "1\n"
        assert found["memory"].status.qos_class == "Guaranteed"
        (beside,) = found["sidecar"].status.init_container_statuses
        assert beside.state.terminated.exit_code == 143
        # Logs are there as long as the pod is.
        (log,) = tmp_path.glob("logs/default_log_*/c0/0.log")
        assert "lost" in log.read_text()


async def test_how_pods_are_ended(tmp_path: Path) -> None:
    """BEHAVIOUR 15."""
    async with house(tmp_path) as here:
        deaf = pod("deaf", "trap '' TERM; while true; do sleep 0.05; done", POLITE)
        patient = pod("patient", "trap '' TERM; while true; do sleep 0.05; done")
        patient.spec.termination_grace_period_seconds = 600
        # Its process is not the first in its namespace, so the signal does what it does.
        shared = pod("shared", "exec sleep 1000", share_process_namespace=True)
        for one in (deaf, patient, shared):
            await here.create(one)
        for one in (deaf, patient, shared):
            await until(here, one.metadata.name, is_ready)
        waiting = {
            name: asyncio.ensure_future(here.last_seen(name))
            for name in ("deaf", "patient", "shared")
        }
        await CLOCK.sleep(0.1)
        began = CLOCK.monotonic()
        await here.delete("deaf")
        await here.delete("shared")
        await here.delete("patient")
        assert ends(await waiting["shared"]) == [(143, "Error")]
        assert CLOCK.monotonic() - began < 2
        assert ends(await waiting["deaf"]) == [(137, "Error"), (143, "Error")]
        assert 2 <= CLOCK.monotonic() - began < 4.5
        # The second deletion is shorter.
        await here.delete("patient", grace_seconds=1)
        assert ends(await waiting["patient"]) == [(137, "Error")]
        assert CLOCK.monotonic() - began < 8


LOOK = r"""
exec > /dev/termination-log 2>&1
echo secret $(stat -L -c '%a %u' /secret/key) $(cat /secret/key)
echo own $(stat -L -c %a /config/own) $(cat /config/deep/er)
echo empty $(stat -c %a /empty) $(stat -f -c %T /memory)
echo memory $(df -k /memory | tail -n 1 | awk '{print $2}')
touch /config/x /secret/x 2>&1 | sed 's/.*: //' | sort -u
echo part $(cat /part) $(ls /sub)
echo "env $A $B $FROM $POD_IP"
echo node $NODE
echo user $(id -u) $(id -g) $(id -G)
echo host $(hostname) $(grep -c "^$POD_IP	$(hostname)$" /etc/hosts)
grep -q alias /etc/hosts && head -n 1 /etc/hosts
echo cap $(grep CapEff /proc/self/status | cut -f 2)
head -n 1 /proc/1/oom_score_adj
echo limits $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares \
    /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>&1 | tr '\n' ' ')
(echo x > /proc/sys/kernel/hostname) 2>&1 | sed 's/.*: //'
echo grep search /etc/resolv.conf: $(grep ndots /etc/resolv.conf)
"""


async def test_what_containers_see(tmp_path: Path) -> None:
    """BEHAVIOUR 17, 18, 23."""
    async with house(tmp_path) as here:
        secret = secret_pb2.Secret()
        secret.metadata.name, secret.metadata.namespace = "s", "default"
        secret.data["key"] = b"hush"
        config = config_map_pb2.ConfigMap()
        config.metadata.name, config.metadata.namespace = "m", "default"
        config.data.update({"own": "1", "deep": "2", "FROM": "map"})
        await here.world.do(transaction.create(secret), transaction.create(config))
        one = pod("look", LOOK, policy="Never", hostname="other")
        one.metadata.labels["app"] = "x"
        seen = one.spec.containers[0]
        volumes = {name: one.spec.volumes.add(name=name).volume_source for name in "semc"}
        volumes["s"].secret.secret_name = "s"
        volumes["s"].secret.default_mode = 0o400
        volumes["e"].empty_dir.SetInParent()
        volumes["m"].empty_dir.medium = "Memory"
        volumes["m"].empty_dir.size_limit.string = "1Mi"
        volumes["c"].config_map.local_object_reference.name = "m"
        volumes["c"].config_map.items.add(key="own", path="own", mode=0o600)
        volumes["c"].config_map.items.add(key="deep", path="deep/er")
        for name, path, part in (
            ("s", "/secret", ""),
            ("e", "/empty", ""),
            ("m", "/memory", ""),
            ("c", "/config", ""),
            ("c", "/part", "own"),
            ("e", "/sub", "a/b"),
        ):
            seen.volume_mounts.add(name=name, mount_path=path, sub_path=part)
        seen.env_from.add().config_map_ref.local_object_reference.name = "m"
        seen.env.add(name="A", value="a b")
        seen.env.add(name="B", value="<$(A)>")
        seen.env.add(name="POD_IP").value_from.field_ref.field_path = "status.podIP"
        seen.env.add(name="NODE").value_from.field_ref.field_path = "spec.nodeName"
        seen.resources.limits["memory"].string = "64Mi"
        seen.resources.requests["cpu"].string = "100m"
        seen.resources.limits["cpu"].string = "200m"
        seen.security_context.capabilities.drop.append("ALL")
        one.spec.security_context.run_as_user = 0
        one.spec.security_context.fs_group = 4711
        one.spec.host_aliases.add(ip="192.0.2.9", hostnames=["alias"])
        one.spec.dns_config.options.add(name="ndots", value="3")
        await here.create(one)
        found = await until(here, "look", is_over)
        address = found.status.pod_ip
        score = re.search(r"^\d+$", message(found), re.M)
        assert score is not None and 2 <= int(score[0]) <= 1000
        assert message(found).replace(f"\n{score[0]}\n", "\n").splitlines() == [
            "secret 440 0 hush",
            "own 640 2",
            "empty 2777 tmpfs",
            "memory 1024",
            "Read-only file system",
            "part 1",
            f"env a b <a b> map {address}",
            "node n1",
            "user 0 0 0 4711",
            "host other 1",
            "# Kubernetes-managed hosts file.",
            "cap 0000000000000000",
            f"limits {64 << 20} 102 20000",
            "Read-only file system",
            "grep search /etc/resolv.conf: options ndots:3",
        ]


async def test_what_fails_comes_back_more_slowly_and_a_kubelet_changes_nothing(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as here:
        volume = HOME / "times"
        volume.mkdir()
        failing = pod("failing", "date +%s.%N >> /v/times; exit 1")
        source = failing.spec.volumes.add(name="v").volume_source
        source.host_path.path, source.host_path.type = str(volume), "Directory"
        failing.spec.containers[0].volume_mounts.add(name="v", mount_path="/v")
        steady = pod("steady", POLITE, POLITE)
        for one in (failing, steady):
            await here.create(one)
        await until(here, "steady", is_ready)
        before = sorted((one.id, one.state) for one in await _containers(here, "steady"))
        await until(here, "failing", lambda one: _reason(one) == "CrashLoopBackOff")
        # Its wait goes on over the restart.
        await CLOCK.sleep(2)
        await here.restart()
        found = await until(here, "failing", lambda one: _count(one) == 2)
        times = [int(line.partition(".")[0]) for line in (volume / "times").read_text().split()]
        assert times[1] - times[0] <= 3 and 9 <= times[2] - times[1] <= 13, times
        assert found.status.phase == "Running"
        assert sorted((one.id, one.state) for one in await _containers(here, "steady")) == before
        # Its sandbox dies: all of it comes back, in another one.
        (box,) = [
            one for one in await here.runtime.list_pod_sandboxes() if one.metadata.name == "steady"
        ]
        _kill_pause(box.id)
        again = await until(
            here, "steady", lambda one: is_ready(one) and _count(one) == 1 and _count(one, 1) == 1
        )
        assert again.status.container_statuses[0].last_state.terminated.exit_code in (137, 143)
        assert [*(tmp_path / "state/pods").glob("*/etc-hosts")]
        await here.delete("failing", grace_seconds=1)
        await until_gone(here, "failing")
        # What is the node's stays.
        assert (volume / "times").exists()


async def until_gone(here: House, name: str) -> None:
    """Waits until the API has it no more."""

    async def now() -> bool:
        return is_gone(await here.pod(name))

    await here.world.until(now)


async def _containers(here: House, name: str) -> list[pb.Container]:
    found: list[pb.Container] = await here.runtime.list_containers({"io.kubernetes.pod.name": name})
    return found


def _reason(one: Pod) -> str:
    found = [each.state.waiting.reason for each in one.status.container_statuses]
    return found[0] if found else ""


def _count(one: Pod, index: int = 0) -> int:
    found = one.status.container_statuses
    return found[index].restart_count if len(found) > index else 0


def _kill_pause(sandbox: str) -> None:
    subprocess.run(
        [
            "ctr",
            "--address",
            str(MINE.socket),
            "-n",
            "k8s.io",
            "task",
            "kill",
            "-s",
            "KILL",
            sandbox,
        ],
        check=True,
    )


async def test_what_is_not_done_is_said(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        root = pod("root", "true", policy="Never")
        root.spec.containers[0].security_context.run_as_non_root = True
        gone = pod("gone", "true", policy="Never")
        gone.spec.containers[0].image = "127.0.0.1:1/nothing:1"
        away = pod("away", "true", policy="Never")
        away.spec.containers[0].working_dir = "/proc/self/fd/7"
        over = pod("over", "true", policy="Never")
        over.spec.volumes.add(name="v").volume_source.empty_dir.SetInParent()
        over.spec.containers[0].volume_mounts.add(name="v", mount_path="/proc/self")
        for one in (root, gone, away, over):
            await here.create(one)
        for name, reasons in (
            ("root", ["CreateContainerConfigError"]),
            ("gone", ["ErrImagePull", "ImagePullBackOff"]),
            ("away", ["CreateContainerConfigError"]),
            ("over", ["CreateContainerConfigError"]),
        ):
            found = await until(here, name, lambda one, r=reasons: _reason(one) in r)
            assert found.status.phase == "Pending"
            assert found.status.container_statuses[0].state.waiting.message


async def test_a_container_sees_the_processes_of_another(tmp_path: Path) -> None:
    """BEHAVIOUR 24: what `kcore debug --target` adds to a running pod."""
    async with house(tmp_path) as here:
        made = await here.create(pod("seen", POLITE))
        await until(here, "seen", is_ready)
        wanted = Pod()
        added = wanted.spec.ephemeral_containers.add(target_container_name="c0")
        container(
            added.ephemeral_container_common,
            "debugger",
            "tr '\\0' ' ' < /proc/1/cmdline > /dev/termination-log; exit 4",
        )
        mask = ["spec.ephemeralContainers"]
        door = "ephemeralcontainers"
        await here.world.do(transaction.patch(made, wanted, mask, subresource=door))
        found = await until(
            here,
            "seen",
            lambda pod: any(
                one.state.HasField("terminated") for one in pod.status.ephemeral_container_statuses
            ),
        )
        (told,) = found.status.ephemeral_container_statuses
        assert (told.state.terminated.exit_code, told.restart_count) == (4, 0)
        assert told.state.terminated.message == f"sh -c {POLITE} "
        assert is_ready(found)
