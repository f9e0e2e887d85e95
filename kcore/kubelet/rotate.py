"""Keeps containers' logs from filling the disk: 10 MiB a file, five files.

A log that has grown too long is moved away as `0.log.1`, the next time as `0.log.2`, …, and the
runtime is told to open it anew; the oldest are removed. Greater numbers are younger: kcore/kubelet/
log.py reads all of them as one. The faster logs grow, the more often they are looked at.

A kubelet that dies in between leaves a log without its file: the next look tells the runtime again.
Links are left alone, as who made them rotates himself. It must not know pods.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kcore.clock import Clock
from kcore.kubelet import cri, inside, log

logger = logging.getLogger(__name__)

MOST_BYTES = 10 * 1024 * 1024
MOST_FILES = 5
# Between two looks.
QUICK_SECONDS = 0.1
SLOW_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Written:
    """A running container and where it writes."""

    container_id: str
    path: Path


@dataclass
class Rotation:
    """All logs of a node; `look` may be called at any moment."""

    runtime: cri.Runtime
    most_bytes: int = MOST_BYTES
    most_files: int = MOST_FILES
    # By container: size and when, at the last look.
    _sizes: dict[str, tuple[int, float]] = field(default_factory=dict)

    async def look(self, written: Iterable[Written], now: float) -> float:
        """Rotates what has grown too long; answers in how many seconds to look again."""
        wait = SLOW_SECONDS
        sizes = {}
        for one in sorted(written, key=lambda one: one.container_id):
            size = _size(one.path)
            try:
                if size is None:
                    continue
                if size < 0 or size > self.most_bytes:
                    await self._rotate(one)
                    size = 0
            except (OSError, cri.CriError) as error:
                logger.warning("log %s is not rotated: %s", one.path, error)
                continue
            before, then = self._sizes.get(one.container_id, (0, now - SLOW_SECONDS))
            rate = max(0, size - before) / max(now - then, 0.01)
            if rate:
                wait = min(wait, (self.most_bytes - size) / rate / 2)
            sizes[one.container_id] = size, now
        self._sizes = sizes
        return max(wait, QUICK_SECONDS)

    async def _rotate(self, one: Written) -> None:
        depth = min(2, len(one.path.parents) - 1)
        directory = inside.open_directory(
            one.path.parents[depth], "/".join(one.path.parts[-1 - depth : -1])
        )
        try:
            await self._move(one, directory)
        finally:
            os.close(directory)

    async def _move(self, one: Written, directory: int) -> None:
        name = one.path.name
        numbers = log.rotated(directory, name)
        aside = f"{name}.{numbers[-1] + 1 if numbers else 1}"
        try:
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
        except FileNotFoundError:
            # Somebody died in between, last time.
            await self.runtime.reopen_container_log(one.container_id)
        else:
            try:
                await self.runtime.reopen_container_log(one.container_id)
            except cri.CriError:
                # It still writes where it wrote. What is there by now is younger, and stays.
                with contextlib.suppress(FileExistsError):
                    os.link(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
                    os.unlink(aside, dir_fd=directory)
                raise
        for number in log.rotated(directory, name)[: -(self.most_files - 1)]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{name}.{number}", dir_fd=directory)


def _size(path: Path) -> int | None:
    """Bytes of the file; -1 where it was moved away, None where there is nothing to rotate."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return -1 if path.parent.is_dir() else None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


async def run(runtime: cri.Runtime, written: Callable[[], Iterable[Written]], clock: Clock) -> None:
    """Rotates for ever; `written` says which containers run."""
    rotation = Rotation(runtime)
    while True:
        await clock.sleep(await rotation.look(written(), clock.monotonic()))
