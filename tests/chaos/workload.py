"""Clients that write, read and follow, over real gRPC, and write down what they saw.

All work on ConfigMaps of one namespace, few enough to meet. Writers create, replace, apply, delete,
alone and in batches, guarded and not, one object and two at once; what is unknown some ask again
with the same request id until they know, and some leave. Each value is written once in the world,
so that a state tells which write made it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, namespace_pb2

from kcore.client import channel
from kcore.client.kubeconfig import Target
from kcore.kernel.record import Key, Record
from kcore.wire.errors import ApiError, Reason, from_status
from tests.chaos.history import History, Outcome, Read, Write, now
from tests.kernel import watch_validators

# What the history's writes say of their writer; all others are the setting.
MANAGER = "chaos"
KIND = config_map_pb2.ConfigMap.DESCRIPTOR.full_name
SPACE = "chaos"
KEYS = [Key(KIND, SPACE, f"c{n}") for n in range(24)]
_LABELS: Sequence[dict[str, str]] = ({}, {"app": "a"}, {"app": "b"}, {"app": "a", "tier": "x"})
# How long one keeps asking what became of a write.
_PATIENCE_SECONDS = 30.0
_AGAIN_SECONDS = 0.05

# What a selection asks for, and the same said without the code under test.
SELECTIONS: Sequence[tuple[dict[str, Any], Callable[[Any], bool]]] = (
    ({"namespace": SPACE}, lambda one: True),
    ({"labels": "app=a"}, lambda one: one.metadata.labels.get("app") == "a"),
    (
        {"labels": "app in (b), !tier"},
        lambda one: one.metadata.labels.get("app") == "b" and "tier" not in one.metadata.labels,
    ),
    ({"labels": "tier!=x"}, lambda one: one.metadata.labels.get("tier") != "x"),
    ({"namespace": SPACE, "names": ["c1", "c2"]}, lambda one: one.metadata.name in ("c1", "c2")),
    ({"fields": "metadata.name=c3"}, lambda one: one.metadata.name == "c3"),
)


@asynccontextmanager
async def dialled(socket: str, deadline_seconds: float = 10.0) -> AsyncIterator[channel.Channel]:
    """A channel that knows which cluster it means, so that another one refuses it."""
    async with channel.connect(Target(unix=socket)) as one:
        one._deadline_seconds = deadline_seconds
        while True:
            try:
                await one.kinds(pb.KindsRequest())
                break
            except ApiError as error:
                if error.reason is not Reason.UNAVAILABLE:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
        yield one


async def make_space(api: channel.Channel) -> None:
    """The namespace that all is in."""
    made = namespace_pb2.Namespace()
    made.metadata.name = SPACE
    operation = pb.Operation(ref=pb.Ref(kind=namespace_pb2.Namespace.DESCRIPTOR.full_name))
    operation.create = made.SerializeToString()
    try:
        await api.commit(pb.CommitRequest(transactions=[pb.Transaction(operations=[operation])]))
    except ApiError as error:
        if error.reason is not Reason.ALREADY_EXISTS:
            raise


@dataclass
class Workload:
    """Clients of one server, and what they have seen."""

    socket: str
    seed: int
    history: History = field(default_factory=History)
    # What no server may say.
    complaints: list[str] = field(default_factory=list)
    deadline_seconds: float = 10.0
    # Transactions in a request, at most.
    batch: int = 4
    _known: dict[Key, int] = field(default_factory=dict)
    _seen: int = 0
    _made: int = 0

    async def write(self, name: str, until: Callable[[], bool]) -> None:
        """One writer."""
        draw = random.Random(f"{self.seed}/writer/{name}")
        async with dialled(self.socket, self.deadline_seconds) as api:
            while not until():
                batch = [self._transaction(draw) for _ in range(draw.randint(1, self.batch))]
                await self.send(api, batch, patient=draw.random() < 0.7)

    async def read(self, name: str, until: Callable[[], bool]) -> None:
        """One reader, of the present and of the past."""
        draw = random.Random(f"{self.seed}/reader/{name}")
        async with dialled(self.socket, self.deadline_seconds) as api:
            while not until():
                past = draw.random() < 0.2 and self._seen
                at = max(1, self._seen - draw.randrange(200)) if past else None
                key = draw.choice(KEYS) if draw.random() < 0.6 else None
                try:
                    await self._look(api, key, at)
                except ApiError as error:
                    if error.reason is Reason.UNAVAILABLE:
                        await asyncio.sleep(_AGAIN_SECONDS)
                    elif error.reason is not Reason.GONE or at is None:
                        self.complaints.append(f"read of {key} at {at}: {error!r}")
                    self._listen(error)

    async def send(
        self,
        api: channel.Channel,
        batch: Sequence[tuple[Write, pb.Transaction]],
        patient: bool,
    ) -> None:
        """Sends transactions, and again while it is unknown what became of them."""
        self.history.writes += [write for write, _ in batch]
        doubted: set[str] = set()
        for write, _ in batch:
            write.sent = now()
        give_up = now() + _PATIENCE_SECONDS
        while True:
            request = pb.CommitRequest(transactions=[transaction for _, transaction in batch])
            said: Sequence[ApiError | pb.TransactionResult]
            try:
                said = _results(await api.commit(request))
            except ApiError as error:
                said = [error] * len(batch)
            left = []
            for (write, transaction), answer in zip(batch, said, strict=True):
                write.returned = now()
                if not self._settle(write, answer, write.request_id in doubted):
                    left.append((write, transaction))
            doubted |= {write.request_id for write, _ in left}
            batch = left
            if not batch or not patient or now() > give_up:
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    def _settle(
        self, write: Write, answer: "ApiError | pb.TransactionResult", doubted: bool
    ) -> bool:
        """Writes down an answer; False where it says nothing."""
        if isinstance(answer, ApiError):
            self._listen(answer)
            write.said = answer.message
            if answer.reason is Reason.UNAVAILABLE:
                return False
            # What was refused now may have been done by the call of which nothing was heard, when
            # that is still on its way.
            write.outcome = Outcome.UNKNOWN if doubted else Outcome.FAILED
            return True
        write.outcome, write.revision = Outcome.OK, answer.revision
        write.changed = any(one.changed for one in answer.operations)
        self._seen = max(self._seen, write.revision)
        for key in write.keys:
            self._known[key] = write.revision
        return True

    def _listen(self, error: ApiError) -> None:
        if "internal error" in error.message or error.reason is Reason.REFUSED:
            self.complaints.append(f"the server said: {error!r}")

    def _transaction(self, draw: random.Random) -> tuple[Write, pb.Transaction]:
        self._made += 1
        request_id = f"{self.seed}-{self._made}"
        transaction = pb.Transaction(request_id=request_id, manager=MANAGER)
        keys: dict[Key, int | None] = {}
        for key in draw.sample(KEYS, 2 if draw.random() < 0.15 else 1):
            guard = self._known.get(key) if draw.random() < 0.3 else None
            if guard:
                ref = pb.Ref(kind=KIND, namespace=SPACE, name=key.name)
                transaction.guards.add(ref=ref, revision=guard)
            keys[key] = guard or None
            self._operation(draw, transaction, key, f"{request_id}/{key.name}")
        return Write(request_id, keys, 0.0), transaction

    def _operation(
        self, draw: random.Random, transaction: pb.Transaction, key: Key, value: str
    ) -> None:
        labels = draw.choice(_LABELS)
        made = config_map_pb2.ConfigMap(data={"value": value, "pad": "x" * draw.randrange(200)})
        made.metadata.name, made.metadata.namespace = key.name, SPACE
        made.metadata.labels.update(labels)
        operation = transaction.operations.add(
            ref=pb.Ref(kind=KIND, namespace=SPACE, name=key.name)
        )
        what = draw.random()
        if what < 0.2:
            operation.delete.SetInParent()
        elif what < 0.45:
            operation.create = made.SerializeToString()
        elif what < 0.75:
            operation.update = made.SerializeToString()
        else:
            operation.apply.object = made.SerializeToString()
            operation.apply.force = True

    async def _look(self, api: channel.Channel, key: Key | None, at: int | None) -> None:
        sent = now()
        when = pb.At(revision=at) if at is not None else None
        if key is None:
            selection = pb.Selection(kind=KIND, namespace=SPACE)
            answer = await api.list(pb.ListRequest(selection=selection, at=when))
            found = {_key(body): body for body in answer.items}
            revision, name = int(answer.metadata.resource_version), None
        else:
            ref = pb.Ref(kind=KIND, namespace=SPACE, name=key.name)
            name = key.name
            try:
                got = await api.get(pb.GetRequest(ref=ref, at=when))
                revision, found = got.revision, {key: got.object}
            except ApiError as error:
                if error.reason is not Reason.NOT_FOUND:
                    raise
                revision, found = 0, {}
        self.history.reads.append(Read(KIND, SPACE, name, sent, now(), revision, found, at))
        self._seen = max(self._seen, revision)


@dataclass
class Watcher:
    """Follows some selections, for as long as it is told to; resumes where it broke."""

    socket: str
    draw: random.Random
    complaints: list[str]
    # Rests so long after each message.
    slow_seconds: float = 0.0
    # How often it leaves by itself and comes back; in a message.
    leaves: float = 0.02
    # It comes back into the past, at most so many revisions.
    returns: int = 500
    chosen: list[int] = field(default_factory=list)
    # It asks for labels only.
    masked: bool = False
    # One for each stream: where it started, and what it was told.
    streams: list[tuple[int, list[pb.WatchResponse]]] = field(default_factory=list)
    # How often its past was gone.
    gone: int = 0

    def __post_init__(self) -> None:
        self.chosen = self.draw.sample(range(len(SELECTIONS)), self.draw.randint(1, 3))

    async def follow(self) -> None:
        """Until cancelled."""
        start = 0
        async with dialled(self.socket) as api:
            while True:
                try:
                    start = await self._stream(api, start)
                    if self.draw.random() < 0.3:
                        # Into the past.
                        start = max(1, start - self.draw.randrange(self.returns))
                except ApiError as error:
                    if error.reason is Reason.GONE and "too old" in error.message:
                        self.gone += 1
                        start = 0
                    elif error.reason is Reason.UNAVAILABLE and "internal" not in error.message:
                        start = self.mark()
                        if start and self.draw.random() < 0.5:
                            start = max(1, start - self.draw.randrange(self.returns))
                        await asyncio.sleep(_AGAIN_SECONDS)
                    else:
                        self.complaints.append(f"a watch from {start}: {error!r}")
                        return

    def check(self, log: watch_validators.Held) -> int:
        """Holds what it was told against the log; how many events it checked."""
        checked = 0
        for start, responses in self.streams:
            asked = [
                watch_validators.Asked(
                    KIND, decoded, SELECTIONS[one][1], start, _labels if self.masked else None
                )
                for one in self.chosen
            ]
            checked += watch_validators.check(log, responses, asked, keeps_up=False)
        return checked

    def mark(self) -> int:
        """Up to where it has been told all."""
        for start, responses in reversed(self.streams):
            if responses and responses[-1].revision:
                synced = start or any(one.synced for one in responses)
                return responses[-1].revision if synced else 0
        return 0

    async def _stream(self, api: channel.Channel, start: int) -> int:
        responses: list[pb.WatchResponse] = []
        self.streams.append((start, responses))
        request = pb.WatchRequest(progress_ms=50)
        for one in self.chosen:
            request.selections.add(kind=KIND, from_revision=start, **SELECTIONS[one][0])
        if self.masked:
            request.mask.paths.append("metadata.labels")
        synced = bool(start)
        async with aclosing(api.watch(request)) as told:
            async for response in told:
                responses.append(response)
                synced = synced or response.synced
                if synced and self.draw.random() < self.leaves:
                    return response.revision
                if self.slow_seconds:
                    await asyncio.sleep(self.slow_seconds)
        return self.mark()


def told(readers: Sequence[Watcher], log: Sequence[Record]) -> tuple[int, list[str]]:
    """How many events they were told, held against the log, and what was wrong with them."""
    held = watch_validators.Held(log)
    checked, complaints = 0, []
    for number, one in enumerate(readers):
        try:
            checked += one.check(held)
        except AssertionError as error:
            complaints.append(f"watcher {number}: {str(error)[:300]}")
    return checked, complaints


@lru_cache(maxsize=200_000)
def decoded(body: bytes) -> Any:
    """An object; not to be changed."""
    return config_map_pb2.ConfigMap.FromString(body)


def _labels(message: Any) -> Any:
    """What a mask of the labels leaves: these, and what says which object it is."""
    left = config_map_pb2.ConfigMap()
    for name in ("name", "namespace", "uid", "resource_version"):
        setattr(left.metadata, name, getattr(message.metadata, name))
    left.metadata.labels.update(message.metadata.labels)
    return left


def _key(body: bytes) -> Key:
    metadata = decoded(body).metadata
    return Key(KIND, metadata.namespace, metadata.name)


def _results(response: pb.CommitResponse) -> list[ApiError | pb.TransactionResult]:
    return [from_status(one.error) if one.HasField("error") else one for one in response.results]


async def all_of(work: Iterable[Any]) -> None:
    """Together; the first that fails ends all."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
