"""A container's log, as people ask for it.

    async for response in log.read(path, request, ended, clock): ...

Reads what the runtime wrote: CRI's lines (`time stream P|F text`) or Docker's (JSON); pieces of one
line (P) are put together. A log is several files, the older ones rotated away as `0.log.1`,
`0.log.2`, … (kcore/kubelet/rotate.py; a greater number is younger); they are read as one. The last
N lines are found from the end. Following goes on over rotation and truncation, and ends once
`ended()` says that the container has, and everything it wrote has been read.

Containers may have had their hands on the files: nothing follows a link out of the log's directory,
and no line is believed to be short or well formed.
It must not know which pod the log is of.
"""

import functools
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.clock import Clock
from kcore.kubelet import inside
from kcore.wire.errors import ApiError, Reason

# Read from a file at once; in one response; text of one line, longer ones come in pieces; what a
# line weighs besides; what is taken for a line of the file, though it has no end.
BLOCK_BYTES = 64 * 1024
BATCH_BYTES = 192 * 1024
LINE_BYTES = 64 * 1024
LINE_OVERHEAD_BYTES = 32
RAW_BYTES = 512 * 1024
# How often a followed file is looked at: quickly after something came, then ever more slowly.
QUICK_SECONDS = 0.01
SLOW_SECONDS = 0.1
# A log is <log directory>/<pod>/<container>/<attempt>.log: so many steps are taken without links.
_DEPTH = 3

_STAMP = re.compile(
    rb"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
# 2026-01-31T12:00:00.123456789Z
_USUAL_LENGTH = 30
_DOT = ord(".")


class Piece(NamedTuple):
    """A line of a log file. Not `whole`: the next piece of its stream goes on with the same line.

    Seconds of 0: the file does not say when.
    """

    seconds: int
    nanos: int
    stderr: bool
    whole: bool
    text: bytes


def parse(raw: bytes) -> Piece:
    """What a line of a file says, without its newline. What is no such line is text as it is."""
    found = _docker(raw) if raw.startswith(b"{") else _cri(raw)
    return found or Piece(0, 0, False, True, raw + b"\n")


def _cri(raw: bytes) -> Piece | None:
    parts = raw.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    moment = _moment(parts[0])
    # Tags are separated by colons; the first one is P or F.
    tag = parts[2].partition(b":")[0]
    if moment is None or tag not in (b"F", b"P"):
        return None
    text = parts[3] if len(parts) == 4 else b""
    whole = tag == b"F"
    return Piece(*moment, parts[1] == b"stderr", whole, text + b"\n" if whole else text)


def _docker(raw: bytes) -> Piece | None:
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    text, stamp = said.get("log"), said.get("time")
    if not isinstance(text, str) or not isinstance(stamp, str):
        return None
    moment = _moment(stamp.encode("utf-8", "replace"))
    if moment is None:
        return None
    data = text.encode("utf-8", "replace")
    return Piece(*moment, said.get("stream") == "stderr", data.endswith(b"\n"), data)


def _moment(stamp: bytes) -> tuple[int, int] | None:
    nanos: bytes | None
    if len(stamp) == _USUAL_LENGTH and stamp[19] == _DOT and stamp[20:29].isdigit():
        date, nanos, zone = stamp[:19], stamp[20:29], stamp[29:]
    else:
        found = _STAMP.fullmatch(stamp)
        if found is None:
            return None
        date, nanos, zone = found.groups()
    seconds = _seconds(date, zone)
    return None if seconds is None else (seconds, int((nanos or b"0").ljust(9, b"0")))


@functools.lru_cache(maxsize=64)
def _seconds(date: bytes, zone: bytes) -> int | None:
    zone = b"+00:00" if zone in (b"Z", b"z") else zone
    try:
        return int(datetime.fromisoformat((date + zone).decode().upper()).timestamp())
    except (ValueError, OverflowError):
        return None


@dataclass(slots=True)
class Lines:
    """Puts bytes of files together to lines, which are whole pieces but for very long ones."""

    _raw: bytes = b""
    # By stream: the pieces of a line that has not ended, and how long they are.
    _open: dict[bool, list[Piece]] = field(default_factory=dict)
    _size: dict[bool, int] = field(default_factory=dict)

    def feed(self, data: bytes) -> list[Piece]:
        """The lines that end with these bytes."""
        *raws, rest = (self._raw + data).split(b"\n")
        if len(rest) > RAW_BYTES:
            raws.append(rest)
            rest = b""
        self._raw = rest
        found: list[Piece] = []
        for raw in raws:
            self._take(parse(raw), found)
        return found

    def cut(self) -> list[Piece]:
        """What was begun does not go on: lines without their ends."""
        found: list[Piece] = []
        if self._raw:
            self._take(parse(self._raw), found)
            self._raw = b""
        for stderr in sorted(self._open):
            self._give(stderr, found)
        return found

    def _take(self, piece: Piece, found: list[Piece]) -> None:
        if piece.whole and len(piece.text) <= LINE_BYTES and piece.stderr not in self._open:
            found.append(piece)
            return
        self._open.setdefault(piece.stderr, []).append(piece)
        size = self._size.get(piece.stderr, 0) + len(piece.text)
        self._size[piece.stderr] = size
        if piece.whole or size >= LINE_BYTES:
            self._give(piece.stderr, found)

    def _give(self, stderr: bool, found: list[Piece]) -> None:
        pieces = self._open.pop(stderr)
        self._size[stderr] = 0
        text = b"".join(piece.text for piece in pieces)
        # What has no end is not believed to be short either.
        for at in range(0, len(text), LINE_BYTES):
            found.append(pieces[0]._replace(text=text[at : at + LINE_BYTES]))


async def read(
    path: Path,
    request: pod_stream_pb2.LogsRequest,
    ended: Callable[[], bool],
    clock: Clock,
    *,
    docker: Path | None = None,
) -> AsyncGenerator[pod_stream_pb2.LogsResponse, None]:
    """The log at `path`, or ApiError. `request.target` and `.previous` are the caller's to heed.

    `docker`: where files may lie that a log is only a link to, as Docker's do.
    """
    follow = request.follow
    since = (request.since.seconds, request.since.nanos) if request.HasField("since") else (0, 0)
    tail = request.tail_lines if request.HasField("tail_lines") else None
    left = request.limit_bytes if request.HasField("limit_bytes") else sys.maxsize
    lines, batch, size = Lines(), pod_stream_pb2.LogsResponse(), 0
    pause = QUICK_SECONDS
    files = await _opened(path, docker, follow, ended, clock)
    try:
        files.begin(tail, since[0], stop=not follow)
        while left > 0:
            # In this order: what it wrote before it ended is there once it has.
            over = not follow or ended()
            data = files.take(patient=not over)
            came = lines.feed(data) if data or not over else lines.cut()
            for seconds, nanos, stderr, _, text in came:
                if left <= 0:
                    break
                if (seconds, nanos) < since and seconds:
                    continue
                line = batch.lines.add(stderr=stderr, text=text[:left])
                line.time.seconds, line.time.nanos = seconds, nanos
                left -= len(text)
                size += len(text) + LINE_OVERHEAD_BYTES
                if size >= BATCH_BYTES:
                    yield batch
                    batch, size = pod_stream_pb2.LogsResponse(), 0
            if data:
                pause = QUICK_SECONDS
                # Whoever reads a long log does not hold up all others.
                await clock.sleep(0)
                continue
            if batch.lines:
                yield batch
                batch, size = pod_stream_pb2.LogsResponse(), 0
            if over:
                return
            await clock.sleep(pause)
            pause = min(pause * 1.5, SLOW_SECONDS)
        if batch.lines:
            yield batch
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        files.close()


async def _opened(
    path: Path, docker: Path | None, follow: bool, ended: Callable[[], bool], clock: Clock
) -> "_Files":
    """The log's files; of a container that has just been started they may be about to come."""
    while True:
        over = not follow or ended()
        try:
            return _Files(path, docker)
        except FileNotFoundError:
            if over:
                said = f"log {path.name} is not there any more"
                raise ApiError(Reason.NOT_FOUND, said) from None
        except OSError as error:
            raise _unreadable(path, error) from error
        await clock.sleep(SLOW_SECONDS)


def _unreadable(path: Path, error: OSError) -> ApiError:
    return ApiError(Reason.REFUSED, f"log {path.name} can't be read: {error.strerror or error}")


def rotated(directory: int, name: str) -> list[int]:
    """Numbers of the files that a log was rotated away to, oldest first."""
    found = []
    for entry in os.listdir(directory):
        number = entry.removeprefix(f"{name}.")
        if number != entry and number.isdecimal() and len(number) < 18 and number.isascii():
            found.append(int(number))
    return sorted(found)


class _Files:
    """The files of one log, read as one."""

    def __init__(self, path: Path, docker: Path | None) -> None:
        """Opens the one that is written to, or the youngest. OSError, as of opening."""
        depth = min(_DEPTH, len(path.parents))
        root, parts = path.parents[depth - 1], path.parts[-depth:]
        self._name = path.name
        # Docker rotates its own files, in another order.
        self._alone = False
        self._directory = inside.open_directory(root, "/".join(parts[:-1]))
        try:
            if docker is not None and _is_link(self._directory, self._name):
                self._move(path, docker)
            # None: the one that is written to.
            numbers: list[int | None] = [*self._numbers(), None]
            self._file = self._open(numbers, -1)
        except BaseException:
            os.close(self._directory)
            raise
        self._at = 0
        # Do not read on from here: inode and size.
        self._stop: tuple[tuple[int, int], int] | None = None
        # What follows has been seen: nothing more can come but what was on its way.
        self._draining = False

    def close(self) -> None:
        """Closes what is open."""
        os.close(self._file)
        os.close(self._directory)

    def begin(self, tail: int | None, since_seconds: int, *, stop: bool) -> None:
        """Goes to where to begin; with `stop`, what comes later is not read."""
        status = os.fstat(self._file)
        if stop:
            self._stop = _identity(status), status.st_size
        numbers: list[int | None] = [*self._numbers(), None]
        known = [self._stat(number) for number in numbers]
        mine = _identity(os.fstat(self._file))
        place = known.index(mine) if mine in known else len(known) - 1
        if tail is not None:
            left = max(0, tail)
            while True:
                found, self._at = _last(self._file, left)
                left -= found
                if self._at > 0 or place == 0:
                    return
                # Its beginning may be the end of a line that begins in the file before.
                place -= 1
                if not self._swap(numbers, place):
                    return
        while place > 0:
            place -= 1
            if not self._swap(numbers, place):
                break
            if os.fstat(self._file).st_mtime < since_seconds - 1:
                self._swap(numbers, place + 1)
                break

    def take(self, *, patient: bool) -> bytes:
        """What comes next; nothing when there is nothing now. Patient: of what is being written."""
        while True:
            status = os.fstat(self._file)
            if status.st_size < self._at:
                # Truncated: it begins anew.
                self._at = 0
            most = BLOCK_BYTES
            if self._stop is not None and self._stop[0] == _identity(status):
                most = min(most, self._stop[1] - self._at)
            data = os.pread(self._file, most, self._at) if most > 0 else b""
            if data:
                self._at += len(data)
                self._draining = False
                return data
            if most <= 0 or not self._advance(_identity(status), patient):
                return b""

    def _advance(self, mine: tuple[int, int], patient: bool) -> bool:
        """Goes to the next file, if there is one and this one has ended."""
        numbers: list[int | None] = [*self._numbers(), None]
        known = [self._stat(number) for number in numbers]
        if known[-1] == mine or all(one is None for one in known):
            return False
        try:
            place = known.index(mine) + 1
        except ValueError:
            # Removed meanwhile: what is left is all younger.
            place = 0
        while known[place] is None:
            place += 1
            if place == len(known):
                # Moved away, and its successor is about to be made.
                return False
        if patient and place == len(known) - 1 and not self._draining:
            # The runtime may have been about to write when it was told to change files.
            self._draining = True
            return False
        if not self._swap(numbers, place):
            return False
        self._at, self._draining = 0, False
        return True

    def _numbers(self) -> list[int]:
        return [] if self._alone else rotated(self._directory, self._name)

    def _stat(self, number: int | None) -> tuple[int, int] | None:
        try:
            status = os.stat(self._called(number), dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return _identity(status)

    def _swap(self, numbers: list[int | None], place: int) -> bool:
        try:
            fresh = inside.open_at(self._directory, self._called(numbers[place]))
        except FileNotFoundError:
            return False
        os.close(self._file)
        self._file = fresh
        return True

    def _open(self, numbers: list[int | None], place: int) -> int:
        try:
            return inside.open_at(self._directory, self._called(numbers[place]))
        except FileNotFoundError:
            # Between moving away and making anew.
            if len(numbers) == 1:
                raise
            return inside.open_at(self._directory, self._called(numbers[-2]))

    def _called(self, number: int | None) -> str:
        return self._name if number is None else f"{self._name}.{number}"

    def _move(self, path: Path, docker: Path) -> None:
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(os.path.realpath(docker)):
            raise OSError(0, "is a link to where no logs are")
        relative = target.parent.relative_to(os.path.realpath(docker))
        fresh = inside.open_directory(docker, str(relative) if relative.parts else "")
        os.close(self._directory)
        self._directory, self._name, self._alone = fresh, target.name, True


def _is_link(directory: int, name: str) -> bool:
    try:
        os.readlink(name, dir_fd=directory)
    except OSError:
        return False
    return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _last(file: int, wanted: int) -> tuple[int, int]:
    """Where the last `wanted` lines begin, and how many there are from there on."""
    found, at = 0, os.fstat(file).st_size
    # The beginning of a line of which more lies before.
    rest = b""
    while at > 0:
        begin = max(0, at - BLOCK_BYTES)
        data = os.pread(file, at - begin, begin) + rest
        at = begin
        # What is before the first newline is whole only at the file's beginning.
        first = data.find(b"\n") + 1 if begin else 0
        if begin and first in (0, len(data)):
            if len(data) < RAW_BYTES:
                rest = data
                continue
            first = 0
        end = len(data)
        while (newline := data.rfind(b"\n", first, end)) >= 0:
            start = max(data.rfind(b"\n", first, newline) + 1, first)
            if parse(data[start:newline]).whole:
                if found == wanted:
                    return found, begin + newline + 1
                found += 1
            # The newline of the line before stays in sight.
            end = start
        rest = data[:first]
    return found, 0
