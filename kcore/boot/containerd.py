"""An own containerd for one kcore: its configuration, its start, its end.

    mine = Containerd(root=…, state=…, cni_config=…)
    await start(mine, clock)      # nothing to do when it runs already
    async with cri.Cri(mine.endpoint) as runtime: ...
    await stop(mine, clock)       # no process, mount, namespace or cgroup of its pods stays

It runs detached: nobody's child, in a session of its own, so that neither the end of kcore nor
kill -9 touches containers; whoever comes next finds it by its socket. Everything of it is below
its directories, so several live side by side, and beside a system's containerd, which is left
alone.

runc is the default. crun is faster but refuses machines whose cgroups are both v1 and v2, and to
hide v2 from it takes a mount namespace in which later mounts of the kubelet could not be seen.

It must not know what runs in it.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kcore.boot import images
from kcore.clock import Clock
from kcore.kubelet import cri

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CNI_PROGRAMS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))

START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
# A longer log is moved aside at the next start; one old one is kept.
LOG_BYTES = 8 * 1024 * 1024
# sockaddr_un holds 108 bytes, and the runtime appends ".ttrpc".
SOCKET_BYTES = 100

# Of no use here, or dangerous: the restart monitor obeys labels that an image can carry.
DISABLED = {
    2: (
        "io.containerd.internal.v1.opt",
        "io.containerd.internal.v1.restart",
        "io.containerd.internal.v1.tracing",
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.native",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.tracing.processor.v1.otlp",
    ),
    3: (
        "io.containerd.internal.v1.opt",
        "io.containerd.internal.v1.tracing",
        "io.containerd.monitor.container.v1.restart",
        "io.containerd.nri.v1.nri",
        "io.containerd.snapshotter.v1.blockfile",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.erofs",
        "io.containerd.snapshotter.v1.native",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.tracing.processor.v1.otlp",
    ),
}


class ContainerdError(Exception):
    """The runtime does not start or end; the text says why, and where its log is."""


@dataclass(frozen=True, slots=True)
class Containerd:
    """Where one containerd lives and what it runs.

    `root` survives a reboot (images, containers), `state` does not (sockets, mounts). `program`,
    its shim beside it or in PATH, may be another build; `oci_runtime` is runc or what behaves so.
    """

    root: Path
    state: Path
    cni_config: Path
    cni_programs: Path | None = None
    program: str = "containerd"
    oci_runtime: str = "runc"
    sandbox_image: str = images.PAUSE

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.state / "containerd.sock"

    @property
    def endpoint(self) -> str:
        """Its socket, as CRI endpoints are written."""
        return f"unix://{self.socket}"

    @property
    def config(self) -> Path:
        """The file that `start` writes."""
        return self.root / "config.toml"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.root / "containerd.log"

    @property
    def pid_file(self) -> Path:
        """Its process id, once started."""
        return self.state / "containerd.pid"

    @property
    def registries(self) -> Path:
        """Where it looks for `<registry>/hosts.toml`: mirrors, authorities, plain HTTP."""
        return self.root / "registries"


def config_version(version: str) -> int:
    """Which configuration a release reads, by what `containerd --version` prints: 2 or 3."""
    found = re.search(r"\bv?(\d+)\.\d+\.\d+", version)
    if found is None:
        raise ContainerdError(f"cannot tell the version from {version.strip()!r}")
    return 2 if found[1] == "1" else 3


def render(mine: Containerd, version: int, *, may_lower_oom_score: bool = False) -> str:
    """The configuration file, of version 2 (releases 1.x) or 3 (2.x). Pure.

    Without CAP_SYS_RESOURCE nobody may lower an oom_score_adj; runc fails where it is asked to, so
    the runtime is told to ask for what it has itself at least.
    """
    programs = mine.cni_programs or next(
        (path for path in CNI_PROGRAMS if path.is_dir()), CNI_PROGRAMS[0]
    )
    runc = {"BinaryName": mine.oci_runtime, "Root": str(mine.state / "oci"), "SystemdCgroup": False}
    runtimes = {
        "default_runtime_name": "runc",
        "snapshotter": "overlayfs",
        "runtimes": {"runc": {"runtime_type": "io.containerd.runc.v2", "options": runc}},
    }
    pods = {
        "restrict_oom_score_adj": not may_lower_oom_score,
        "tolerate_missing_hugetlb_controller": True,
        "netns_mounts_under_state_dir": True,
        # What releases 2.x do by themselves: ports below 1024 and ping need no root in a pod.
        "enable_unprivileged_ports": True,
        "enable_unprivileged_icmp": True,
    }
    streams = {"stream_server_address": "127.0.0.1", "stream_server_port": "0"}
    registry = {"config_path": str(mine.registries)}
    plugins: dict[str, object]
    if version == 2:
        cni = {"conf_dir": str(mine.cni_config), "bin_dir": str(programs), "max_conf_num": 1}
        plugins = {
            "io.containerd.grpc.v1.cri": {
                "sandbox_image": mine.sandbox_image,
                **pods,
                **streams,
                "cni": cni,
                "containerd": runtimes,
                "registry": registry,
            }
        }
    else:
        snapshotter = runtimes.pop("snapshotter")
        cni = {"conf_dir": str(mine.cni_config), "bin_dirs": [str(programs)], "max_conf_num": 1}
        plugins = {
            "io.containerd.cri.v1.runtime": {**pods, "cni": cni, "containerd": runtimes},
            "io.containerd.cri.v1.images": {
                "snapshotter": snapshotter,
                "pinned_images": {"sandbox": mine.sandbox_image},
                "registry": registry,
            },
            "io.containerd.grpc.v1.cri": streams,
        }
    return "".join(
        _toml(
            {
                "version": version,
                "root": str(mine.root / "data"),
                "state": str(mine.state / "data"),
                "disabled_plugins": list(DISABLED[version]),
                # So that it ends, and says why, where it could not serve CRI.
                "required_plugins": ["io.containerd.grpc.v1.cri"],
                "grpc": {"address": str(mine.socket)},
                "plugins": plugins,
            }
        )
    )


async def start(mine: Containerd, clock: Clock) -> None:
    """Makes it run and answer. Returns at once where it does; a dead one's leftovers are no harm.

    The sandbox image is to be loaded after this, before the first pod: `images.load`.
    """
    if len(str(mine.socket).encode()) > SOCKET_BYTES:
        raise ContainerdError(f"socket path too long: {mine.socket}")
    if await _answers(mine):
        return
    if _running(mine) is None:
        version = config_version(await _output(mine.program, "--version"))
        for directory in (mine.root, mine.state, mine.registries):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (mine.root, mine.state):
            directory.chmod(0o711)
        text = render(mine, version, may_lower_oom_score=_may_lower_oom_score())
        _write(mine.config, text)
        if mine.log.exists() and mine.log.stat().st_size > LOG_BYTES:
            mine.log.replace(mine.log.with_suffix(".log.1"))
        mine.pid_file.unlink(missing_ok=True)
        await _detach(mine)
    deadline = clock.monotonic() + START_SECONDS
    while not await _answers(mine):
        if _running(mine) is None and mine.pid_file.exists():
            raise ContainerdError(f"it ended at once: {_last_line(mine.log)} (see {mine.log})")
        if clock.monotonic() > deadline:
            raise ContainerdError(f"no answer after {START_SECONDS:.0f} s, see {mine.log}")
        await clock.sleep(POLL_SECONDS)


async def stop(mine: Containerd, clock: Clock, *, pods: bool = True) -> None:
    """Ends it. With `pods`, every pod goes first, as if deleted; without, pods live on.

    Images stay; who wants them gone removes `root` afterwards. Where the runtime cannot be
    reached any more, processes, mounts and namespaces are taken away without it.
    """
    if pods and mine.root.exists():
        try:
            await start(mine, clock)
            await _remove_pods(mine, clock)
        except (ContainerdError, cri.CriError, FileNotFoundError):
            # What the runtime cannot remove is removed below.
            pass
    process = _running(mine)
    if process is not None:
        await _end(process, clock)
    if pods:
        for shim in sorted(_shims(mine)):
            await _end(shim, clock, kindly=False)
        await _delete_containers(mine)
        _unmount_below(mine.state)
        _unmount_below(mine.root)
        shutil.rmtree(mine.state, ignore_errors=True)
    else:
        mine.pid_file.unlink(missing_ok=True)


async def _remove_pods(mine: Containerd, clock: Clock) -> None:
    async with cri.Cri(mine.endpoint) as runtime:
        pods = [sandbox.id for sandbox in await runtime.list_pod_sandboxes()]
        for step in (runtime.stop_pod_sandbox, runtime.remove_pod_sandbox):
            results = await asyncio.gather(*map(step, pods), return_exceptions=True)
            # One that resists must not keep the others alive.
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, cri.CriError):
                    raise result


async def _delete_containers(mine: Containerd) -> None:
    """Kills what outlived its shim, and removes its cgroups."""
    for container in sorted((mine.state / "oci").glob("*/*")):
        arguments = ("--root", str(container.parent), "delete", "--force", container.name)
        await _output(mine.oci_runtime, *arguments)


async def _answers(mine: Containerd) -> bool:
    if not mine.socket.exists():
        return False
    async with cri.Cri(mine.endpoint) as runtime:
        try:
            # Not `version`: that is answered before CRI is ready to work.
            await runtime.status()
        except cri.CriError:
            return False
    return True


async def _detach(mine: Containerd) -> None:
    directory = str(Path(shutil.which(mine.program) or mine.program).parent)
    script = 'echo $$ >"$1.new" && mv "$1.new" "$1" && shift && exec "$@"'
    with mine.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *("setsid", "--fork", "sh", "-c", script, "sh", str(mine.pid_file)),
            *(mine.program, "--config", str(mine.config)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PATH": f"{directory}:{PATH}"},
        )
        if await process.wait():
            raise ContainerdError("setsid failed")


async def _output(*command: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    except FileNotFoundError as error:
        raise ContainerdError(f"{command[0]} is not installed") from error
    output, _ = await process.communicate()
    return output.decode("utf-8", "replace")


def _running(mine: Containerd) -> int | None:
    """Its process id if the process in the pid file lives and is it, not a later one's."""
    try:
        process = int(mine.pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    words = _words(process)
    # While the shell that becomes it has not yet, the words are in the shell's.
    return process if str(mine.config) in words and not _is_zombie(process) else None


def _shims(mine: Containerd) -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            words = _words(int(name))
            if words and "containerd-shim" in words[0] and str(mine.socket) in words:
                yield int(name)


def _words(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def _end(process: int, clock: Clock, *, kindly: bool = True) -> None:
    """Ends a process by a descriptor, so that its number cannot come to mean another."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        for sent in (signal.SIGTERM, signal.SIGKILL) if kindly else (signal.SIGKILL,):
            try:
                signal.pidfd_send_signal(descriptor, sent)
            except ProcessLookupError:
                return
            deadline = clock.monotonic() + STOP_SECONDS
            while clock.monotonic() < deadline:
                if _is_zombie(process) or not _alive(descriptor):
                    return
                await clock.sleep(POLL_SECONDS)
        raise ContainerdError(f"process {process} does not end")
    finally:
        os.close(descriptor)


def _alive(descriptor: int) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except ProcessLookupError:
        return False
    return True


def _unmount_below(directory: Path) -> None:
    prefix = f"{directory}/"
    points = [
        point
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if (point := _unescape(line.split(" ")[4])).startswith(prefix)
    ]
    for point in reversed(points):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def _may_lower_oom_score() -> bool:
    cap_sys_resource = 24
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> cap_sys_resource & 1)
    return False


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def _toml(table: Mapping[str, object], name: str = "") -> Iterator[str]:
    """A TOML document of nested dicts. JSON's strings, numbers and lists are
    TOML's too, but for one character."""
    if name:
        yield f"\n[{name}]\n"
    for key, value in table.items():
        if not isinstance(value, dict):
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            yield f"{key} = {text}\n"
    for key, value in table.items():
        if isinstance(value, dict):
            part = key if re.fullmatch(r"\w+", key) else json.dumps(key)
            yield from _toml(value, f"{name}.{part}" if name else part)
