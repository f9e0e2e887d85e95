"""`kcore logs`: what containers wrote, of one pod or of all that a selector or an owner has."""

import re
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli import follow, objects, options, rollouts, subject
from kcore.cli.rollout import selector_text
from kcore.cli.session import FAILED, Session
from kcore.client import codec
from kcore.client.kinds import Kind
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError

_COLORS: Final = ("\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[31m")
_PLAIN: Final = "\x1b[0m"


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
@click.option("--max-log-requests", type=click.IntRange(min=1), default=64, show_default=True,
              help="Most logs at once.")  # fmt: skip
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
    max_log_requests: int,
) -> int:
    """Show what containers wrote.

    \b
    kcore logs web-0 -f --tail=20
    kcore logs deploy/web -f
    kcore logs -l app=web --all-containers --prefix
    """
    container = container or container_argument
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
    pods = catalogue.of_type("v1", "Pod")
    asked = subject.one(target, catalogue, "pods") if target else None
    if asked is not None and asked.kind is pods:
        found = [await objects.get(session, pods, session.namespace, asked.name)]
        labels = ""
    else:
        if asked is not None:
            labels = await labels_of(session, asked)
        listing = await objects.listing(session, pods, session.namespace, labels=labels)
        found = listing.items
        if not found and not follows:
            session.say(f"No resources found in {session.namespace} namespace.")
            return 0
    printer = _Printer(session, wanted, prefix, several=bool(labels) and len(found) > 1)
    if labels and follows:
        return await _follow_all(session, pods, labels, wanted, printer, max_log_requests)
    sources = [(pod, name) for pod in found for name in _containers(pod, wanted)]
    if not follows or len(sources) == 1:
        code = 0
        for pod, name in sources:
            try:
                await _stream(session, pod, name, wanted, printer)
            except ApiError as error:
                if len(sources) == 1:
                    raise
                session.say(f"error: {error.message}")
                code = FAILED
        return code
    return await _together(session, sources[:max_log_requests], wanted, printer)


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


async def labels_of(session: Session, asked: subject.Subject) -> str:
    """The selector of the pods that an object stands for."""
    if not rollouts.has(asked.kind, "spec.selector"):
        raise click.UsageError(f"{asked.kind.options.plural} have no pods with logs")
    message = await objects.get(session, asked.kind, session.namespace, asked.name)
    spec = codec.to_plain(message).get("spec") or {}
    text = selector_text(spec.get("selector") or {})
    if not text:
        raise click.UsageError(f"{asked} selects no pods")
    return text


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

    def tell_apart(self) -> None:
        """More than one log is shown."""
        self._prefix = True

    def show(self, pod: str, container: str, lines: Sequence[pod_stream_pb2.LogLine]) -> None:
        """Some lines of one log."""
        head = self._head(pod, container) if self._prefix else b""
        data = bytearray()
        for line in lines:
            data += head
            if self._timestamps:
                data += _moment(line.time)
            data += line.text
            if head and not line.text.endswith(b"\n"):
                data += b"\n"
        self._session.write(bytes(data))

    def _head(self, pod: str, container: str) -> bytes:
        said = f"[pod/{pod}/{container}]"
        if self._colored:
            color = self._colors.setdefault(pod, _COLORS[len(self._colors) % len(_COLORS)])
            said = f"{color}{said}{_PLAIN}"
        return f"{said} ".encode()


def _moment(stamp: Timestamp) -> bytes:
    whole = datetime.fromtimestamp(stamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{stamp.nanos:09d}Z ".encode()


async def _stream(
    session: Session, pod: Message, container: str, wanted: _Wanted, printer: _Printer
) -> None:
    metadata = objects.metadata(pod)
    request = pod_stream_pb2.LogsRequest(
        target=pod_stream_pb2.Target(
            namespace=metadata.namespace, pod=metadata.name, container=container, uid=metadata.uid
        ),
        follow=wanted.follow,
        previous=wanted.previous,
        tail_lines=wanted.tail,
        since=wanted.since,
        limit_bytes=wanted.limit_bytes,
    )
    name = container or _default_container(pod)
    streams = await session.streams()
    async with aclosing(streams.logs(request)) as responses:
        async for response in responses:
            printer.show(metadata.name, name, response.lines)


def _default_container(pod: Message) -> str:
    metadata = objects.metadata(pod)
    named: str = metadata.annotations.get("kubectl.kubernetes.io/default-container", "")
    spec: Any = getattr(pod, "spec", None)
    return named or (spec.containers[0].name if spec.containers else "")


async def _together(
    session: Session,
    sources: Sequence[tuple[Message, str]],
    wanted: _Wanted,
    printer: _Printer,
) -> int:
    """Several logs at once, each until its container ends."""
    code = 0

    def failed(error: Exception) -> None:
        nonlocal code
        code = FAILED
        session.say(f"error: {error}")

    async with Tasks() as tasks:
        for pod, name in sources:
            tasks.supervise(_stream(session, pod, name, wanted, printer), failed)
    return code


async def _follow_all(
    session: Session, kind: Kind, labels: str, wanted: _Wanted, printer: _Printer, limit: int
) -> int:
    """All logs of a selector, those of pods that come later too, until interrupted."""
    seen: set[tuple[str, str]] = set()

    def failed(error: Exception) -> None:
        session.say(f"error: {error}")

    async with Tasks() as tasks:
        changes = follow.changes(session, kind, session.namespace, labels=labels)
        async with aclosing(changes):
            async for batch in changes:
                for pod, gone in zip(batch.objects, batch.gone, strict=True):
                    if gone:
                        continue
                    for name in _ready(pod, wanted):
                        key = (objects.metadata(pod).uid, name)
                        if key in seen:
                            continue
                        if len(seen) == limit:
                            session.say(f"error: more than {limit} logs; see --max-log-requests")
                        seen.add(key)
                        if len(seen) > limit:
                            continue
                        if len(seen) > 1:
                            printer.tell_apart()
                        tasks.supervise(_stream(session, pod, name, wanted, printer), failed)
    return 0


def _ready(pod: Message, wanted: _Wanted) -> list[str]:
    """Of the wanted containers those that have written or may be writing."""
    status: Any = getattr(pod, "status", None)
    started = {
        s.name
        for s in (*status.init_container_statuses, *status.container_statuses)
        if s.state.HasField("running") or s.state.HasField("terminated")
    }
    names = [n or _default_container(pod) for n in _containers(pod, wanted)]
    return [name for name in names if name in started]
