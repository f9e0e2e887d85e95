"""A real containerd, real containers: CRI, its streams, our images, our network, and their end."""

import asyncio
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.boot import containerd, images
from kcore.clock import SystemClock
from kcore.kubelet import cri, streaming
from kcore.kubelet.streaming import Channel
from kcore.network import cni

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd"),
]

CLOCK = SystemClock()
HOME = Path("/tmp/kcore-cri-test")
MINE = containerd.Containerd(
    root=HOME / "containerd",
    state=HOME / "run",
    cni_config=HOME / "cni/net.d",
    # Another build, its shim beside it.
    program=os.environ.get("KCORE_TEST_CONTAINERD", "containerd"),
)
NETWORK = cni.PodNetwork("10.213.7.0/24", "10.213.0.0/16", HOME / "cni/state", bridge="kctest0")
BUSYBOX = pb.ImageSpec(image=images.BUSYBOX, user_specified_image=images.BUSYBOX)


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


def leftovers() -> list[str]:
    """What of ours is still on the machine."""
    found = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(HOME) in line
    ]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(HOME) in words:
            found.append(words.replace("\0", " "))
    for command in (["ip", "-o", "link"], ["nft", "list", "ruleset"], ["iptables-save"]):
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found += [line for line in output.splitlines() if "kctest0" in line or "10.213." in line]
    found += [str(path) for path in cni.CNI_RESULTS.glob("kctest0-*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob("*/kcore-cri-test*")]
    return found


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """One containerd for this file."""
    asyncio.run(begin())
    yield
    asyncio.run(end())
    assert leftovers() == []


@pytest.fixture
async def runtime() -> AsyncIterator[cri.Cri]:
    """The door."""
    async with cri.Cri(MINE.endpoint) as door:
        yield door


def pod(name: str, *ports: pb.PortMapping) -> pb.PodSandboxConfig:
    """A sandbox's configuration."""
    logs = HOME / "logs" / name
    logs.mkdir(parents=True, exist_ok=True)
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="test"),
        hostname=name,
        log_directory=str(logs),
        labels={"test": name},
        port_mappings=ports,
        linux=pb.LinuxPodSandboxConfig(cgroup_parent=f"/kcore-cri-test-{name}"),
    )


async def run(
    runtime: cri.Runtime, config: pb.PodSandboxConfig, *command: str, stdin: bool = False
) -> tuple[str, str]:
    """A pod with one container; their ids."""
    sandbox = await runtime.run_pod_sandbox(config)
    container = await runtime.create_container(
        sandbox,
        pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name="main"),
            image=BUSYBOX,
            command=command or ("sleep", "1000"),
            stdin=stdin,
            log_path="main.log",
            labels={"test": config.metadata.name},
            linux=pb.LinuxContainerConfig(
                security_context=pb.LinuxContainerSecurityContext(
                    namespace_options=pb.NamespaceOption(pid=pb.CONTAINER)
                )
            ),
        ),
        config,
    )
    await runtime.start_container(container)
    return sandbox, container


def cgroups(parent: str) -> list[Path]:
    """A pod's cgroups, one per controller."""
    return sorted(Path("/sys/fs/cgroup").glob(f"*{parent}"))


async def remove(runtime: cri.Runtime, config: pb.PodSandboxConfig, sandbox: str) -> None:
    """The pod goes."""
    await runtime.stop_pod_sandbox(sandbox)
    await runtime.remove_pod_sandbox(sandbox)
    for path in cgroups(config.linux.cgroup_parent):
        path.rmdir()


@pytest.fixture
async def busybox(runtime: cri.Cri) -> AsyncIterator[str]:
    """A container that sleeps."""
    config = pod("sleeper")
    sandbox, container = await run(runtime, config)
    yield container
    await remove(runtime, config, sandbox)


async def output(process: streaming.Command) -> dict[Channel, bytes]:
    """All that a command prints."""
    parts: dict[Channel, list[bytes]] = {channel: [] for channel in Channel}
    async for channel, data in process:
        parts[channel].append(data)
    return {channel: b"".join(pieces) for channel, pieces in parts.items()}


async def test_a_containerd_that_runs_is_used_as_it_is(runtime: cri.Cri) -> None:
    before = MINE.pid_file.read_text()
    await containerd.start(MINE, CLOCK)
    assert MINE.pid_file.read_text() == before
    assert (await runtime.version()).runtime_name == "containerd"
    conditions = {found.type: found.status for found in (await runtime.status()).status.conditions}
    assert conditions["RuntimeReady"] and conditions["NetworkReady"]


async def test_a_container_runs_and_ends_with_its_code(runtime: cri.Cri) -> None:
    config = pod("ends")
    sandbox, container = await run(runtime, config, "sh", "-c", "echo out; echo err >&2; exit 3")
    while (status := await runtime.container_status(container)).state != pb.CONTAINER_EXITED:
        await CLOCK.sleep(0.02)
    assert status.exit_code == 3 and status.reason == "Error"
    log = (HOME / "logs/ends/main.log").read_text().splitlines()
    assert sorted(line.split(" ", 1)[1] for line in log) == ["stderr F err", "stdout F out"]
    listed = await runtime.list_containers({"test": "ends"})
    assert [found.id for found in listed] == [container]
    await remove(runtime, config, sandbox)
    assert await runtime.list_pod_sandboxes({"test": "ends"}) == []


async def test_stopping_what_is_not_there_succeeds(runtime: cri.Cri) -> None:
    await runtime.stop_container("none", 1)
    await runtime.remove_container("none")
    await runtime.stop_pod_sandbox("none")
    await runtime.remove_pod_sandbox("none")
    await runtime.remove_image(pb.ImageSpec(image="kcore.local/none:1"))
    assert await runtime.image_status(pb.ImageSpec(image="kcore.local/none:1")) is None
    with pytest.raises(cri.CriError) as caught:
        await runtime.container_status("none")
    assert (caught.value.code, caught.value.call) == (cri.Code.NOT_FOUND, "ContainerStatus")


async def test_nobody_at_the_endpoint_is_unavailable() -> None:
    async with cri.Cri(f"unix://{HOME}/nobody.sock") as runtime:
        with pytest.raises(cri.CriError) as caught:
            await runtime.version()
    assert caught.value.code == cri.Code.UNAVAILABLE


async def test_exec_sync(runtime: cri.Cri, busybox: str) -> None:
    done = await runtime.exec_sync(busybox, ["sh", "-c", "echo a; echo b >&2; exit 5"], 10)
    assert (done.stdout, done.stderr, done.exit_code) == (b"a\n", b"b\n", 5)
    with pytest.raises(cri.CriError) as caught:
        await runtime.exec_sync(busybox, ["sleep", "10"], 1)
    assert caught.value.code == cri.Code.DEADLINE_EXCEEDED


async def test_resources_of_a_running_container_change(runtime: cri.Cri, busybox: str) -> None:
    limit = 64 * 1024 * 1024
    await runtime.update_container_resources(
        busybox, pb.LinuxContainerResources(memory_limit_in_bytes=limit)
    )
    status = await runtime.container_status(busybox)
    assert not status.HasField("resources") or (
        status.resources.linux.memory_limit_in_bytes == limit
    )
    stats = await runtime.container_stats(busybox)
    assert stats.memory.working_set_bytes.value > 0


async def test_three_megabytes_through_cat(runtime: cri.Cri, busybox: str) -> None:
    sent = os.urandom(3_000_000)
    url = await runtime.exec(busybox, ["cat"], stdin=True, tty=False)
    async with streaming.command(url, stdin=True) as process, asyncio.timeout(30):

        async def feed() -> None:
            await process.write(sent)
            await process.close_stdin()

        printed, _ = await asyncio.gather(output(process), feed())
        assert process.exit_code == 0
    assert printed[Channel.STDOUT] == sent
    assert printed[Channel.STDERR] == b""


async def test_a_command_that_ends_before_its_input(runtime: cri.Cri, busybox: str) -> None:
    command = ["sh", "-c", "head -c 10 >/dev/null; exit 9"]
    url = await runtime.exec(busybox, command, stdin=True, tty=False)
    async with streaming.command(url, stdin=True) as process, asyncio.timeout(30):

        async def feed() -> None:
            while True:
                await process.write(bytes(100_000))

        feeding = asyncio.create_task(feed())
        try:
            await output(process)
            assert process.exit_code == 9
        except streaming.StreamError as error:
            assert "without its input" in str(error)
    with pytest.raises(BrokenPipeError):
        await feeding


async def test_a_slow_reader_slows_the_sender(runtime: cri.Cri, busybox: str) -> None:
    command = ["dd", "if=/dev/zero", "bs=1M", "count=20"]
    url = await runtime.exec(busybox, command, stdin=False, tty=False)
    async with streaming.command(url, stdin=False) as process, asyncio.timeout(30):
        await CLOCK.sleep(0.5)
        printed = await output(process)
        assert process.exit_code == 0
    assert len(printed[Channel.STDOUT]) == 20 * 1024 * 1024
    assert b"20+0 records out" in printed[Channel.STDERR]


async def test_exit_code_and_stderr_of_exec(runtime: cri.Cri, busybox: str) -> None:
    command = ["sh", "-c", "echo out; echo err >&2; exit 7"]
    url = await runtime.exec(busybox, command, stdin=False, tty=False)
    async with streaming.command(url, stdin=False) as process, asyncio.timeout(30):
        with pytest.raises(streaming.StreamError):
            _ = process.exit_code
        printed = await output(process)
        assert process.exit_code == 7
    assert printed == {Channel.STDOUT: b"out\n", Channel.STDERR: b"err\n"}


async def test_a_command_that_is_not_there(runtime: cri.Cri, busybox: str) -> None:
    url = await runtime.exec(busybox, ["/nonesuch"], stdin=False, tty=False)
    async with streaming.command(url, stdin=False) as process, asyncio.timeout(30):
        with pytest.raises(streaming.StreamError, match="no such file"):
            await output(process)


async def test_a_url_is_good_for_one_connection(runtime: cri.Cri, busybox: str) -> None:
    url = await runtime.exec(busybox, ["true"], stdin=False, tty=False)
    async with streaming.command(url, stdin=False) as process, asyncio.timeout(30):
        await output(process)
    with pytest.raises(streaming.StreamError, match="404"):
        async with streaming.command(url, stdin=False):
            pass


async def test_a_terminal_and_its_size(runtime: cri.Cri, busybox: str) -> None:
    url = await runtime.exec(busybox, ["sh"], stdin=True, tty=True)
    async with streaming.command(url, stdin=True, tty=True) as process, asyncio.timeout(30):
        await process.resize(123, 45)
        await process.write(b"until [ \"$(stty size)\" = '45 123' ]; do sleep 0.1; done\r")
        await process.write(b"stty size; exit 4\r")
        printed = await output(process)
        assert process.exit_code == 4
    assert b"\r\n45 123\r\n" in printed[Channel.STDOUT]


async def test_attach_reaches_the_first_process(runtime: cri.Cri) -> None:
    config = pod("attached")
    sandbox, container = await run(
        runtime, config, "sh", "-c", "read x; echo $x; exit 6", stdin=True
    )
    url = await runtime.attach(container, stdin=True, tty=False)
    async with streaming.command(url, stdin=True) as process, asyncio.timeout(30):
        await process.write(b"hello\n")
        printed = await output(process)
    assert printed[Channel.STDOUT] == b"hello\n"
    await remove(runtime, config, sandbox)


async def test_port_forward(runtime: cri.Cri) -> None:
    config = pod("port")
    sandbox, _ = await run(runtime, config, "nc", "-ll", "-p", "8080", "-e", "cat")
    sent = os.urandom(1_000_000)
    async with asyncio.timeout(30):
        while True:
            url = await runtime.port_forward(sandbox, 8080)
            try:
                async with streaming.port(url, 8080) as connection:

                    async def feed(connection: streaming.Port = connection) -> None:
                        await connection.write(sent)
                        await connection.close_write()

                    async def read(connection: streaming.Port = connection) -> bytes:
                        return b"".join([data async for data in connection])

                    received, _ = await asyncio.gather(read(), feed())
                    break
            except (streaming.StreamError, BrokenPipeError):
                await CLOCK.sleep(0.1)
        assert received == sent
        url = await runtime.port_forward(sandbox, 9)
        with pytest.raises(streaming.StreamError, match="refused"):
            async with streaming.port(url, 9) as connection:
                _ = [data async for data in connection]
    await remove(runtime, config, sandbox)


async def test_pods_reach_each_other_and_host_ports_the_pod(runtime: cri.Cri) -> None:
    config = pod("web", pb.PortMapping(container_port=80, host_port=32123))
    web, container = await run(
        runtime, config, "sh", "-c", "echo hi > /var/www/x; httpd -f -p 80 -h /var/www"
    )
    client_config = pod("client")
    client, client_container = await run(runtime, client_config)
    address = (await runtime.pod_sandbox_status(web)).network.ip
    assert address.startswith("10.213.7.")
    # Not wget's own -T: Debian's static busybox crashes in it.
    fetch = ["timeout", "3", "wget", "-q", "-O", "-"]
    for url in (f"http://{address}/x", f"http://{NETWORK.gateway}:32123/x"):
        for _ in range(20):
            done = await runtime.exec_sync(client_container, [*fetch, url], 10)
            if done.stdout:
                break
            await CLOCK.sleep(0.1)
        assert done.stdout == b"hi\n", (url, done.stderr)
    # From the node, by its own addresses and by localhost.
    for host in ("127.0.0.1", NETWORK.gateway):
        with socket.create_connection((host, 32123), timeout=3) as connection:
            connection.sendall(b"GET /x HTTP/1.0\r\n\r\n")
            assert b"hi\n" in b"".join(iter(lambda: connection.recv(4096), b""))
    # And the pod itself by its host port.
    done = await runtime.exec_sync(container, [*fetch, f"http://{NETWORK.gateway}:32123/x"], 10)
    assert done.stdout == b"hi\n"
    await remove(runtime, config, web)
    await remove(runtime, client_config, client)


@pytest.fixture
def outside() -> Iterator[str]:
    """The address of a machine that knows no way to pods; it says on port 9000 who called."""
    space, server = "kctest-out", "s=__import__('socket').create_server(('198.51.100.2', 9000))\n"
    server += "while 1:\n c, a = s.accept(); c.sendall(a[0].encode()); c.close()"
    commands = (
        f"ip netns add {space}",
        f"ip link add kctest-out0 type veth peer name eth0 netns {space}",
        "ip address add 198.51.100.1/30 dev kctest-out0",
        "ip link set kctest-out0 up",
        f"ip -n {space} address add 198.51.100.2/30 dev eth0",
        f"ip -n {space} link set eth0 up",
    )
    for command in commands:
        subprocess.run(command.split(), check=True)
    listening = subprocess.Popen(["ip", "netns", "exec", space, sys.executable, "-c", server])
    yield "198.51.100.2"
    listening.kill()
    listening.wait()
    subprocess.run(["ip", "netns", "delete", space], check=True)


async def test_what_leaves_the_cluster_takes_the_nodes_address(
    runtime: cri.Cri, busybox: str, outside: str
) -> None:
    for _ in range(30):
        done = await runtime.exec_sync(busybox, ["timeout", "2", "nc", outside, "9000"], 10)
        if done.stdout:
            break
        await CLOCK.sleep(0.1)
    assert done.stdout == b"198.51.100.1"


async def test_no_pod_reaches_the_nodes_localhost(runtime: cri.Cri) -> None:
    # A host port makes portmap open the node's localhost to the bridge.
    config = pod("intruder", pb.PortMapping(container_port=80, host_port=32125))
    config.linux.security_context.privileged = True
    sandbox = await runtime.run_pod_sandbox(config)
    container = await runtime.create_container(
        sandbox,
        pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name="main"),
            image=BUSYBOX,
            command=["sleep", "1000"],
            log_path="main.log",
            linux=pb.LinuxContainerConfig(
                security_context=pb.LinuxContainerSecurityContext(privileged=True)
            ),
        ),
        config,
    )
    await runtime.start_container(container)
    # With this, packets to 127.0.0.1 leave the pod instead of going to its own loopback.
    script = (
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet && ip rule add pref 9 lookup local && "
        f"ip route add 127.0.0.1 via {NETWORK.gateway} table 9 && "
        "ip rule add pref 1 to 127.0.0.1 lookup 9 && ip rule del pref 0 && "
        "timeout 2 nc 127.0.0.1 PORT"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        command = ["sh", "-c", script.replace("PORT", port)]
        done = await runtime.exec_sync(container, command, 10)
        # The way is as wished, and nothing came back: `timeout` had to end it.
        assert (done.exit_code, done.stderr) == (143, b"")
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.accept()
    await remove(runtime, config, sandbox)


async def test_the_image_is_what_its_description_says(runtime: cri.Cri, busybox: str) -> None:
    script = "id -un; stat -c %a /tmp /root; ls -l /bin/sh | wc -l; hostname; cat /proc/1/comm"
    done = await runtime.exec_sync(busybox, ["sh", "-c", script], 10)
    assert done.stdout.decode().split() == ["root", "1777", "700", "1", "sleeper", "sleep"]
    found = {name for image in await runtime.list_images() for name in image.repo_tags}
    assert {images.PAUSE, images.BUSYBOX} <= found


async def test_containers_outlive_their_runtime(runtime: cri.Cri, busybox: str) -> None:
    before = (await runtime.container_status(busybox)).started_at
    os.kill(int(MINE.pid_file.read_text()), signal.SIGKILL)
    await containerd.start(MINE, CLOCK)
    status = await runtime.container_status(busybox)
    assert (status.state, status.started_at) == (pb.CONTAINER_RUNNING, before)
    await containerd.stop(MINE, CLOCK, pods=False)
    await containerd.start(MINE, CLOCK)
    assert (await runtime.container_status(busybox)).state == pb.CONTAINER_RUNNING


async def test_pods_end_with_a_runtime_that_cannot_be_started_any_more(runtime: cri.Cri) -> None:
    config = pod("orphan", pb.PortMapping(container_port=80, host_port=32124))
    await run(runtime, config)
    os.kill(int(MINE.pid_file.read_text()), signal.SIGKILL)
    await containerd.stop(dataclasses.replace(MINE, program="/no/such/containerd"), CLOCK)
    await cni.down(NETWORK, MINE.cni_config)
    for path in cgroups(config.linux.cgroup_parent):
        path.rmdir()
    assert leftovers() == []
    await begin()
