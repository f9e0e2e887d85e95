"""Opens files that containers may have had their hands on: logs, termination messages, volumes.

`open_file(root, "a/b/c")` goes down from a directory that only the kubelet writes, one component
after another, and follows no link; what it opens is a regular file and never keeps it waiting.
Errors are OSError, as of any opening. It must not know what is in the files.
"""

import errno
import os
import stat
from pathlib import Path, PurePosixPath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(root: Path, relative: str) -> int:
    """A descriptor of a directory below `root`; "" is `root` itself. The caller closes it."""
    # The way to the root is the kubelet's own, links and all.
    found = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in _parts(relative):
            below = os.open(part, _DIRECTORY, dir_fd=found)
            os.close(found)
            found = below
    except BaseException:
        os.close(found)
        raise
    return found


def open_file(root: Path, relative: str) -> int:
    """A descriptor to read a regular file below `root` with. The caller closes it."""
    parts = _parts(relative)
    if not parts:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(root))
    directory = open_directory(root, "/".join(parts[:-1]))
    try:
        return open_at(directory, parts[-1])
    finally:
        os.close(directory)


def open_at(directory: int, name: str) -> int:
    """The same, of a file in a directory that is open."""
    # O_NONBLOCK: nobody writes into a pipe that somebody put here.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    found = os.open(name, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "is not a regular file", name)
    return found


def read(root: Path, relative: str, most_bytes: int) -> bytes:
    """The last bytes of a file, `most_bytes` at most."""
    found = open_file(root, relative)
    try:
        size = os.fstat(found).st_size
        return os.pread(found, most_bytes, max(0, size - most_bytes))
    finally:
        os.close(found)


def _parts(relative: str) -> tuple[str, ...]:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or "\0" in relative:
        raise OSError(errno.EXDEV, "leads out of its directory", relative)
    return path.parts
