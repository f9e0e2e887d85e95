"""etcds for tests: real processes on the loopback, in folders of their own.

`shared()` is one for all tests that do it no harm; each `store()` of it has a prefix of its own.
The program is Debian's, or what KCORE_ETCD names.
"""

import atexit
import functools
import itertools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.store.etcd import EtcdStore
from kcore.kernel.store.etcd_client import Endpoints
from kcore.kernel.store.mark import Mark

PROGRAM = os.environ.get("KCORE_ETCD", "etcd")


def there() -> bool:
    """Whether there is an etcd to test with."""
    return shutil.which(PROGRAM) is not None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """One etcd, as nobody has configured it but for `flags`."""

    def __init__(self, folder: pathlib.Path, *flags: str, scheme: str = "http") -> None:
        self.folder = folder
        self.flags = flags
        self.scheme = scheme
        self.port, self.peer = free_port(), free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._prefixes = itertools.count()

    def start(self) -> "Server":
        peer = f"http://127.0.0.1:{self.peer}"
        command = [PROGRAM, "--name", "one", "--data-dir", str(self.folder / "data")]
        command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"one={peer}", *self.flags]
        log_file = self.folder / "etcd.log"
        with open(log_file, "ab") as log:
            said = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while b"ready to serve client requests" not in log_file.read_bytes()[said:]:
            assert self.process.poll() is None, log_file.read_text()[-2000:]
            assert time.monotonic() < deadline, log_file.read_text()[-2000:]
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """As the machine's end would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def endpoints(self, **tls: Any) -> Endpoints:
        return Endpoints((self.url,), **tls)

    def store(
        self, prefix: str = "", *, seed: int | None = None, mark: Mark | None = None, url: str = ""
    ) -> EtcdStore:
        """A store; each on a log of its own, unless the prefix says which."""
        return EtcdStore(
            Endpoints((url,)) if url else self.endpoints(),
            SystemClock(),
            Chance(seed),
            mark=mark,
            prefix=prefix or self.prefix(),
        )

    def prefix(self) -> str:
        return f"/test{next(self._prefixes)}"


@functools.cache
def shared() -> Server:
    """One for the whole session."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kcore-etcd-"))
    server = Server(folder, "--unsafe-no-fsync") if _can_skip_sync() else Server(folder)
    server.start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return server


@functools.cache
def _can_skip_sync() -> bool:
    done = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=False)
    return "unsafe-no-fsync" in done.stdout + done.stderr
