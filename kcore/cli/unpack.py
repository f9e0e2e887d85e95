"""Unpacks an archive that a container made, into one place and nowhere else.

    with Unpacker(Path("here"), "web", say) as unpacker:
        for data in archive:
            unpacker.feed(data)

The archive may come from an enemy. Every step goes from a directory that is held open to a name in
it, and follows no link; files are made anew under another name and then moved into their place, so
nothing that was there is written through. What would lead out, or would be more than data, is
refused by name (`refused`), and the rest goes on. Links are made that lead to somewhere within.

It must not know where the bytes come from.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kcore.cli import tar
from kcore.cli.tar import ArchiveError, Entry, Kind

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FRESH: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[str, ...]


class _Refused(Exception):
    """This entry is not unpacked."""


@dataclass(slots=True)
class _File:
    """A file that is being written, under another name as yet."""

    entry: Entry
    parts: Parts
    directory: int
    draft: str
    handle: int


class Unpacker:
    """One archive on its way to one place."""

    def __init__(
        self, target: Path, name: str, say: Callable[[str], None], *, preserve: bool = True
    ) -> None:
        """`name`: what was asked for, the first part of all names; "." for a whole tree.

        A file goes to the target, or into it where that is a directory; the content of a directory
        goes into the target. `say` hears of what is left out; `preserve`: modes and times are kept.
        """
        self._target = target
        self._name = name
        self._say = say
        self._preserve = preserve
        self._reader = tar.Reader()
        self.refused = 0
        self.entries = 0
        # Known once the first entry is: a directory that is held open, what stands before names.
        self._root = -1
        self._before: Parts = ()
        self._alone = False
        self._seen: set[Parts] = set()
        self._files: set[Parts] = set()
        self._barred: set[Parts] = set()
        self._modes: list[tuple[Parts, int]] = []
        self._file: _File | None = None
        # The directory that was used last: archives go on where they are.
        self._parent: tuple[Parts, int] | None = None
        self._drafts = 0
        self._umask = os.umask(0o077)
        os.umask(self._umask)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            os.close(self._file.handle)
            with suppress(OSError):
                os.unlink(self._file.draft, dir_fd=self._file.directory)
        if self._parent is not None:
            os.close(self._parent[1])
        if self._root >= 0:
            os.close(self._root)

    def feed(self, data: bytes) -> None:
        """What comes next."""
        for part in self._reader.feed(data):
            if isinstance(part, Entry):
                self._finish()
                self._begin(part)
            elif self._file is not None:
                _write(self._file.handle, part)

    def end(self) -> None:
        """Nothing follows. Raises ArchiveError unless all was there."""
        self._reader.end()
        self._finish()
        for parts, mode in reversed(self._modes):
            try:
                self._chmod(parts, mode)
            except OSError as error:
                self._refuse("/".join(parts), error.strerror or str(error))

    def _begin(self, entry: Entry) -> None:
        self.entries += 1
        try:
            parts = self._placed(entry)
            if any(parts[:size] in self._barred for size in range(1, len(parts) + 1)):
                raise _Refused("leads through a link that was left out")
            self._make(entry, parts)
        except _Refused as refused:
            self._refuse(entry.name, str(refused))
        except OSError as error:
            self._refuse(entry.name, error.strerror or str(error))

    def _refuse(self, name: str, why: str) -> None:
        self.refused += 1
        self._say(f"error: {name!r} is not unpacked: {why}")

    def _placed(self, entry: Entry) -> Parts:
        """Where the entry goes, from the root on."""
        if entry.name.startswith("/"):
            raise _Refused("its name is absolute")
        parts = tuple(part for part in entry.name.split("/") if part not in ("", "."))
        if ".." in parts:
            raise _Refused("its name leads upwards")
        if "\0" in entry.name:
            raise _Refused("its name is none")
        if self._name != ".":
            if parts[:1] != (self._name,):
                raise _Refused(f"only {self._name!r} was asked for")
            parts = parts[1:]
        if self._root < 0:
            if parts:
                raise _Refused(f"it comes before {self._name!r} itself")
            self._open(entry)
        if self._alone and parts:
            raise _Refused(f"{self._name!r} is not a directory")
        return self._before + parts

    def _open(self, entry: Entry) -> None:
        """The first entry says what was asked for; the way to the target is the user's own."""
        target = os.path.realpath(self._target)
        if entry.kind is Kind.DIRECTORY:
            os.makedirs(target, exist_ok=True)
        else:
            self._alone = True
            if os.path.isdir(target):
                self._before = (self._name,)
            else:
                target, last = os.path.split(target)
                self._before = (last,)
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _make(self, entry: Entry, parts: Parts) -> None:
        if entry.kind is Kind.DIRECTORY:
            os.close(self._descend(parts, make=True))
            if self._preserve and parts:
                self._modes.append((parts, entry.mode))
            return
        if not parts:
            raise _Refused("it is in the place of the directory that was asked for")
        if parts in self._seen:
            raise _Refused("it is there twice")
        self._seen.add(parts)
        match entry.kind:
            case Kind.FILE:
                self._start(entry, parts)
            case Kind.SYMLINK:
                self._link(entry, parts)
            case Kind.HARD_LINK:
                self._hard_link(entry, parts)
            case _:
                raise _Refused(f"it is a {entry.kind}")

    def _start(self, entry: Entry, parts: Parts) -> None:
        free = os.fstatvfs(self._root)
        if entry.size > free.f_bavail * free.f_frsize:
            # What follows is its content: to go on would be to take all of it.
            raise ArchiveError(f"{entry.name!r} is said to have {entry.size} bytes: no room")
        if entry.mode & 0o7000:
            self._say(f"warning: {entry.name!r} is unpacked without setuid, setgid and sticky bits")
        directory = self._directory(parts[:-1])
        _check_free(directory, parts[-1])
        draft = self._draft()
        mode = entry.mode & 0o777 if self._preserve else 0o666
        handle = os.open(draft, _FRESH, mode, dir_fd=directory)
        self._file = _File(entry, parts, directory, draft, handle)

    def _finish(self) -> None:
        """The file that was being written is complete."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._preserve:
                os.utime(file.handle, (file.entry.mtime_seconds, file.entry.mtime_seconds))
            self._place(file.draft, file.directory, file.parts[-1])
            self._files.add(file.parts)
        except (OSError, OverflowError) as error:
            self._refuse(file.entry.name, str(error))
        finally:
            os.close(file.handle)

    def _link(self, entry: Entry, parts: Parts) -> None:
        if not _stays(entry.link, len(parts) - 1 - len(self._before)):
            self._barred.add(parts)
            self._say(f"warning: skipping symlink: {entry.name!r} -> {entry.link!r}: it leads out")
            return
        directory = self._directory(parts[:-1])
        _check_free(directory, parts[-1])
        draft = self._draft()
        os.symlink(entry.link, draft, dir_fd=directory)
        self._place(draft, directory, parts[-1])

    def _hard_link(self, entry: Entry, parts: Parts) -> None:
        whole = tuple(part for part in entry.link.split("/") if part not in ("", "."))
        known = self._before + (whole if self._name == "." else whole[1:])
        if entry.link.startswith("/") or known not in self._files:
            raise _Refused(f"it is a hard link to {entry.link!r}, which is no file of this archive")
        source = self._descend(known[:-1], make=False)
        try:
            directory = self._directory(parts[:-1])
            _check_free(directory, parts[-1])
            draft = self._draft()
            os.link(
                known[-1], draft, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False
            )
            self._place(draft, directory, parts[-1])
        finally:
            os.close(source)
        self._files.add(parts)

    def _place(self, draft: str, directory: int, name: str) -> None:
        try:
            os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            with suppress(OSError):
                os.unlink(draft, dir_fd=directory)
            raise
        # Two names of one file that are the same already: renaming does nothing.
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=directory)

    def _draft(self) -> str:
        self._drafts += 1
        return f".kcore-{os.getpid()}-{self._drafts}"

    def _directory(self, parts: Parts) -> int:
        """A directory that is held open until another one is asked for."""
        if self._parent is None or self._parent[0] != parts:
            found = self._descend(parts, make=True)
            if self._parent is not None:
                os.close(self._parent[1])
            self._parent = parts, found
        return self._parent[1]

    def _descend(self, parts: Parts, *, make: bool) -> int:
        """A descriptor of a directory below the root; no step follows a link."""
        found = os.dup(self._root)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o777, dir_fd=found)
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=found)
                except NotADirectoryError:
                    raise _Refused(f"{part!r} on its way is a link or a file") from None
                os.close(found)
                found = below
        except BaseException:
            os.close(found)
            raise
        return found

    def _chmod(self, parts: Parts, mode: int) -> None:
        handle = self._descend(parts, make=False)
        try:
            # Whoever unpacks can go on using what he has unpacked.
            os.fchmod(handle, (mode & 0o777 & ~self._umask) | 0o700)
        finally:
            os.close(handle)


def _check_free(directory: int, name: str) -> None:
    """What is there may be replaced, but for a directory."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise _Refused("there is a directory in its place")


def _stays(link: str, depth: int) -> bool:
    """Whether a link in a directory so deep leads to somewhere within, whatever it meets.

    Steps up are taken only at its beginning, where the way is made of real directories: a step up
    behind the name of another link could lead anywhere.
    """
    parts = [part for part in link.split("/") if part not in ("", ".")]
    up = 0
    while parts[up : up + 1] == [".."]:
        up += 1
    return bool(link) and not link.startswith("/") and up <= depth and ".." not in parts[up:]


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
