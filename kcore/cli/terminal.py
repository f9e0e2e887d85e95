"""Our standard streams and terminal, joined to those of a process in a container.

Standard input is read by a thread of its own, as fast as the other end takes it; its end is passed
on while output still flows. With a terminal ours is put into raw mode and its size is followed.
It must not know how the process came to be: exec and attach speak the same frames.
"""

import asyncio
import os
import signal
import termios
import threading
import tty as raw_mode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import aclosing, contextmanager, nullcontext, suppress
from typing import Any, BinaryIO, Final

from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli.session import Session

CHUNK_BYTES: Final = 32 * 1024
# Pieces of input on their way; the reading thread waits beyond.
_AHEAD: Final = 8

Call = Callable[[AsyncIterator[Any]], AsyncGenerator[Any, None]]


def usable(session: Session) -> bool:
    """Whether standard input is a terminal; where it is not, that is said."""
    if session.stdin.isatty():
        return True
    session.say("Unable to use a TTY - input is not a terminal or the right kind of file")
    return False


async def join(session: Session, call: Call, opening: Any, *, redraw: bool = False) -> int | None:
    """Until the process ends; its exit code, or None where nobody said it.

    `opening`: the request that opens, of Exec or Attach. `redraw`: what is there already shall
    draw itself anew.
    """
    asked = opening.open
    make = type(opening)
    requests: asyncio.Queue[Any] = asyncio.Queue(_AHEAD)
    await requests.put(opening)
    raw = asked.tty and asked.stdin and session.stdin.isatty()
    with _raw(session, requests, make, redraw=redraw) if raw else nullcontext():
        if asked.stdin:
            _Reader(session.stdin, requests, make).start()
        async with aclosing(call(_drained(requests))) as responses:
            async for response in responses:
                match response.WhichOneof("frame"):
                    case "stdout":
                        session.write(response.stdout)
                    case "stderr":
                        session.write(response.stderr, session.stderr)
                    case "exit_code":
                        code: int = response.exit_code
                        return code
    return None


async def _drained(requests: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    """The requests as they come; ends only with the stream."""
    while True:
        yield await requests.get()


class _Reader:
    """Reads standard input in a thread: a read of a terminal or a pipe can't be given up."""

    def __init__(self, source: BinaryIO, requests: asyncio.Queue[Any], make: type[Any]) -> None:
        self._source = source
        self._requests = requests
        self._make = make
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begins; nobody waits for its end."""
        threading.Thread(target=self._run, daemon=True, name="stdin").start()

    def _run(self) -> None:
        read = getattr(self._source, "read1", self._source.read)
        try:
            while data := read(CHUNK_BYTES):
                self._put(self._make(stdin=data))
            self._put(self._make(stdin_closed=True))
        except (RuntimeError, ValueError, OSError, CancelledError):
            # The command has ended, and with it the loop or the stream: nobody wants more.
            return

    def _put(self, request: Any) -> None:
        putting = self._requests.put(request)
        try:
            waiting = asyncio.run_coroutine_threadsafe(putting, self._loop)
        except RuntimeError:
            putting.close()
            raise
        waiting.result()


@contextmanager
def _raw(
    session: Session, requests: asyncio.Queue[Any], make: type[Any], *, redraw: bool
) -> Iterator[None]:
    """Our terminal as a mere pipe to the other one, of the same size."""
    handle = session.stdin.fileno()
    loop = asyncio.get_running_loop()

    def resized(more: int = 0) -> None:
        size = os.get_terminal_size(handle)
        frame = pod_stream_pb2.TerminalSize(width=size.columns + more, height=size.lines + more)
        # Full only while much input is on its way; the next change of size comes through.
        with suppress(asyncio.QueueFull):
            requests.put_nowait(make(resize=frame))

    before = termios.tcgetattr(handle)
    try:
        raw_mode.setraw(handle)
        if redraw:
            # A size that is none makes the next one a change.
            resized(1)
        resized()
        loop.add_signal_handler(signal.SIGWINCH, resized)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
