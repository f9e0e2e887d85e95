"""`kcore cp`: files and directories to and from containers, as tar through exec.

The container needs a `tar`; what comes out of it is unpacked with care (unpack.py).
"""

import posixpath
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli import objects, options, pod, tar, unpack
from kcore.cli.session import FAILED, Exit, Session
from kcore.wire.errors import ApiError, Reason

# Goes on with an archive from a byte on, as `tail` counts them.
_RESUME: Final = 'tar cf - -C "$1" "$2" | tail -c "+$3"'
_PROGRESS_SECONDS: Final = 0.2
_QUIET_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Spec:
    """A path, here or in a pod."""

    path: str
    pod: str = ""
    namespace: str = ""


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@options.namespace
@click.option("-c", "--container", default="", help="Which container; else the default one.")
@click.option("--no-preserve/--preserve", "no_preserve", default=False,
              help="Do not keep modes, owners and times.")  # fmt: skip
@click.option("--retries", type=int, default=0, show_default=True,
              help="How often to go on with a copy that broke off; -1: always.")  # fmt: skip
@click.pass_obj
async def cp(
    session: Session, source: str, target: str, container: str, no_preserve: bool, retries: int
) -> int:
    """Copy files and directories to and from containers.

    \b
    kcore cp web-0:/etc/nginx ./nginx
    kcore cp ./site web-0:/srv -c main
    kcore cp shop/web-0:/tmp/dump.sql dump.sql
    """
    here, there = parse(source), parse(target)
    if bool(here.pod) == bool(there.pod):
        raise click.UsageError("one of source and target is in a pod (POD:PATH), the other is not")
    if not here.path or not there.path:
        raise click.UsageError("Filepath can not be empty")
    remote = here if here.pod else there
    session.namespace_option = remote.namespace or session.namespace_option
    found = await pod.find(session, remote.pod)
    metadata = objects.metadata(found)
    address = pod_stream_pb2.Target(
        namespace=metadata.namespace,
        pod=metadata.name,
        uid=metadata.uid,
        container=pod.container(session, found, container),
    )
    copy = _Copy(session, address, preserve=not no_preserve)
    if here.pod:
        return await copy.out(here.path, Path(there.path), retries)
    return await copy.into(Path(here.path), there.path)


def parse(text: str) -> Spec:
    """`path`, `pod:path` or `namespace/pod:path`."""
    before, colon, path = text.partition(":")
    if not colon or before[:1] in (".", "/") or not before:
        return Spec(text)
    namespace, slash, name = before.rpartition("/")
    if "/" in namespace or (slash and not namespace) or not name:
        raise click.UsageError(f'"{text}" is not of the form [[NAMESPACE/]POD:]PATH')
    return Spec(path, name, namespace)


@dataclass(slots=True)
class _Copy:
    """One copy, and one container."""

    session: Session
    address: pod_stream_pb2.Target
    preserve: bool
    # What tar said besides.
    _said: bytearray = field(default_factory=bytearray)

    async def out(self, path: str, target: Path, retries: int) -> int:
        """From the container to here."""
        path = posixpath.normpath(path)
        directory, name = posixpath.split(path)
        if name in ("", ".", ".."):
            directory, name = path, "."
        progress = _Progress(self.session)
        try:
            with unpack.Unpacker(target, name, self._say, preserve=self.preserve) as unpacker:
                failed: _Failed | None = None
                archive = self._archive(directory or ".", name, retries)
                try:
                    async with aclosing(archive):
                        async for data in archive:
                            unpacker.feed(data)
                            progress.add(len(data))
                except _Failed as error:
                    # What could be read is there all the same.
                    failed = error
                    if not unpacker.entries:
                        raise
                unpacker.end()
                if failed is not None:
                    raise failed
        except tar.ArchiveError as error:
            raise Exit(FAILED, f"error: {self.address.pod}:{path}: {error}") from error
        finally:
            progress.end()
        if not unpacker.entries:
            raise Exit(FAILED, f"error: {self.address.pod}:{path}: nothing came")
        return FAILED if unpacker.refused else 0

    async def into(self, source: Path, path: str) -> int:
        """From here to the container."""
        source = source.resolve()
        if not source.exists():
            raise Exit(FAILED, f"error: {source} doesn't exist in local filesystem")
        path = posixpath.normpath(path)
        if await self._is_directory(path):
            path = posixpath.join(path, source.name)
        directory, name = posixpath.split(path)
        kept = [] if self.preserve else ["--no-same-permissions", "--no-same-owner"]
        command = ["tar", *kept, "-xmf", "-", "-C", directory or "."]
        left_out = 0

        def say(text: str) -> None:
            nonlocal left_out
            left_out += 1
            self._say(f"error: {text}")

        progress = _Progress(self.session)
        pieces = tar.pack(source, name, say)
        try:
            with closing(pieces):  # type: ignore[type-var] # It is a generator.
                async for _ in self._run(command, _counted(pieces, progress)):
                    pass
        finally:
            progress.end()
        return FAILED if left_out else 0

    async def _is_directory(self, path: str) -> bool:
        try:
            async for _ in self._run(["test", "-d", path]):
                pass
        except _Failed:
            return False
        except ApiError as error:
            # A container without `test` is asked for nothing but what it was asked for.
            if error.reason is not Reason.REFUSED or "executable file not found" not in str(error):
                raise
            return False
        return True

    async def _archive(
        self, directory: str, name: str, retries: int
    ) -> AsyncGenerator[bytes, None]:
        """The archive; one that breaks off is gone on with."""
        took = 0
        inside = name if name == "." else f"./{name}"
        command = ["tar", "cf", "-", "-C", directory, inside]
        while True:
            try:
                async with aclosing(self._run(command)) as output:
                    async for data in output:
                        took += len(data)
                        yield data
                return
            except ApiError as error:
                if error.reason is not Reason.UNAVAILABLE or not retries:
                    raise
                self._say(f"{error.message}; going on at byte {took}")
            retries -= 1
            await self.session.clock.sleep(1.0)
            command = ["sh", "-c", _RESUME, "sh", directory, inside, str(took + 1)]

    async def _run(
        self, command: Sequence[str], pieces: Iterator[bytes] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """What a command prints, once it has succeeded; `pieces`: its standard input."""
        self._said.clear()
        streams = await self.session.streams()
        opening = pod_stream_pb2.ExecOpen(
            target=self.address, command=command, stdin=pieces is not None
        )
        code: int | None = None
        try:
            async with aclosing(streams.exec(_requests(opening, pieces))) as responses:
                async for response in responses:
                    match response.WhichOneof("frame"):
                        case "stdout":
                            yield response.stdout
                        case "stderr":
                            self._said += response.stderr[: 4096 - len(self._said)]
                        case "exit_code":
                            code = response.exit_code
        except ApiError as error:
            if command[0] == "tar" and "executable file not found" in error.message:
                said = f"error: container {self.address.container} has no `tar`, which cp needs"
                raise Exit(FAILED, said) from error
            raise
        if code is None:
            raise ApiError(Reason.UNAVAILABLE, "the stream ended before the command did")
        if code:
            text = self._said.decode(errors="replace").strip()
            raise _Failed(FAILED, f"error: {text or f'{command[0]} ended with code {code}'}")

    def _say(self, text: str) -> None:
        self.session.say(text)


class _Failed(Exit):
    """The command in the container failed."""


async def _requests(
    opening: pod_stream_pb2.ExecOpen, pieces: Iterator[bytes] | None
) -> AsyncIterator[pod_stream_pb2.ExecRequest]:
    yield pod_stream_pb2.ExecRequest(open=opening)
    if pieces is None:
        return
    for piece in pieces:
        yield pod_stream_pb2.ExecRequest(stdin=piece)
    yield pod_stream_pb2.ExecRequest(stdin_closed=True)


def _counted(pieces: Iterator[bytes], progress: "_Progress") -> Iterator[bytes]:
    for piece in pieces:
        progress.add(len(piece))
        yield piece


class _Progress:
    """Tells on a terminal how far a long copy is."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._shown = session.stderr.isatty()
        self._began = self._last = session.clock.monotonic()
        self._bytes = 0
        self._wrote = False

    def add(self, count: int) -> None:
        """So many more bytes."""
        self._bytes += count
        if not self._shown:
            return
        now = self._session.clock.monotonic()
        if now - self._began < _QUIET_SECONDS or now - self._last < _PROGRESS_SECONDS:
            return
        self._last, self._wrote = now, True
        megabytes = self._bytes / 1e6
        self._session.stderr.write(
            f"\r{megabytes:.1f} MB, {megabytes / (now - self._began):.1f} MB/s\x1b[K"
        )
        self._session.stderr.flush()

    def end(self) -> None:
        """Takes away what was written."""
        if self._wrote:
            self._session.stderr.write("\r\x1b[K")
            self._session.stderr.flush()
