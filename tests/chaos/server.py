"""A real apiserver in a process of its own, below a directory, with what can be done to it.

    server = Server(root); server.start(); await server.serving()
    server.kill(); server.pause(); server.resume(); server.stop()

It is `kcore apiserver` as `kcore up` starts it, alone: no other room, no container runtime. With
`mutant` it is the same program with a planted bug (tests/chaos/planted.py).
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.boot import certificates, place
from kcore.chance import Chance
from kcore.client import channel
from kcore.client.kubeconfig import Target
from kcore.clock import SystemClock
from kcore.wire.errors import ApiError
from tests.chaos.history import now

HERE = Path(__file__).resolve().parents[2]
# Compiled once, as an installation is, whatever the surroundings say.
_COMPILED = {
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "kcx-compiled"),
}
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Died(Exception):
    """The server ended by itself; says its last words."""


class Server:
    """One, started any number of times on the same data."""

    def __init__(
        self, root: Path, arguments: Sequence[str] = (), mutant: str = "", wrap: Sequence[str] = ()
    ) -> None:
        """`arguments`: more of them for `kcore apiserver`; `wrap`: a command to run it by."""
        self.place = place.Place.under(root)
        self.arguments = list(arguments)
        self.mutant = mutant
        self.wrap = list(wrap)
        self.port = free_port()
        self.log = root / "apiserver.log"
        self.process: subprocess.Popen[bytes] | None = None
        # How long it took from each start until it served, and how much of that the processor's.
        self.starts: list[float] = []
        self.worked: list[float] = []
        self.place.make()
        certificates.ensure(self.place.pki, self.place.ca, "chaos", SystemClock(), Chance())
        self.place.admin_token.write_text("t" * 40)

    def start(self) -> None:
        """Starts it; `serving` waits for it."""
        assert self.process is None or self.process.poll() is not None, "it is running"
        program = ["-m", "tests.chaos.planted", self.mutant] if self.mutant else ["-m", "kcore"]
        command = [
            *(*self.wrap, sys.executable, *program, "apiserver", "--node", "chaos"),
            *("--port", str(self.port), "--root", str(self.place.state.parent), *self.arguments),
        ]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=HERE,
                env={**os.environ, **_COMPILED, "PYTHONPATH": f"{HERE}:{HERE / 'generated'}"},
                start_new_session=True,
            )

    async def serving(self, seconds: float = 60.0) -> float:
        """Waits until it answers; how long that took."""
        begun = now()
        async with channel.connect(Target(unix=str(self.place.socket))) as dialled:
            while True:
                try:
                    await dialled.kinds(pb.KindsRequest())
                    break
                except ApiError as error:
                    self.check()
                    if now() - begun > seconds:
                        raise Died(f"no answer in {seconds} s: {error}: {self.words()}") from error
                await asyncio.sleep(0.02)
        self.starts.append(now() - begun)
        self.worked.append(self.processor_seconds())
        return self.starts[-1]

    def check(self) -> None:
        """Raises `Died` if it has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise Died(f"exit {self.process.returncode}: {self.words()}")

    def words(self, size: int = 1500) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def kill(self) -> None:
        """kill -9, of itself and of what it was started by."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> int:
        """Ends it as an init system does; its exit code."""
        assert self.process is not None
        self._signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def resident_bytes(self) -> int:
        """Its memory."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * _PAGE_BYTES

    def processor_seconds(self) -> float:
        """What it has used of the processor since it was started."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS

    def close(self) -> None:
        """Leaves nothing running."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)


def free_port() -> int:
    """A port that is free with those that an apiserver takes beside it."""
    while True:
        port = random.randrange(20_000, 30_000)
        with (
            socket.socket() as below,
            socket.socket() as itself,
            socket.socket() as probe,
        ):
            try:
                for one, number in ((below, port - 1), (itself, port), (probe, port + 2)):
                    one.bind(("127.0.0.1", number))
            except OSError:
                continue
            return port
