"""`kcore logs`: what containers wrote, of one pod or of all that a selector or an owner has.

Several logs at once are told apart by a prefix, and merged by time; with `-f` they come as they are
written, pods that come later join in, and a server that goes away is asked again from where it was.
"""

import asyncio
import heapq
import re
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import click
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli import follow, objects, options, subject
from kcore.cli import pod as pod_of
from kcore.cli.session import FAILED, Session
from kcore.client.kinds import Kind
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason

_COLORS: Final = ("\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[31m")
_PLAIN: Final = "\x1b[0m"
# Logs that are opened together, and how often a server that has gone is asked again in a row.
_AT_ONCE: Final = 32
_REPEATS: Final = 30

Line = pod_stream_pb2.LogLine


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What of each log is wanted."""

    follow: bool
    previous: bool
    tail: int | None
    since: Timestamp | None
    limit_bytes: int | None
    timestamps: bool
    container: str
    all_containers: bool


@click.command()
@click.argument("target", default="", metavar="[POD | KIND/NAME]")
@click.argument("container_argument", default="", metavar="[CONTAINER]")
@options.namespace
@options.selector
@click.option("-c", "--container", default="", help="Which container; else the default one.")
@click.option("--all-containers", is_flag=True, help="All of each pod.")
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on as they grow.")
@click.option("-p", "--previous", is_flag=True, help="Of the instance before the last restart.")
@click.option("--tail", type=int, default=None, help="Only the last lines; -1: all.")
@click.option("--since", type=options.SECONDS, default=None, help="Only of the last 5m, 1h, ….")
@click.option("--since-time", default="", help="Only since this time: 2026-01-31T12:00:00Z.")
@click.option("--timestamps", is_flag=True, help="With the time of each line.")
@click.option("--limit-bytes", type=click.IntRange(min=1), default=None, help="At most so many.")
@click.option("--prefix/--no-prefix", default=None, help="With the pod and container of each line.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default=None,
              help="When to colour the prefix.")  # fmt: skip
@click.option("--max-log-requests", type=click.IntRange(min=1), default=64, show_default=True,
              help="Most logs that are followed at once.")  # fmt: skip
@click.pass_obj
async def logs(
    session: Session,
    target: str,
    container_argument: str,
    labels: str,
    container: str,
    all_containers: bool,
    follows: bool,
    previous: bool,
    tail: int | None,
    since: float | None,
    since_time: str,
    timestamps: bool,
    limit_bytes: int | None,
    prefix: bool | None,
    color: str | None,
    max_log_requests: int,
) -> int:
    """Show what containers wrote.

    \b
    kcore logs web-0 -f --tail=20
    kcore logs deploy/web -f
    kcore logs -l app=web --all-containers --prefix
    """
    container = container or container_argument
    session.color = color or session.color
    if container and all_containers:
        raise click.UsageError("-c and --all-containers don't go together")
    if bool(target) == bool(labels):
        raise click.UsageError("name a pod, an owner of pods (deploy/web), or a selector with -l")
    if labels and tail is None:
        tail = 10
    wanted = _Wanted(
        follows,
        previous,
        tail if tail is not None and tail >= 0 else None,
        _since(session, since, since_time),
        limit_bytes,
        timestamps,
        container,
        all_containers,
    )
    catalogue = await session.kinds()
    pods = await pod_of.kind(session)
    asked = subject.one(target, catalogue, "pods") if target else None
    if asked is not None and asked.kind is pods:
        found = [await objects.get(session, pods, session.namespace, asked.name)]
        if not all_containers:
            pod_of.container(session, found[0], container)
        labels = ""
    else:
        if asked is not None:
            labels = await pod_of.labels_of(session, asked)
        listing = await objects.listing(session, pods, session.namespace, labels=labels)
        found = listing.items
        if not found and not follows:
            session.say(f"No resources found in {session.namespace} namespace.")
            return 0
    printer = _Printer(session, wanted, prefix, several=bool(labels) and len(found) > 1)
    if labels and follows:
        return await _follow_all(session, pods, labels, wanted, printer, max_log_requests)
    sources = [_source(pod, name, wanted) for pod in found for name in _containers(pod, wanted)]
    if len(sources) == 1:
        await _stream(session, sources[0], printer)
        return 0
    if follows:
        return await _together(session, sources[:max_log_requests], printer)
    return await _merged(session, sources, printer)


def _since(session: Session, seconds: float | None, moment: str) -> Timestamp | None:
    if seconds is not None and moment:
        raise click.UsageError("--since and --since-time don't go together")
    if moment:
        if not re.fullmatch(
            r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", moment
        ):
            raise click.UsageError(f'"{moment}" is not a time such as 2026-01-31T12:00:00Z')
        stamp = Timestamp()
        try:
            stamp.FromJsonString(moment.upper())
        except ValueError as wrong:
            raise click.UsageError(str(wrong)) from None
        return stamp
    if seconds is None:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(int((session.clock.now() - seconds) * 1e9))
    return stamp


@dataclass(frozen=True, slots=True)
class _Source:
    """One log."""

    pod: str
    container: str
    request: pod_stream_pb2.LogsRequest


def _source(pod: Message, name: str, wanted: _Wanted, *, whole: bool = False) -> _Source:
    """The log of a container; `whole`: from its beginning, since it began while we looked."""
    metadata = objects.metadata(pod)
    request = pod_stream_pb2.LogsRequest(
        target=pod_stream_pb2.Target(
            namespace=metadata.namespace, pod=metadata.name, container=name, uid=metadata.uid
        ),
        follow=wanted.follow,
        previous=wanted.previous,
        tail_lines=None if whole else wanted.tail,
        since=None if whole else wanted.since,
        limit_bytes=wanted.limit_bytes,
    )
    return _Source(metadata.name, name or pod_of.default_container(pod), request)


def _containers(pod: Message, wanted: _Wanted) -> list[str]:
    """The containers whose logs are wanted; "" lets the server choose the default one."""
    if not wanted.all_containers:
        return [wanted.container]
    spec: Any = getattr(pod, "spec", None)
    return [c.name for c in (*spec.init_containers, *spec.containers)]


class _Printer:
    """Lines of several logs, told apart."""

    def __init__(
        self, session: Session, wanted: _Wanted, prefix: bool | None, *, several: bool
    ) -> None:
        self._session = session
        self._timestamps = wanted.timestamps
        # Nobody asked: told apart where there is something to tell apart.
        self._prefix = several if prefix is None else prefix
        self._colored = session.colored(session.stdout)
        self._colors: dict[str, str] = {}
        # Whose line has not ended yet: very long ones come in pieces.
        self._open: _Source | None = None

    def tell_apart(self) -> None:
        """More than one log is shown."""
        self._prefix = True

    def show(self, source: _Source, lines: Sequence[Line]) -> None:
        """Some lines of one log."""
        head = self._head(source) if self._prefix else b""
        data = bytearray()
        if self._open is not None and self._open is not source:
            data += b"\n"
            self._open = None
        for line in lines:
            if self._open is None:
                data += head
                if self._timestamps:
                    data += _moment(line.time)
            data += line.text
            self._open = None if line.text.endswith(b"\n") else source
        self._session.write(bytes(data))

    def _head(self, source: _Source) -> bytes:
        said = f"[pod/{source.pod}/{source.container}]"
        if self._colored:
            color = self._colors.setdefault(source.pod, _COLORS[len(self._colors) % len(_COLORS)])
            said = f"{color}{said}{_PLAIN}"
        return f"{said} ".encode()


def _moment(stamp: Timestamp) -> bytes:
    whole = datetime.fromtimestamp(stamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{stamp.nanos:09d}Z ".encode()


def _at(line: Line) -> tuple[int, int]:
    return line.time.seconds, line.time.nanos


@dataclass(slots=True)
class _Place:
    """How far a log was read: the time of its last line, and how many lines have that time."""

    at: tuple[int, int] = (0, 0)
    count: int = 0
    # Lines to pass over, which were seen before.
    again: int = 0

    def fresh(self, lines: Sequence[Line]) -> list[Line]:
        """Those that were not seen yet."""
        found = []
        for line in lines:
            at = _at(line)
            if self.again and at == self.at:
                self.again -= 1
                continue
            self.again = 0
            self.count = self.count + 1 if at == self.at else 1
            self.at = at
            found.append(line)
        return found

    def resumed(self, request: pod_stream_pb2.LogsRequest) -> pod_stream_pb2.LogsRequest:
        """Asks for what has not been read."""
        made = pod_stream_pb2.LogsRequest()
        made.CopyFrom(request)
        if self.count:
            made.ClearField("tail_lines")
            made.since.seconds, made.since.nanos = self.at
            self.again = self.count
        return made


async def _lines(session: Session, source: _Source) -> AsyncGenerator[Sequence[Line], None]:
    """A log. One that is followed goes on when a server that went away is back."""
    streams = await session.streams()
    request, place, failures = source.request, _Place(), 0
    while True:
        try:
            async with aclosing(streams.logs(request)) as responses:
                async for response in responses:
                    failures = 0
                    fresh = place.fresh(response.lines)
                    if fresh:
                        yield fresh
            return
        except ApiError as error:
            failures += 1
            passing = error.reason is Reason.UNAVAILABLE and failures < _REPEATS
            if not (request.follow and place.count and passing):
                raise
        await session.clock.sleep(follow.RETRY_SECONDS)
        request = place.resumed(source.request)


async def _stream(session: Session, source: _Source, printer: _Printer) -> None:
    async with aclosing(_lines(session, source)) as lines:
        async for some in lines:
            printer.show(source, some)


@dataclass(slots=True)
class _Cursor:
    """The lines of one log that come next."""

    source: _Source
    responses: AsyncGenerator[Sequence[Line], None]
    lines: deque[Line] = field(default_factory=deque)
    error: ApiError | None = None

    async def fill(self) -> None:
        """Gets lines, if there are any more."""
        try:
            self.lines.extend(await anext(self.responses))
        except StopAsyncIteration:
            return
        except ApiError as error:
            self.error = error


async def _merged(session: Session, sources: Sequence[_Source], printer: _Printer) -> int:
    """Several logs as one, in the order of time."""
    async with AsyncExitStack() as stack:
        cursors = [_Cursor(source, _lines(session, source)) for source in sources]
        for cursor in cursors:
            await stack.enter_async_context(aclosing(cursor.responses))
        for at in range(0, len(cursors), _AT_ONCE):
            await asyncio.gather(*(cursor.fill() for cursor in cursors[at : at + _AT_ONCE]))
        heap = [(_at(c.lines[0]), index) for index, c in enumerate(cursors) if c.lines]
        heapq.heapify(heap)
        while heap:
            _, index = heapq.heappop(heap)
            cursor = cursors[index]
            # As long as no other log has anything older, or as old and first by name.
            until = heap[0] if heap else None
            run: list[Line] = []
            while cursor.lines and (until is None or (_at(cursor.lines[0]), index) < until):
                run.append(cursor.lines.popleft())
            printer.show(cursor.source, run)
            if not cursor.lines:
                await cursor.fill()
            if cursor.lines:
                heapq.heappush(heap, (_at(cursor.lines[0]), index))
    errors = [cursor.error for cursor in cursors if cursor.error is not None]
    for error in errors:
        session.say(f"error: {error.message}")
    return FAILED if errors else 0


async def _together(session: Session, sources: Sequence[_Source], printer: _Printer) -> int:
    """Several logs at once, each until its container ends."""
    code = 0

    def failed(error: Exception) -> None:
        nonlocal code
        code = FAILED
        session.say(f"error: {error}")

    async with Tasks() as tasks:
        for source in sources:
            tasks.supervise(_stream(session, source, printer), failed)
    return code


async def _follow_all(
    session: Session, kind: Kind, labels: str, wanted: _Wanted, printer: _Printer, limit: int
) -> int:
    """All logs of a selector, those of pods that come later too, until interrupted."""
    # By pod, container and restart: each instance has a log of its own.
    seen: set[tuple[str, str, int]] = set()
    following: set[tuple[str, str, int]] = set()

    async def one(key: tuple[str, str, int], source: _Source) -> None:
        try:
            await _stream(session, source, printer)
        except ApiError as error:
            # Of one that goes, nothing more is to be told.
            if error.reason is not Reason.NOT_FOUND:
                raise
        finally:
            following.discard(key)

    def failed(error: Exception) -> None:
        session.say(f"error: {error}")

    async with Tasks() as tasks:
        changes = follow.changes(session, kind, session.namespace, labels=labels)
        async with aclosing(changes):
            async for batch in changes:
                for pod, gone in zip(batch.objects, batch.gone, strict=True):
                    if gone:
                        continue
                    for name, restarts in _ready(pod, wanted):
                        key = (objects.metadata(pod).uid, name, restarts)
                        if key in seen:
                            continue
                        seen.add(key)
                        if len(following) == limit:
                            at = f"pod/{objects.metadata(pod).name}/{name}"
                            session.say(
                                f"error: {at} is left out: {limit} logs are being followed;"
                                " see --max-log-requests"
                            )
                            continue
                        following.add(key)
                        if len(seen) > 1:
                            printer.tell_apart()
                        source = _source(pod, name, wanted, whole=batch.live)
                        tasks.supervise(one(key, source), failed)
    return 0


def _ready(pod: Message, wanted: _Wanted) -> list[tuple[str, int]]:
    """Of the wanted containers those that have written or may be writing, and their restarts."""
    status: Any = getattr(pod, "status", None)
    started = {
        s.name: s.restart_count
        for s in (*status.init_container_statuses, *status.container_statuses)
        if s.state.HasField("running") or s.state.HasField("terminated")
    }
    names = [n or pod_of.default_container(pod) for n in _containers(pod, wanted)]
    return [(name, started[name]) for name in names if name in started]
