"""`kcore exec`: a command in a container; its streams are ours, its exit code is ours.

Standard input is read by a thread of its own, as fast as the other end takes it; its end is passed
on while output still flows. With a terminal ours is put into raw mode and its size is followed.
"""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from contextlib import aclosing, contextmanager, suppress
from typing import Any, BinaryIO, Final

import click
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli import objects, options, subject
from kcore.cli.logs import labels_of
from kcore.cli.session import FAILED, Exit, Session

CHUNK_BYTES: Final = 32 * 1024
# Pieces of input on their way; the reading thread waits beyond.
_AHEAD: Final = 8


@click.command(name="exec", context_settings={"ignore_unknown_options": False})
@click.argument("target", metavar="POD | KIND/NAME")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED,
                metavar="-- COMMAND [ARG...]")  # fmt: skip
@options.namespace
@click.option("-c", "--container", default="", help="Which container; else the default one.")
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.pass_obj
async def exec_(
    session: Session, target: str, command: tuple[str, ...], container: str, stdin: bool, tty: bool
) -> int:
    """Run a command in a container; its exit code is this one's.

    \b
    kcore exec web-0 -- ls /
    kcore exec -it web-0 -- sh
    """
    catalogue = await session.kinds()
    pods = catalogue.of_type("v1", "Pod")
    asked = subject.one(target, catalogue, "pods")
    if asked.kind is pods:
        name = asked.name
    else:
        name = await _first_pod(session, asked)
    if tty and stdin and not session.stdin.isatty():
        session.say("Warning: standard input is no terminal; going on without -t.")
        tty = False
    opening = pod_stream_pb2.ExecOpen(
        target=pod_stream_pb2.Target(namespace=session.namespace, pod=name, container=container),
        command=command,
        stdin=stdin,
        tty=tty,
    )
    requests: asyncio.Queue[pod_stream_pb2.ExecRequest] = asyncio.Queue(_AHEAD)
    await requests.put(pod_stream_pb2.ExecRequest(open=opening))
    streams = await session.streams()
    with _terminal(session, requests, raw=tty and stdin):
        if stdin:
            _Reader(session.stdin, requests).start()
        async with aclosing(streams.exec(_drained(requests))) as responses:
            async for response in responses:
                match response.WhichOneof("frame"):
                    case "stdout":
                        session.write(response.stdout)
                    case "stderr":
                        session.write(response.stderr, session.stderr)
                    case "exit_code":
                        return response.exit_code
    raise Exit(FAILED, "error: the stream ended before the command did")


async def _first_pod(session: Session, asked: subject.Subject) -> str:
    """One of the pods that an owner selects: a running one if there is any."""
    catalogue = await session.kinds()
    pods = catalogue.of_type("v1", "Pod")
    labels = await labels_of(session, asked)
    listing = await objects.listing(session, pods, session.namespace, labels=labels)

    def rank(pod: Any) -> tuple[bool, str]:
        return (pod.status.phase != "Running", pod.metadata.name)

    if not listing.items:
        raise Exit(FAILED, f"error: {asked} has no pods")
    name: str = objects.metadata(min(listing.items, key=rank)).name
    return name


async def _drained(
    requests: asyncio.Queue[pod_stream_pb2.ExecRequest],
) -> AsyncIterator[pod_stream_pb2.ExecRequest]:
    """The requests as they come; ends only with the stream."""
    while True:
        yield await requests.get()


class _Reader:
    """Reads standard input in a thread: a read of a terminal or a pipe can't be given up."""

    def __init__(
        self, source: BinaryIO, requests: asyncio.Queue[pod_stream_pb2.ExecRequest]
    ) -> None:
        self._source = source
        self._requests = requests
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begins; nobody waits for its end."""
        threading.Thread(target=self._run, daemon=True, name="stdin").start()

    def _run(self) -> None:
        read = getattr(self._source, "read1", self._source.read)
        try:
            while data := read(CHUNK_BYTES):
                self._put(pod_stream_pb2.ExecRequest(stdin=data))
            self._put(pod_stream_pb2.ExecRequest(stdin_closed=True))
        except (RuntimeError, ValueError, OSError, CancelledError):
            # The command has ended, and with it the loop or the stream: nobody wants more.
            return

    def _put(self, request: pod_stream_pb2.ExecRequest) -> None:
        putting = self._requests.put(request)
        try:
            waiting = asyncio.run_coroutine_threadsafe(putting, self._loop)
        except RuntimeError:
            putting.close()
            raise
        waiting.result()


@contextmanager
def _terminal(
    session: Session, requests: asyncio.Queue[pod_stream_pb2.ExecRequest], *, raw: bool
) -> Iterator[None]:
    """Our terminal as a mere pipe to the other one, of the same size."""
    if not raw:
        yield
        return
    import os
    import termios
    import tty

    handle = session.stdin.fileno()
    loop = asyncio.get_running_loop()

    def resized() -> None:
        size = os.get_terminal_size(handle)
        frame = pod_stream_pb2.TerminalSize(width=size.columns, height=size.lines)
        # Full only while much input is on its way; the next change of size comes through.
        with suppress(asyncio.QueueFull):
            requests.put_nowait(pod_stream_pb2.ExecRequest(resize=frame))

    before = termios.tcgetattr(handle)
    try:
        tty.setraw(handle)
        resized()
        loop.add_signal_handler(signal.SIGWINCH, resized)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
