"""The door to the kernel's mounts: memory, binds, what is mounted below a directory, its end.

`open_below` opens a path inside a directory for a bind without ever leaving that directory, however
fast somebody swaps links in it: the kernel itself resolves it (openat2, RESOLVE_BENEATH).
Errors are OSError. It must not know what is mounted for whom.
"""

import contextlib
import ctypes
import errno
import os
import re
import struct
from pathlib import Path, PurePosixPath

_MS_NOSUID, _MS_NODEV = 2, 4
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
# The same number on every architecture.
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 2, 8
_OCTAL = re.compile(r"\\([0-7]{3})")

_libc = ctypes.CDLL(None, use_errno=True)


def tmpfs(place: Path, *, mode: int, group: int | None = None, limit_bytes: int = 0) -> None:
    """Mounts memory there."""
    options = [f"mode={mode:o}"]
    if group is not None:
        options.append(f"gid={group}")
    if limit_bytes:
        options.append(f"size={limit_bytes}")
    _mount("tmpfs", str(place), "tmpfs", _MS_NOSUID | _MS_NODEV, ",".join(options))


def bind(descriptor: int, place: Path) -> None:
    """Shows what is open at `place`, which is a file or a directory like it."""
    _mount(f"/proc/self/fd/{descriptor}", str(place), "", _MS_BIND | _MS_REC, "")
    # What is mounted or unmounted there later stays there.
    _mount("", str(place), "", _MS_PRIVATE | _MS_REC, "")


def unmount(place: Path) -> None:
    """Takes the topmost mount from there; where it is in use, it goes as soon as it is not."""
    code = _umount(place, 0)
    if code == errno.EBUSY:
        code = _umount(place, _MNT_DETACH)
    if code:
        raise OSError(code, os.strerror(code), str(place))


def below(directory: Path) -> list[Path]:
    """Where something is mounted in a directory, or on it; those on top first."""
    top = str(directory.resolve())
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split(" ")[4])
        if point == top or point.startswith(f"{top}/"):
            found.append(Path(point))
    # Mounts are listed in the order of their making.
    return found[::-1]


def clear(directory: Path) -> None:
    """Unmounts all in a directory. OSError if something stays: then nothing may be removed."""
    for point in below(directory):
        with contextlib.suppress(OSError):
            unmount(point)
    if left := below(directory):
        raise OSError(errno.EBUSY, "is still mounted", str(left[0]))


def open_below(root: Path, path: str, *, create: bool) -> int:
    """A descriptor of a file or directory in `root`; directories that are missing are made.

    Links are followed as long as they stay inside. The caller closes it.
    """
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts or "\0" in path:
        raise OSError(errno.EXDEV, "leads out of its directory", path)
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    found = os.dup(base)
    try:
        for number in range(1, len(parts) + 1):
            step = "/".join(parts[:number])
            try:
                inner = _openat2(base, step)
            except FileNotFoundError:
                if not create:
                    raise
                _make(found, parts[number - 1])
                inner = _openat2(base, step)
            os.close(found)
            found = inner
    except BaseException:
        os.close(found)
        raise
    finally:
        os.close(base)
    return found


def _make(parent: int, name: str) -> None:
    """A directory as open to others as the one it is in."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.fchmod(made, os.fstat(parent).st_mode & 0o7777)
        finally:
            os.close(made)


def _openat2(directory: int, path: str) -> int:
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    while True:
        found: int = _libc.syscall(_SYS_OPENAT2, directory, os.fsencode(path), how, len(how))
        if found >= 0:
            return found
        code = ctypes.get_errno()
        # Somebody renames in it all the time: the kernel asks to try again.
        if code != errno.EAGAIN:
            said = "leads out of its directory" if code == errno.EXDEV else os.strerror(code)
            raise OSError(code, said, path)


def _umount(place: Path, flags: int) -> int:
    return ctypes.get_errno() if _libc.umount2(os.fsencode(place), flags) else 0


def _mount(source: str, place: str, kind: str, flags: int, options: str) -> None:
    given = [os.fsencode(text) if text else None for text in (source, place, kind)]
    if _libc.mount(*given, ctypes.c_ulong(flags), os.fsencode(options) if options else None):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), place)
