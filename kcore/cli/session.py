"""One invocation of the command line: its streams, its settings, its connection.

A command is given a `Session` and takes from it the Api (`await session.api()`), the kinds, the
namespace and the doors to time and chance. Tests and simulations pass an Api of their own; else one
is dialled, when first asked for, as kubeconfig says.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

from kcore.chance import Chance
from kcore.client import kubeconfig
from kcore.clock import Clock, SystemClock

if TYPE_CHECKING:
    from kcore.client.channel import Channel
    from kcore.client.kinds import Catalogue
    from kcore.client.streams import PodStreams
    from kcore.wire.api import Api

FAILED: Final = 1
USAGE: Final = 2
NOT_READY: Final = 3
DENIED: Final = 4
INTERRUPTED: Final = 130


def harmless(text: str) -> str:
    """The text with control characters made visible, but for line ends and tabs."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


class Exit(Exception):
    """Ends the command with a code; what there was to say has been said, but for `message`."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Session:
    """What a command may know of where it runs."""

    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    stdin: BinaryIO = field(default_factory=lambda: sys.stdin.buffer)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)
    chance: Chance = field(default_factory=Chance)
    # Given by tests and simulations; else dialled.
    given_api: "Api | None" = None
    given_streams: "PodStreams | None" = None
    # The command line itself, for what is said to be typed instead.
    line: tuple[str, ...] = ()
    # Of the global options.
    config_path: str = ""
    context: str = ""
    namespace_option: str = ""
    color: str = "auto"
    _dialled: "Channel | None" = None
    _kinds: "Catalogue | None" = None
    _target: kubeconfig.Target | None = None

    def config(self) -> kubeconfig.Config:
        """The merged kubeconfig files."""
        files = kubeconfig.paths(self.environ, self.config_path)
        return kubeconfig.load(files, required=bool(self.config_path))

    def target(self) -> kubeconfig.Target:
        """Where to connect to."""
        if self._target is None:
            self._target = kubeconfig.target(self.config(), self.environ, context=self.context)
        return self._target

    @property
    def namespace(self) -> str:
        """The namespace that commands work in."""
        if self.namespace_option:
            return self.namespace_option
        return "default" if self.given_api is not None else self.target().namespace

    async def api(self) -> "Api":
        """The server."""
        return self.given_api if self.given_api is not None else await self._dial()

    async def streams(self) -> "PodStreams":
        """The server's streams to containers."""
        return self.given_streams if self.given_streams is not None else await self._dial()

    async def kinds(self) -> "Catalogue":
        """The kinds that the server serves."""
        if self._kinds is None:
            from kcore.client import kinds

            self._kinds = await kinds.fetch(await self.api())
        return self._kinds

    async def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._dialled is not None:
            await self._dialled.close()
            self._dialled = None

    def out(self, text: str) -> None:
        """A line of data."""
        self.stdout.write(text + "\n")

    def raw(self, text: str) -> None:
        """Data as it is, without a line end of ours; a terminal is not steered by it, though."""
        self.stdout.write(harmless(text) if self.stdout.isatty() else text)

    def say(self, text: str) -> None:
        """A line of talk. Servers' words are in it: they do not steer the terminal."""
        self.stdout.flush()
        self.stderr.write(harmless(text) + "\n")
        self.stderr.flush()

    def write(self, data: bytes, stream: TextIO | None = None) -> None:
        """Bytes of data, as they are, at once."""
        stream = stream if stream is not None else self.stdout
        binary = getattr(stream, "buffer", None)
        if binary is None:
            stream.write(data.decode(errors="replace"))
        else:
            stream.flush()
            binary.write(data)
        stream.flush()

    def colored(self, stream: TextIO) -> bool:
        """Whether colour may be written to the stream."""
        if self.color != "auto":
            return self.color == "always"
        said = self.environ.get
        if said("NO_COLOR"):
            return False
        for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
            if said(name):
                return said(name) not in ("0", "false")
        if said("TERM") == "dumb" or said("CLICOLOR") == "0":
            return False
        return stream.isatty()

    async def _dial(self) -> "Channel":
        if self._dialled is None:
            # gRPC is the largest import of all; commands that need no server do without.
            from kcore.client import channel

            self._dialled = channel.connect(self.target())
        return self._dialled
