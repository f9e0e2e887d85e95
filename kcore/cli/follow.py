"""Following objects: the Watch verb as the commands want it, resumed when the server goes away.

`changes` yields what is there, then what changes; `until` waits for a condition on one object;
`within` bounds any waiting.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import objects
from kcore.cli.session import NOT_READY, Exit, Session
from kcore.client.kinds import Kind
from kcore.wire.errors import ApiError, Reason

T = TypeVar("T")

RETRY_SECONDS: Final = 1.0
# How often the server says that nothing happened.
_PROGRESS_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Changes:
    """Objects that are new or have changed, and those that are gone, up to a revision."""

    # In the order of revisions; of one that is gone the last state.
    objects: list[Message]
    # What happened to each of them: ADDED, MODIFIED, DELETED of pb.Event.
    types: list[pb.Event.Type]
    revision: int
    # These happened after what was there at first.
    live: bool
    # With these, all that was there at first has been said.
    synced: bool
    # What was said before no longer counts: it is being said again from the start.
    again: bool = False

    @property
    def gone(self) -> list[bool]:
        """Whether each of them is gone."""
        return [type_ == pb.Event.DELETED for type_ in self.types]


async def changes(
    session: Session,
    kind: Kind,
    namespace: str,
    *,
    names: Iterable[str] = (),
    labels: str = "",
    fields: str = "",
    from_revision: int = 0,
) -> AsyncGenerator[Changes, None]:
    """What is there (or has changed since the revision), then every change, for ever."""
    api = await session.api()
    selection = pb.Selection(
        kind=kind.full_name,
        namespace=objects.namespace_of(kind, namespace),
        names=names,
        labels=labels,
        fields=fields,
    )
    synced = from_revision > 0
    again = False
    while True:
        selection.from_revision = from_revision
        request = pb.WatchRequest(selections=[selection], progress_ms=_PROGRESS_MS)
        responses: Any = api.watch(request)
        try:
            async with aclosing(responses):
                async for response in responses:
                    live = synced
                    synced = synced or response.synced
                    if synced:
                        from_revision = response.revision
                    yield Changes(
                        [kind.parse(event.object) for event in response.events],
                        [event.type for event in response.events],
                        response.revision,
                        live,
                        synced,
                        again,
                    )
                    again = False
        except ApiError as error:
            if error.reason is Reason.GONE:
                from_revision, synced, again = 0, False, True
            elif error.reason is not Reason.UNAVAILABLE or not synced:
                raise
        await session.clock.sleep(RETRY_SECONDS)


async def until(
    session: Session,
    kind: Kind,
    namespace: str,
    name: str,
    holds: Callable[[Message | None], bool],
) -> Message | None:
    """Waits until the condition holds of the object (None: it is not there); returns it."""
    last: Message | None = None
    async with aclosing(changes(session, kind, namespace, names=[name])) as found:
        async for batch in found:
            if batch.again:
                last = None
            for message, gone in zip(batch.objects, batch.gone, strict=True):
                last = None if gone else message
                if batch.live and holds(last):
                    return last
            if batch.synced and not batch.live and holds(last):
                return last
    return last


async def within(work: Awaitable[T], timeout_seconds: float | None, late: Callable[[], str]) -> T:
    """The work's value; exit code 3, saying `late()`, when it takes too long. None: for ever."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await work
    except TimeoutError:
        raise Exit(NOT_READY, late()) from None
