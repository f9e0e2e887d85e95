"""The door to the machine: what it is and what it has, as one value.

`look(disk)` reads /proc, /etc and the file system that `disk` is on; it sends nothing and starts
nothing. A simulation makes a `Machine` of its own.
"""

import fcntl
import os
import platform
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

# Somewhere far away, kept for documentation: which address would be used to go there?
_ELSEWHERE = ("203.0.113.1", 9)
_SIOCGIFADDR = 0x8915
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine at one moment. Sizes are bytes; `available` is what is left."""

    addresses: tuple[str, ...] = ("127.0.0.1",)
    operating_system: str = "linux"
    architecture: str = "amd64"
    kernel_version: str = ""
    os_image: str = ""
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    cpus: int = 1
    memory: int = 1 << 30
    memory_available: int = 1 << 30
    disk: int = 10 << 30
    disk_available: int = 10 << 30
    inodes: int = 1 << 20
    inodes_available: int = 1 << 20
    processes: int = 1
    most_processes: int = 1 << 22


def look(disk: Path) -> Machine:
    """The machine now. `disk`: a directory where pods' files are, or will be."""
    uname = os.uname()
    while not disk.exists():
        disk = disk.parent
    memory = _memory()
    space = os.statvfs(disk)
    machine_id = _line("/etc/machine-id") or _line("/var/lib/dbus/machine-id")
    return Machine(
        addresses=(address(),),
        operating_system=uname.sysname.lower(),
        architecture=_ARCHITECTURES.get(uname.machine, uname.machine),
        kernel_version=uname.release,
        os_image=_os_image(),
        machine_id=machine_id,
        system_uuid=_line("/sys/class/dmi/id/product_uuid") or machine_id,
        boot_id=_line("/proc/sys/kernel/random/boot_id"),
        cpus=os.cpu_count() or 1,
        memory=memory.get("MemTotal", 0),
        memory_available=memory.get("MemAvailable", 0),
        disk=space.f_blocks * space.f_frsize,
        disk_available=space.f_bavail * space.f_frsize,
        inodes=space.f_files,
        inodes_available=space.f_favail,
        processes=_processes(),
        most_processes=int(_line("/proc/sys/kernel/pid_max") or 1 << 22),
    )


def address() -> str:
    """The address that this machine is reached by: that of its default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Asks the routing table; nothing is sent.
            probe.connect(_ELSEWHERE)
            return str(probe.getsockname()[0])
        except OSError:
            pass
        for _, name in sorted(socket.if_nameindex()):
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            found = socket.inet_ntoa(answer[20:24])
            if not found.startswith("127."):
                return found
    return "127.0.0.1"


def _memory() -> dict[str, int]:
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        amount = rest.split()
        found[name] = int(amount[0]) * (1024 if amount[1:] == ["kB"] else 1)
    return found


def _processes() -> int:
    """Threads there are: "0.20 0.18 0.12 1/80 11206"."""
    return int(_line("/proc/loadavg").split()[3].partition("/")[2])


def _os_image() -> str:
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return ""
    return found.get("PRETTY_NAME", found.get("NAME", ""))


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
