"""tar archives: bytes to entries, and files to bytes.

A `Reader` serves one archive: `feed(data)` gives the entries that begin in these bytes, each
followed by its content in pieces. It knows ustar with GNU's and POSIX's extensions for long names
and great sizes, and believes nothing: what breaks the format or the caps below raises
`ArchiveError`. `pack` makes an archive of a file or a directory.

It must not know where entries go to: what is safe to unpack is decided in unpack.py.
"""

import os
import stat
import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

BLOCK: Final = 512
# What a long name or a list of extensions may weigh, and a piece of a file.
EXTENSION_BYTES: Final = 1 << 20
CHUNK_BYTES: Final = 128 * 1024

_HEADER: Final = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_CHECKSUM: Final = slice(148, 156)
_END: Final = bytes(BLOCK)


class ArchiveError(Exception):
    """The bytes are no archive, or end too early."""


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "named pipe"
    OTHER = "entry of an unknown kind"


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """The head of an entry; only files have content."""

    name: str
    kind: Kind
    size: int = 0
    # With the bits above 0o777.
    mode: int = 0
    mtime_seconds: float = 0.0
    # What a link leads to.
    link: str = ""


Part = Entry | bytes


class Reader:
    """Reads one archive as it comes."""

    def __init__(self) -> None:
        """At its beginning."""
        self._buffer = bytearray()
        self._found: list[Part] = []
        self._last = ""
        self._over = False
        self._work = self._read()
        next(self._work)

    def feed(self, data: bytes) -> list[Part]:
        """Entries, and pieces of the content of the last one. What follows the end is dropped."""
        if not self._over:
            self._buffer += data
            self._over = next(self._work, True) is True
        found, self._found = self._found, []
        return found

    def end(self) -> None:
        """Nothing follows. Raises unless that was the end of an archive."""
        if self._over or (not self._buffer and not self._last):
            return
        after = f" within or after {self._last!r}" if self._last else ""
        raise ArchiveError(f"the archive ends too early{after}")

    def _read(self) -> Generator[None, None, None]:
        # Of GNU's or POSIX's extensions, for the next entry.
        said: dict[str, str] = {}
        while True:
            header = yield from self._take(BLOCK)
            if header == _END:
                return
            entry, flag = _entry(header, said)
            if flag in (b"L", b"K", b"x", b"g"):
                if entry.size > EXTENSION_BYTES:
                    raise ArchiveError(f"a name of {entry.size} bytes, after {self._last!r}")
                body = yield from self._take(entry.size + -entry.size % BLOCK)
                said |= _extension(flag, bytes(body[: entry.size]))
                continue
            said = {}
            self._last = entry.name
            self._found.append(entry)
            if entry.kind is Kind.FILE:
                yield from self._content(entry.size)

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < size:
            yield
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _content(self, size: int) -> Generator[None, None, None]:
        left = size
        while left:
            if not self._buffer:
                yield
            piece = bytes(self._buffer[:left])
            del self._buffer[: len(piece)]
            left -= len(piece)
            self._found.append(piece)
        yield from self._take(-size % BLOCK)


def _entry(header: bytes, said: dict[str, str]) -> tuple[Entry, bytes]:
    """What a header says, and its flag."""
    fields = _HEADER.unpack(header)
    name, mode, _, _, size, mtime, checksum, flag, link, magic, *_, prefix = fields
    blank = bytearray(header)
    blank[_CHECKSUM] = b" " * 8
    if sum(blank) != _number(checksum):
        raise ArchiveError("this is no tar archive, or it is damaged")
    whole = _text(name)
    # GNU has other things in the place of the prefix.
    if magic == b"ustar\0" and prefix.strip(b"\0"):
        whole = f"{_text(prefix)}/{whole}"
    whole = said.get("path", whole)
    kind = _KINDS.get(flag, Kind.OTHER)
    if any(key.startswith("GNU.sparse") for key in said):
        kind = Kind.OTHER
    if kind is Kind.FILE and whole.endswith("/"):
        kind = Kind.DIRECTORY
    has_content = kind is Kind.FILE or flag in (b"L", b"K", b"x", b"g")
    bytes_said = _decimal(said["size"]) if "size" in said else _number(size)
    if not has_content and bytes_said and kind not in (Kind.HARD_LINK, Kind.DIRECTORY):
        # Whose content is unknown cannot be passed over without believing it.
        raise ArchiveError(f"{whole!r} is a {kind} with content")
    return (
        Entry(
            name=whole,
            kind=kind,
            size=bytes_said if has_content else 0,
            mode=_number(mode) & 0o7777,
            mtime_seconds=_time(mtime, said.get("mtime", "")),
            link=said.get("linkpath", _text(link)),
        ),
        flag,
    )


def _extension(flag: bytes, body: bytes) -> dict[str, str]:
    match flag:
        case b"L":
            return {"path": _text(body)}
        case b"K":
            return {"linkpath": _text(body)}
        case b"g":
            # For all that follows: nothing in it is of use here.
            return {}
    found: dict[str, str] = {}
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 20)
        size = _decimal(os.fsdecode(body[at:space])) if space > 0 else 0
        record = body[at : at + size]
        key, equals, value = record[space + 1 - at :].partition(b"=")
        if size < 5 or len(record) < size or not equals or not record.endswith(b"\n"):
            raise ArchiveError("a list of extensions is damaged")
        found[os.fsdecode(key)] = os.fsdecode(value[:-1])
        at += size
    return found


def _number(field: bytes) -> int:
    """Octal, or GNU's binary form for what is too great for it."""
    if field[0] & 0x80:
        number = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        if field[0] & 0x40:
            raise ArchiveError("a number is negative")
        return number
    text = field.strip(b" \0")
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise ArchiveError("this is no tar archive, or it is damaged") from None


def _time(field: bytes, said: str) -> float:
    """Seconds since 1970; 0 where it is before that, or none."""
    if said:
        whole = said.partition(".")[0]
        return float(whole) if whole.isascii() and whole.isdecimal() and len(whole) < 12 else 0.0
    return 0.0 if field[0] & 0x80 else float(_number(field))


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ArchiveError("a list of extensions is damaged")
    return int(text)


def _text(field: bytes) -> str:
    return os.fsdecode(field.partition(b"\0")[0])


def pack(source: Path, name: str, say: Callable[[str], None]) -> Iterator[bytes]:
    """An archive of a file or a directory, which is called `name` in it; `say`: what is left out.

    Links within are kept as links.
    """
    yield from _packed(source, name, say)
    yield _END * 2


def _packed(path: Path, name: str, say: Callable[[str], None]) -> Iterator[bytes]:
    # The standard library's reading of archives is not safe; its writing of headers is.
    import tarfile

    info = tarfile.TarInfo(name)
    try:
        status = path.lstat()
        info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        info.uid, info.gid = status.st_uid, status.st_gid
        below: list[str] = []
        if stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
            below = sorted(os.listdir(path))
        elif stat.S_ISREG(status.st_mode):
            yield from _file(path, info, say)
            return
        else:
            say(f"{path} is left out: it is no file, directory or link")
            return
    except OSError as error:
        say(f"{path} is left out: {error.strerror}")
        return
    yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    for one in below:
        yield from _packed(path / one, f"{name}/{one}", say)


def _file(path: Path, info: "tarfile.TarInfo", say: Callable[[str], None]) -> Iterator[bytes]:  # type: ignore[name-defined]  # noqa: F821
    import tarfile

    with open(path, "rb", buffering=0) as file:
        info.size = left = os.fstat(file.fileno()).st_size
        yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        while left:
            data = file.read(min(left, CHUNK_BYTES))
            if not data:
                say(f"{path} became shorter meanwhile: its end is zeros")
                data = bytes(min(left, CHUNK_BYTES))
            left -= len(data)
            yield data
    yield bytes(-info.size % BLOCK)
