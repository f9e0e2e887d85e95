"""The kernel as a whole: one writer for many, what is durable and what is seen, failures, age."""

import asyncio
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.coordination.v1 import lease_pb2
from kcore_api.kcore.core.v1 import event_pb2

from kcore import admission
from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel import kernel
from kcore.kernel.record import Key, Record, Verb
from kcore.kernel.replica import Replica
from kcore.kernel.store import Full, Opened, Refused, Store
from kcore.kernel.store.memory import MemoryStore
from kcore.kernel.store.sqlite import SqliteStore
from kcore.wire.errors import ApiError, Reason
from tests import budget
from tests.kernel import etcd_server
from tests.kernel import world as worlds
from tests.kernel.test_commit import pool
from tests.kernel.world import (
    CONFIG_MAP,
    EVENT,
    LEASE,
    NODE,
    POD,
    POOL,
    World,
    config_map,
    namespace,
    pod,
    refused,
)


class FaultyStore(MemoryStore):
    """A log whose appends fail when told to, before or after they have been made."""

    def __init__(self) -> None:
        super().__init__(Chance(4))
        self.failures: list[str] = []
        self.batches: list[int] = []
        self.gate: asyncio.Event | None = None

    async def append(self, records: Sequence[Record], keep: Mapping[Key, int]) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.batches.append(len(records))
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "full":
            raise Full("no space left")
        if failure == "before":
            raise OSError("sync failed")
        await super().append(records, keep)
        if failure == "after":
            raise OSError("sync failed")
        if failure == "amnesia":
            self.__dict__.update(MemoryStore(Chance(4)).__dict__)
            raise OSError("sync failed")


async def log_of(store: Store) -> list[Record]:
    return [record async for record in store.replay()]


async def test_what_waits_shares_a_sync() -> None:
    store = FaultyStore()
    async with worlds.world(store) as w:
        store.gate = asyncio.Event()
        first = asyncio.create_task(w.create(CONFIG_MAP, config_map("first")))
        await asyncio.sleep(0)
        others = [asyncio.create_task(w.create(CONFIG_MAP, config_map(f"c{i}"))) for i in range(20)]
        await asyncio.sleep(0)
        store.batches.clear()
        store.gate.set()
        await asyncio.gather(first, *others)
        assert store.batches == [1, 20]
        revisions = [int((await one).metadata.resource_version) for one in others]
        assert revisions == list(range(revisions[0], revisions[0] + 20))


async def test_nobody_sees_what_is_not_durable() -> None:
    store = FaultyStore()
    async with worlds.world(store) as w:
        head = w.head
        store.gate = asyncio.Event()
        writing = asyncio.create_task(w.create(CONFIG_MAP, config_map("a")))
        for _ in range(5):
            await asyncio.sleep(0)
        assert w.head == head and not w.there(CONFIG_MAP, "a")
        # A refusal that rests on it waits, too.
        again = asyncio.create_task(w.create(CONFIG_MAP, config_map("a")))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not writing.done() and not again.done()
        store.gate.set()
        await writing
        with refused(Reason.ALREADY_EXISTS, "already exists"):
            await again


@pytest.mark.parametrize(("failure", "applied"), [("before", False), ("after", True)])
async def test_a_failed_sync_is_an_unknown_outcome(failure: str, applied: bool) -> None:
    store = FaultyStore()
    async with worlds.world(store) as w:
        request = pb.WatchRequest()
        request.selections.add(kind=CONFIG_MAP, namespace="default")
        seen: list[Any] = []

        async def watch() -> None:
            async for data in w.kernel.watch(request):
                seen.extend(pb.WatchResponse.FromString(data).events)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        head = w.head
        create = worlds.create(CONFIG_MAP, config_map("a"))
        store.failures = [failure]
        with refused(Reason.UNAVAILABLE, "may have been applied"):
            await w.run(create, request_id="r1")
        assert w.head == head + applied
        assert w.there(CONFIG_MAP, "a") == applied
        # The same request, asked again, is answered either way.
        result = await w.run(create, request_id="r1")
        assert result.revision == head + 1 and result.operations[0].changed
        await w.create(CONFIG_MAP, config_map("b"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert [event.revision for event in seen] == [head + 1, head + 2]
        watching.cancel()


async def test_while_the_store_is_opened_again_nothing_is_answered() -> None:
    store = FaultyStore()
    async with worlds.world(store) as w:
        release = asyncio.Event()
        open_again = store.open

        async def slow() -> Opened:
            await release.wait()
            return await open_again()

        store.open = slow  # type: ignore[method-assign]
        store.failures = ["before"]
        writing = asyncio.create_task(w.create(CONFIG_MAP, config_map("a")))
        for _ in range(10):
            await asyncio.sleep(0)
        with refused(Reason.UNAVAILABLE, "the store failed and is being opened again"):
            w.there(CONFIG_MAP, "a")
        with refused(Reason.UNAVAILABLE, "the store failed"):
            await w.create(CONFIG_MAP, config_map("b"))
        release.set()
        with refused(Reason.UNAVAILABLE, "may have been applied"):
            await writing
        await w.create(CONFIG_MAP, config_map("b"))


async def test_a_store_that_has_forgotten_is_not_served() -> None:
    store = FaultyStore()
    with pytest.raises(Refused, match="revision 1 was acknowledged: it has lost writes"):
        async with worlds.world(store) as w:
            store.failures = ["amnesia"]
            with refused(Reason.UNAVAILABLE, "may have been applied"):
                await w.create(CONFIG_MAP, config_map("a"))
            await asyncio.sleep(10)


async def test_a_full_disk_is_survived() -> None:
    store = FaultyStore()
    async with worlds.world(store) as w:
        head = w.head
        store.failures = ["full"]
        with refused(Reason.EXHAUSTED, "the disk is full"):
            await w.create(CONFIG_MAP, config_map("a"))
        assert w.head == head and not w.there(CONFIG_MAP, "a")
        await w.create(CONFIG_MAP, config_map("a"))


async def test_a_fault_in_one_transaction_is_that_ones_alone() -> None:
    def broken(obj: Any, old: Any, read: Any) -> None:
        if obj.metadata.name == "bad":
            raise ZeroDivisionError("a bug")

    table = {**admission.BY_KIND, CONFIG_MAP: broken}
    clock = worlds.HandClock()
    store = MemoryStore(Chance(1))
    async with kernel.opened(store, worlds.kinds(), table, clock, Chance(1)) as opened:
        w = World(opened, clock)
        await w.create(worlds.NAMESPACE, namespace("default"))
        bad = asyncio.create_task(w.create(CONFIG_MAP, config_map("bad")))
        good = asyncio.create_task(w.create(CONFIG_MAP, config_map("good")))
        with pytest.raises(ZeroDivisionError):
            await bad
        await good
        assert w.there(CONFIG_MAP, "good") and not w.there(CONFIG_MAP, "bad")


async def test_who_has_gone_is_not_written_for() -> None:
    store = FaultyStore()
    async with worlds.world(store) as w:
        store.gate = asyncio.Event()
        first = asyncio.create_task(w.create(CONFIG_MAP, config_map("first")))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(w.create(CONFIG_MAP, config_map("gone")))
        for _ in range(5):
            await asyncio.sleep(0)
        waiting.cancel()
        first.cancel()
        await asyncio.sleep(0)
        store.gate.set()
        await w.create(CONFIG_MAP, config_map("last"))
        # What had begun is done all the same.
        assert w.there(CONFIG_MAP, "first") and not w.there(CONFIG_MAP, "gone")


async def test_the_queue_is_bounded() -> None:
    store = FaultyStore()
    async with worlds.world(store) as w:
        store.gate = asyncio.Event()
        big = config_map("a", k="x" * (1 << 20))
        writing = [asyncio.create_task(w.create(CONFIG_MAP, big), name=str(i)) for i in range(100)]
        for _ in range(5):
            await asyncio.sleep(0)
        full = [one for one in writing if one.done()]
        assert 30 < len(full) < 50
        with refused(Reason.EXHAUSTED, "too many transactions are waiting"):
            await full[0]
        store.gate.set()
        await asyncio.gather(*writing, return_exceptions=True)


async def test_at_the_end_everybody_is_answered() -> None:
    store = FaultyStore()
    async with worlds.world(store) as w:
        store.gate = asyncio.Event()
        writing = [
            asyncio.create_task(w.create(CONFIG_MAP, config_map(f"c{i}"))) for i in range(300)
        ]
        for _ in range(5):
            await asyncio.sleep(0)
    for one in writing:
        with pytest.raises(ApiError) as caught:
            await one
        assert caught.value.reason is Reason.UNAVAILABLE
    with refused(Reason.UNAVAILABLE, "not open"):
        w.there(CONFIG_MAP, "c1")


async def test_kinds_are_told_once() -> None:
    async with worlds.world() as w:
        told = w.kernel.kinds(pb.KindsRequest())
        assert told.descriptors.file and told.cluster_id == w.kernel.cluster_id
        assert told.limits.object_bytes == 3 << 19
        again = w.kernel.kinds(pb.KindsRequest(digest=told.digest))
        assert not again.descriptors.file and again.digest == told.digest


# Age.


class TickingClock(worlds.HandClock):
    """Sleepers wake when the clock is moved past their time."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        if not seconds:
            await asyncio.sleep(0)
            return
        waking = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.at + seconds, waking))
        await waking

    async def move(self, seconds: float) -> None:
        end = self.at + seconds
        while True:
            for _ in range(30):
                await asyncio.sleep(0)
            self._sleepers = [one for one in self._sleepers if not one[1].done()]
            due = [one for one in self._sleepers if one[0] <= end]
            if not due:
                break
            at, waking = min(due, key=lambda one: one[0])
            self.at = max(self.at, at)
            waking.set_result(None)
        self.at = end


def event(name: str) -> Any:
    return event_pb2.Event(
        metadata={"name": name, "namespace": "default"},
        involved_object={"kind": "Pod", "name": "p", "namespace": "default"},
        reason="Tested",
        type="Normal",
    )


async def test_events_are_gone_after_an_hour() -> None:
    clock = TickingClock()
    async with worlds.world(clock=clock) as w:
        await w.create(EVENT, event("old"))
        await clock.move(1800)
        await w.create(EVENT, event("young"))
        await w.update(EVENT, event("young"))
        await clock.move(1900)
        assert not w.there(EVENT, "old") and w.there(EVENT, "young")
        await clock.move(3600)
        assert not w.there(EVENT, "young")


async def test_the_log_goes_back_an_hour() -> None:
    clock = TickingClock()
    store = MemoryStore(Chance(3))
    async with worlds.world(store, clock=clock) as w:
        for index in range(5):
            await w.update(CONFIG_MAP, (await w.create(CONFIG_MAP, config_map(f"a{index}"))))
            await w.update(CONFIG_MAP, config_map(f"a{index}", k="v"))
        await w.delete(CONFIG_MAP, "a0")
        records = len(await log_of(store))
        await clock.move(3500)
        assert len(await log_of(store)) == records
        await w.create(CONFIG_MAP, config_map("late"))
        await clock.move(200)
        left = await log_of(store)
        assert {one.key.name for one in left} == {"default", "late", "a1", "a2", "a3", "a4"}
        assert len(left) == 6
        with refused(Reason.GONE, ""):
            await w.kernel.get(
                pb.GetRequest(ref=worlds.ref(CONFIG_MAP, "a1"), at=pb.At(revision=2))
            )


async def test_leases_keep_no_past() -> None:
    store = MemoryStore(Chance(3))
    async with worlds.world(store) as w:
        lease = lease_pb2.Lease(metadata={"name": "l", "namespace": "default"})
        await w.create(LEASE, lease)
        for index in range(10):
            lease.spec.renew_time.seconds = index + 1
            await w.update(LEASE, lease)
        assert len([one for one in await log_of(store) if one.key.kind == LEASE]) == 1
        await w.delete(LEASE, "l")
        (last,) = [one for one in await log_of(store) if one.key.kind == LEASE]
        assert last.verb is Verb.DELETE


# Laws.


NAMES = ("a", "b", "c")


@st.composite
def operations(draw: Any) -> pb.Operation:
    """Some write to one of few objects."""
    name = draw(st.sampled_from(NAMES))
    what = draw(st.integers(0, 9))
    if what == 0:
        return worlds.delete(CONFIG_MAP, name)
    if what == 1:
        return worlds.delete(POD, name, grace_seconds=draw(st.integers(0, 3)))
    if what == 2:
        return worlds.delete(NODE, name)
    if what == 3:
        return worlds.create(NODE, _node(name))
    if what in (4, 5):
        made = pod(name, node_name=draw(st.sampled_from(["", "n"])))
        if draw(st.booleans()):
            made.metadata.finalizers.append("a/b")
        return worlds.create(POD, made) if what == 4 else worlds.update(POD, made)
    if what == 6:
        made = pod(name)
        made.status.phase = draw(st.sampled_from(["Running", "Failed"]))
        return worlds.update(POD, made, "status")
    made = config_map(name, k=draw(st.sampled_from(["1", "2"])))
    made.metadata.labels["l"] = draw(st.sampled_from(["x", "y", "-bad-"]))
    if what == 7:
        return worlds.create(CONFIG_MAP, made)
    return worlds.update(CONFIG_MAP, made) if what == 8 else worlds.apply(CONFIG_MAP, made)


def _node(name: str) -> Any:
    from kcore_api.kcore.core.v1 import node_pb2

    return node_pb2.Node(metadata={"name": name})


transactions = st.lists(operations(), min_size=1, max_size=4).map(
    lambda found: pb.Transaction(operations=found)
)


def state(w: World) -> dict[str, Any]:
    """All that can be told of a state."""
    replica: Replica = w.kernel._replica
    inner = replica.state
    return {
        "head": replica.head,
        "objects": {
            str(stored.key): stored
            for kind in replica.kinds()
            for stored in replica.objects(kind, "")
        },
        "labels": _index(inner._labels),
        "fields": _index(inner._fields),
        "claims": {pool: held for pool, held in inner._claims.items() if held},
        "last": dict(inner._last_drawn),
        "children": dict(inner._children),
    }


def _index(index: dict[Any, dict[Key, Any]]) -> dict[Any, list[Key]]:
    return {place: sorted(found) for place, found in index.items()}


async def _prepared(w: World) -> None:
    await w.create(POOL, pool("pod-cidrs", cidr="10.244.0.0/16", block_size=24))


async def _each(w: World, steps: Sequence[pb.Transaction]) -> Iterator[bool]:
    """Commits one after another; whether each was accepted."""
    accepted = []
    for one in steps:
        try:
            await w.kernel.commit(pb.CommitRequest(transactions=[one]), "me")
            accepted.append(True)
        except ApiError:
            accepted.append(False)
    return iter(accepted)


@settings(max_examples=budget.examples(60), deadline=None)
@given(st.lists(transactions, max_size=25))
def test_replaying_the_log_gives_the_state(steps: list[pb.Transaction]) -> None:
    async def run() -> None:
        store = MemoryStore(Chance(3))
        async with worlds.world(store) as w:
            await _prepared(w)
            await _each(w, steps)
            before = state(w)
        async with worlds.world(store) as w:
            assert state(w) == before
        await store.compact(before["head"])
        async with worlds.world(store) as w:
            after = state(w)
            # What was drawn last is known as far as the log goes back.
            assert {**after, "last": None} == {**before, "last": None}

    asyncio.run(run())


@settings(max_examples=budget.examples(60), deadline=None)
@given(st.lists(transactions, max_size=25))
def test_a_refused_transaction_leaves_nothing(steps: list[pb.Transaction]) -> None:
    async def run() -> None:
        async with worlds.world() as w:
            await _prepared(w)
            for one in steps:
                before = state(w)
                request = pb.CommitRequest(transactions=[one], dry_run=True)
                try:
                    await w.kernel.commit(request, "me")
                    good = True
                except ApiError:
                    good = False
                assert state(w) == before
                request.dry_run = False
                try:
                    await w.kernel.commit(request, "me")
                    assert good
                except ApiError:
                    assert not good
                    assert state(w) == before

    asyncio.run(run())


@settings(max_examples=budget.examples(60), deadline=None)
@given(st.lists(transactions, max_size=25))
def test_a_batch_is_as_one_after_another(steps: list[pb.Transaction]) -> None:
    async def run() -> None:
        async with worlds.world(seed=5) as w:
            await _prepared(w)
            accepted = list(await _each(w, steps))
            serial = state(w)
        async with worlds.world(seed=5) as w:
            await _prepared(w)
            if len(steps) > 1:
                request = pb.CommitRequest(transactions=steps, want=pb.WANT_NOTHING)
                results = (await w.kernel.commit(request, "me")).results
                assert [not one.HasField("error") for one in results] == accepted
            else:
                await _each(w, steps)
            assert state(w) == serial

    asyncio.run(run())


async def test_all_stores_hold_the_same(tmp_path: pathlib.Path) -> None:
    """The same writes, from many callers at once, on all stores, and after a restart."""
    clock = SystemClock()
    states = []
    database = SqliteStore(tmp_path / "log.db", clock, Chance(2))
    stores: list[Store] = [MemoryStore(Chance(2)), database]
    if etcd_server.there():
        stores.append(etcd_server.shared().store())
    for store in stores:
        hand = worlds.HandClock()
        async with worlds.world(store, clock=hand) as w:
            await _prepared(w)

            async def caller(number: int, w: World = w) -> None:
                for index in range(10):
                    made = config_map(f"c{number}-{index}", k="v")
                    await w.create(CONFIG_MAP, made)
                    await w.update(CONFIG_MAP, config_map(f"c{number}-{index}", k="w"))

            await asyncio.gather(*[caller(number) for number in range(16)])
            before = state(w)
        async with worlds.world(store, clock=hand) as w:
            assert state(w) == before
            found = {name: stored.fields for name, stored in before["objects"].items()}
            states.append((before["head"], found))
    assert all(one == states[0] for one in states)
