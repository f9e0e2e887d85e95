"""The parent of kcore's processes.

`run` starts each command as a child, starts it again when it dies (after a pause that grows while
it keeps dying), and ends them all on SIGTERM or SIGINT, last one first. Children die with their
parent, whatever kills it: nothing of kcore is left without somebody to look after it. Containers
are not children of kcore and live on.

It holds a lock on its pid file for as long as it lives: a pid file without a lock is a leftover.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kcore.clock import Clock

_PR_SET_PDEATHSIG = 1
_PAUSE_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
# A child that has lived so long starts again without a pause.
_STEADY_SECONDS = 30.0
_GRACE_SECONDS = 10.0


@dataclass
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    again_at: float = field(default=0.0)


def running(pid_file: Path) -> int | None:
    """Process id of the live parent that holds this pid file; None if there is none."""
    try:
        with pid_file.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or b"0") or None
    except FileNotFoundError:
        pass
    return None


def run(pid_file: Path, commands: Mapping[str, Sequence[str]], clock: Clock) -> int:
    """Keeps the commands running until told to end; answers the exit code."""
    with pid_file.open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"kcore is running already (see {pid_file})", file=sys.stderr)
            return 1
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        try:
            _keep([_Child(name, command) for name, command in commands.items()], clock)
        finally:
            pid_file.unlink(missing_ok=True)
    return 0


def _keep(children: Sequence[_Child], clock: Clock) -> None:
    signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    while True:
        now = clock.monotonic()
        for child in children:
            if child.process is None and child.again_at <= now:
                child.process, child.started = _start(child.command), now
        waits = [child.again_at - now for child in children if child.process is None]
        got = signal.sigtimedwait(signals, max(0.0, min(waits, default=3600.0)))
        if got is not None and got.si_signo in (signal.SIGTERM, signal.SIGINT):
            break
        for child in children:
            if child.process is not None and child.process.poll() is not None:
                _died(child, clock.monotonic())
    _end([child for child in reversed(children) if child.process is not None])


def _died(child: _Child, now: float) -> None:
    assert child.process is not None
    code = child.process.returncode
    child.process = None
    child.deaths = 0 if now - child.started > _STEADY_SECONDS else child.deaths + 1
    pause = _PAUSE_SECONDS[min(child.deaths, len(_PAUSE_SECONDS) - 1)]
    child.again_at = now + pause
    print(f"kcore {child.name} ended ({code}), again in {pause} s", file=sys.stderr, flush=True)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def die_with_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(command, preexec_fn=die_with_parent, stdin=subprocess.DEVNULL)


def _end(children: Sequence[_Child]) -> None:
    for child in children:
        assert child.process is not None
        child.process.terminate()
        try:
            child.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def stop(pid_file: Path, clock: Clock, seconds: float = 30.0) -> bool:
    """Ends the parent that holds this pid file; False if there was none."""
    pid = running(pid_file)
    if pid is None:
        pid_file.unlink(missing_ok=True)
        return False
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            if not _wait(descriptor, seconds):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                _wait(descriptor, seconds)
        finally:
            os.close(descriptor)
    pid_file.unlink(missing_ok=True)
    return True


def _wait(descriptor: int, seconds: float) -> bool:
    ready, _, _ = select.select([descriptor], [], [], seconds)
    return bool(ready)
