"""A wire that breaks: a relay between two Unix sockets that can be cut at any moment.

    async with Wire(front, back) as wire: … wire.cut()

What was sent into it before the cut may have arrived or not, and of what was answered nothing more
comes: the loss of replies as networks do it, without a word in any program.
"""

import asyncio
import contextlib

_PIECE = 64 << 10


class Wire:
    """One relay."""

    def __init__(self, front: str, back: str) -> None:
        """Who dials `front` reaches `back`."""
        self._front = front
        self._back = back
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        # Answers go no further while this is set.
        self.mute = False
        self.cuts = 0

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_unix_server(self._relay, self._front)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        while self._ends:
            await asyncio.sleep(0.01)

    def cut(self) -> None:
        """Breaks every connection."""
        self.cuts += 1
        self.mute = False
        for end in list(self._ends):
            end.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_unix_connection(self._back)
        except OSError:
            writer.close()
            return
        self._ends |= {writer, back_writer}
        try:
            await asyncio.gather(
                self._pump(reader, back_writer, False), self._pump(back_reader, writer, True)
            )
        finally:
            self._ends -= {writer, back_writer}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                if answers and self.mute:
                    continue
                writer.write(piece)
                await writer.drain()
        writer.close()
