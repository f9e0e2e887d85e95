"""A server of a world in memory, with faults on demand: answers that are lost, streams that break,
a past that is gone. It speaks the five verbs in process; the loop can't tell."""

import asyncio
import pathlib
from collections.abc import AsyncIterator

from google.protobuf import descriptor_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.clock import LoopClock
from kcore.reconcile.view import Name
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason
from tests.controllers.world import CLASSES, World

KINDS = pathlib.Path(__file__).parents[2] / "generated" / "kinds.binpb"


class Server:
    """An Api over a world."""

    def __init__(self, world: World, clock: LoopClock) -> None:
        self.world = world
        self.cluster_id = "c1"
        self.epoch = 1
        # Kinds that are not served, by the message's name.
        self.hidden: tuple[str, ...] = ()
        self.commits = 0
        self.requests: list[pb.CommitRequest] = []
        # Answers to lose, after applying; and before applying.
        self.lose = 0
        self.refuse = 0
        # Refuses creations of a kind.
        self.full: str = ""
        # Resuming below this revision is refused.
        self.floor = 0
        # Nobody answers; watches break.
        self.away = False
        # How much later a watch tells.
        self.lag_seconds = 0.0
        # Each revision by itself.
        self.one_by_one = False
        self._clock = clock
        self._broken = 0
        self._moved = asyncio.Event()
        self._answered: dict[str, pb.TransactionResult] = {}

    def touch(self) -> None:
        """Something was changed directly in the world."""
        self._moved.set()
        self._moved = asyncio.Event()

    def break_streams(self) -> None:
        """Every watch ends as if the connection had."""
        self._broken += 1
        self.touch()

    def leave(self) -> None:
        """As if it were down, until it is told otherwise."""
        self.away = True
        self.break_streams()

    def _answer(self) -> None:
        if self.away:
            raise ApiError(Reason.UNAVAILABLE, "nobody answers")

    async def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        self._answer()
        digest = f"without {self.hidden}"
        answer = pb.KindsResponse(digest=digest, cluster_id=self.cluster_id, epoch=self.epoch)
        if request.digest != digest:
            files = descriptor_pb2.FileDescriptorSet.FromString(KINDS.read_bytes())
            for file in files.file:
                kept = [each for each in file.message_type if each.name not in self.hidden]
                del file.message_type[:]
                file.message_type.extend(kept)
            answer.descriptors.CopyFrom(files)
        return answer

    async def get(self, request: pb.GetRequest) -> pb.GetResponse:
        name = Name(request.ref.kind, request.ref.namespace, request.ref.name)
        found = self.world.objects.get(name)
        if found is None:
            raise ApiError(Reason.NOT_FOUND, f"{name} not found")
        return pb.GetResponse(object=found.SerializeToString(), revision=self.world.revision)

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        # How far the log is; nobody here asks for more.
        self._answer()
        assert request.page_size == 1
        answer = pb.ListResponse()
        answer.metadata.resource_version = str(self.world.revision)
        return answer

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
        self._answer()
        world, broken = self.world, self._broken
        place = {each.kind: index for index, each in enumerate(request.selections)}
        since = request.selections[0].from_revision
        if since:
            if not self.floor <= since <= world.revision:
                raise ApiError(Reason.GONE, f"{since} is gone")
        else:
            since = world.revision
            objects = [
                pb.Event(
                    type=pb.Event.ADDED,
                    object=world.objects[name].SerializeToString(),
                    revision=since,
                    selection=place[name.kind],
                )
                for name in sorted(world.objects)
                if name.kind in place
            ]
            half = len(objects) // 2
            yield pb.WatchResponse(revision=0, events=objects[:half])
            yield pb.WatchResponse(revision=since, events=objects[half:], synced=True)
        while True:
            if broken != self._broken:
                raise ApiError(Reason.UNAVAILABLE, "connection lost")
            if world.revision > since:
                if self.lag_seconds:
                    await self._clock.sleep(self.lag_seconds)
                head = since + 1 if self.one_by_one else world.revision
                events = []
                for kind, event in world.history:
                    if since < event.revision <= head and kind in place:
                        events.append(pb.Event())
                        events[-1].CopyFrom(event)
                        events[-1].selection = place[kind]
                since = head
                yield pb.WatchResponse(revision=head, events=events)
            else:
                await self._moved.wait()

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        self._answer()
        self.commits += 1
        self.requests.append(request)
        await asyncio.sleep(0.001)
        if self.refuse:
            self.refuse -= 1
            raise ApiError(Reason.UNAVAILABLE, "not now")
        answer = pb.CommitResponse()
        for transaction in request.transactions:
            answer.results.append(self._do(transaction))
        self.touch()
        if self.lose:
            self.lose -= 1
            raise ApiError(Reason.UNAVAILABLE, "answer lost")
        if len(answer.results) == 1 and answer.results[0].HasField("error"):
            raise errors.from_status(answer.results[0].error)
        return answer

    def _do(self, transaction: pb.Transaction) -> pb.TransactionResult:
        known = self._answered.get(transaction.request_id)
        if known is not None:
            return known
        result = pb.TransactionResult()
        try:
            for operation in transaction.operations:
                assert operation.ref.kind in CLASSES
                if operation.HasField("create") and operation.ref.kind == self.full:
                    raise ApiError(Reason.FORBIDDEN, "exceeded quota")
            self.world.now = self._clock.now()
            result.revision = self.world.do(transaction)
        except ApiError as error:
            result.error.CopyFrom(errors.to_status(error))
        self._answered[transaction.request_id] = result
        return result
