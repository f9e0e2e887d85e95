"""The parent keeps its children alive, and they never outlive it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kcore.boot import parent
from kcore.clock import SystemClock

CLOCK = SystemClock()
CHILD = "import os,sys,signal; open(sys.argv[1],'a').write(f'{os.getpid()}\\n'); signal.pause()"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """A parent process with one child that notes its process id in a file."""
    pid_file, notes = tmp_path / "kcore.pid", tmp_path / "notes"
    program = (
        "import sys; from pathlib import Path; from kcore.boot import parent;"
        "from kcore.clock import SystemClock;"
        f"sys.exit(parent.run(Path({str(pid_file)!r}),"
        f" {{'child': [sys.executable, '-c', {CHILD!r}, {str(notes)!r}]}}, SystemClock()))"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield process, pid_file, notes
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def children(notes: Path, count: int) -> list[int]:
    """Process ids noted so far, once there are so many."""
    for _ in range(1000):
        found = [int(line) for line in notes.read_text().split()] if notes.exists() else []
        if len(found) >= count:
            return found
        signal.sigtimedwait([], 0.01)
    raise AssertionError(f"{count} children were not started")


def gone(pid: int) -> bool:
    """Whether the process ends within ten seconds."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        signal.sigtimedwait([], 0.01)
    return False


def test_a_child_that_dies_is_started_again(
    started: tuple[subprocess.Popen[bytes], Path, Path],
) -> None:
    _, _, notes = started
    (first,) = children(notes, 1)
    os.kill(first, signal.SIGKILL)
    assert children(notes, 2)[1] != first


def test_children_do_not_outlive_a_killed_parent(
    started: tuple[subprocess.Popen[bytes], Path, Path],
) -> None:
    process, pid_file, notes = started
    (child,) = children(notes, 1)
    assert parent.running(pid_file) == process.pid
    process.kill()
    process.wait()
    assert gone(child)
    assert parent.running(pid_file) is None


def test_stop_ends_parent_and_children(
    started: tuple[subprocess.Popen[bytes], Path, Path],
) -> None:
    process, pid_file, notes = started
    (child,) = children(notes, 1)
    assert parent.stop(pid_file, CLOCK)
    process.wait()
    assert gone(child)
    assert not pid_file.exists()
    assert not parent.stop(pid_file, CLOCK)


def test_there_is_one_parent_only(
    started: tuple[subprocess.Popen[bytes], Path, Path],
) -> None:
    process, pid_file, notes = started
    children(notes, 1)
    assert parent.run(pid_file, {}, CLOCK) == 1
    assert parent.running(pid_file) == process.pid
