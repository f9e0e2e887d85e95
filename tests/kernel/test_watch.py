"""Watches of a real kernel: nine validators, while it is written, compacted and opened again."""

import asyncio
import contextlib
import pathlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.clock import LoopClock
from kcore.kernel import kernel as kernels
from kcore.kernel import schema
from kcore.kernel.record import Key, Record, Request
from kcore.kernel.store import Opened, Store, Tail, memory, sqlite
from kcore.wire.errors import ApiError, Reason
from tests.kernel import etcd_server, things, watch_validators
from tests.kernel.test_feed import SELECTIONS
from tests.kernel.things import KIND, thing

WRITERS, WATCHERS, TRANSACTIONS = 4, 12, 150


class Witness:
    """A store that remembers all that was appended to it, whatever has been compacted since."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.records: list[Record] = []

    @property
    def tail(self) -> Tail | None:
        return self._store.tail

    async def open(self) -> Opened:
        return await self._store.open()

    def replay(self) -> AsyncIterator[Record]:
        return self._store.replay()

    async def append(self, records: Sequence[Record], keep: Mapping[Key, int]) -> None:
        await self._store.append(records, keep)
        self.records += records

    async def requests(self) -> Sequence[Request]:
        return await self._store.requests()

    async def at(self, key: Key, revision: int) -> Record | None:
        return await self._store.at(key, revision)

    def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        return self._store.state_at(revision, kind, namespace)

    def since(self, revision: int) -> AsyncGenerator[Record, None]:
        return self._store.since(revision)

    async def transaction(self, revision: int) -> Sequence[Record]:
        return await self._store.transaction(revision)

    async def revision_at(self, time: float) -> int:
        return await self._store.revision_at(time)

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def close(self) -> None:
        await self._store.close()


class Watcher:
    """Follows selections for as long as it is told to, resuming at its last mark now and then."""

    def __init__(self, kernel: kernels.Kernel, draw: random.Random) -> None:
        self.kernel = kernel
        self.draw = draw
        self.chosen = draw.sample(range(len(SELECTIONS)), draw.randint(1, 3))
        # One for each stream: where it started, and what it told.
        self.streams: list[tuple[int, list[pb.WatchResponse]]] = []

    async def follow(self) -> None:
        start = 0
        while True:
            responses: list[pb.WatchResponse] = []
            self.streams.append((start, responses))
            selections = [
                pb.Selection(**{"kind": KIND} | SELECTIONS[one][0], from_revision=start)
                for one in self.chosen
            ]
            request = pb.WatchRequest(selections=selections, progress_ms=10)
            stream = self.kernel.watch(request)
            try:
                async with contextlib.aclosing(stream):
                    async for data in stream:
                        responses.append(pb.WatchResponse.FromString(data))
                        start = responses[-1].revision or start
                        if self.draw.random() < 0.05:
                            break
                        if self.draw.random() < 0.2:
                            await asyncio.sleep(self.draw.random() / 50)
            except ApiError as error:
                assert error.reason is Reason.GONE, error
                start = 0

    def check(self, records: Sequence[Record], head: int) -> int:
        assert self.streams[-1][1][-1].revision == head, "bookmarkable: the last mark is missing"
        checked = 0
        for start, responses in self.streams:
            asked = [
                watch_validators.Asked(
                    KIND, things.thing_class().FromString, SELECTIONS[one][1], start
                )
                for one in self.chosen
            ]
            checked += watch_validators.check(records, responses, asked, keeps_up=False)
        return checked


async def write(kernel: kernels.Kernel, draw: random.Random) -> None:
    for _ in range(TRANSACTIONS):
        transaction = pb.Transaction(manager="test")
        for _ in range(draw.randint(1, 3)):
            name, namespace = draw.choice("abc"), draw.choice("xy")
            labels = draw.choice([{}, {"app": "a"}, {"app": "b"}])
            color = draw.choice(["red", "green"])
            made = thing(name, namespace, color=color, labels=labels, replicas=draw.randint(0, 9))
            operation = transaction.operations.add()
            operation.ref.CopyFrom(pb.Ref(kind=KIND, namespace=namespace, name=name))
            if draw.random() < 0.25:
                operation.delete.SetInParent()
            elif draw.random() < 0.5:
                operation.update = made.SerializeToString()
            else:
                operation.apply.object = made.SerializeToString()
                operation.apply.force = True
        with contextlib.suppress(ApiError):
            await kernel.commit(pb.CommitRequest(transactions=[transaction]), "test")
        if draw.random() < 0.3:
            await asyncio.sleep(0.001)


async def compact(kernel: kernels.Kernel) -> None:
    while True:
        await asyncio.sleep(0.02)
        await kernel.compact(max(0, kernel.head - 20))


@pytest.mark.parametrize("sort", ["memory", "sqlite", "etcd"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_nine_validators_hold_on_a_real_kernel(
    sort: str, seed: int, tmp_path: pathlib.Path
) -> None:
    if sort == "memory":
        store = Witness(memory.MemoryStore(Chance(seed)))
    elif sort == "etcd":
        if not etcd_server.there():
            pytest.skip("etcd is not installed")
        store = Witness(etcd_server.shared().store())
    else:
        store = Witness(sqlite.SqliteStore(tmp_path / "log.db", LoopClock(), Chance(seed)))
    compiled = schema.compile_schema(things.descriptors())
    async with kernels.opened(store, compiled, {}, LoopClock(), Chance(seed)) as kernel:
        for name in "xy":
            namespace = pb.Transaction(manager="test")
            operation = namespace.operations.add()
            operation.ref.CopyFrom(pb.Ref(kind=schema.NAMESPACE, name=name))
            operation.create = b""
            await kernel.commit(pb.CommitRequest(transactions=[namespace]), "test")
        watchers = [Watcher(kernel, random.Random(f"{seed}/{n}")) for n in range(WATCHERS)]
        running: list[Any] = [asyncio.ensure_future(one.follow()) for one in watchers]
        running.append(asyncio.ensure_future(compact(kernel)))
        await asyncio.gather(
            *[write(kernel, random.Random(f"{seed}/w{n}")) for n in range(WRITERS)]
        )
        head = kernel.head
        await asyncio.sleep(0.3)
        for task in running:
            task.cancel()
        done = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in done), done
    # A test of an idle log proves nothing.
    assert head > WRITERS * TRANSACTIONS / 3
    assert sum(len(one.streams) for one in watchers) > WATCHERS * 2
    checked = sum(one.check(store.records, head) for one in watchers)
    assert checked > 2000
