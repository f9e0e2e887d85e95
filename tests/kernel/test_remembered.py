"""A request that is asked again within ten minutes is done once, whatever was let go meanwhile."""

import contextlib
import pathlib
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kcore_api.kcore.coordination.v1 import lease_pb2
from kcore_api.kcore.core.v1 import config_map_pb2

from kcore.chance import Chance
from kcore.kernel.record import Request, Verb
from kcore.kernel.store import REMEMBERED_SECONDS, Refused, Store
from kcore.kernel.store.etcd import EtcdStore
from kcore.kernel.store.memory import MemoryStore
from kcore.kernel.store.sqlite import SqliteStore
from kcore.wire.errors import Reason
from tests.kernel import etcd_server
from tests.kernel import world as worlds
from tests.kernel.test_store import A, B, fill, record, reopened
from tests.kernel.world import CONFIG_MAP, LEASE, HandClock, World, config_map, refused


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def store(request: Any, tmp_path: pathlib.Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore(Chance(1))
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "log.db", HandClock(), Chance(1))
    else:
        if not etcd_server.there():
            pytest.skip("etcd is not installed")
        made = etcd_server.shared().store()
    yield made
    await made.close()


def lease(count: int) -> Any:
    made = lease_pb2.Lease(metadata={"name": "l", "namespace": "default"})
    made.spec.lease_transitions = count
    return made


async def renew(world: World, count: int) -> int:
    operation = worlds.apply(LEASE, lease(count), force=True)
    return int((await world.run(operation, request_id=f"renewal {count}")).revision)


@contextlib.asynccontextmanager
async def restarted(store: Store, clock: HandClock) -> AsyncIterator[World]:
    async with worlds.world(store, clock=clock) as world:
        yield world


async def test_what_was_replaced_and_compacted(store: Store) -> None:
    clock = HandClock()
    create = worlds.create(CONFIG_MAP, config_map("a", n="1"))
    async with worlds.world(store, clock=clock) as world:
        made = await world.run(create, request_id="r1")
        await world.run(worlds.apply(CONFIG_MAP, config_map("a", n="2"), True), request_id="r2")
        await world.kernel.compact(world.head)
    clock.at += REMEMBERED_SECONDS - 60
    async with restarted(store, clock) as world:
        head = world.head
        again = await world.run(create, request_id="r1")
        assert (again.revision, world.head) == (made.revision, head)
        assert again.operations[0].changed
        assert world.get(CONFIG_MAP, "a").data["n"] == "2"


async def test_what_was_deleted_and_compacted(store: Store) -> None:
    clock = HandClock()
    create = worlds.create(CONFIG_MAP, config_map("a"))
    delete = worlds.delete(CONFIG_MAP, "a")
    async with worlds.world(store, clock=clock) as world:
        made = await world.run(create, request_id="r1")
        gone = await world.run(delete, request_id="r2")
        await world.create(CONFIG_MAP, config_map("b"))
        await world.kernel.compact(world.head)
    async with restarted(store, clock) as world:
        # Compacted once more, by a store that did not see it happen.
        await world.create(CONFIG_MAP, config_map("c"))
        await world.kernel.compact(world.head)
    async with restarted(store, clock) as world:
        assert (await world.run(create, request_id="r1")).revision == made.revision
        assert (await world.run(delete, request_id="r2")).revision == gone.revision
        assert not world.there(CONFIG_MAP, "a")


async def test_what_was_made_by_a_name_that_nobody_knows_any_more(store: Store) -> None:
    clock = HandClock()
    made = config_map("")
    made.metadata.generate_name = "made-"
    create = worlds.create(CONFIG_MAP, made)
    async with worlds.world(store, clock=clock) as world:
        first = await world.run(create, request_id="r1")
        name = config_map_pb2.ConfigMap.FromString(first.operations[0].object).metadata.name
        await world.run(worlds.delete(CONFIG_MAP, name))
        await world.create(CONFIG_MAP, config_map("b"))
        await world.kernel.compact(world.head)
    async with restarted(store, clock) as world:
        head = world.head
        if isinstance(store, EtcdStore):
            # It keeps all for ten minutes, promised or not.
            assert await world.run(create, request_id="r1") == first
        else:
            with refused(Reason.GONE, f"it was done already, as revision {first.revision}"):
                await world.run(create, request_id="r1")
        assert world.head == head


async def test_what_keeps_no_history(store: Store) -> None:
    clock = HandClock()
    async with worlds.world(store, clock=clock) as world:
        first = await renew(world, 1)
        assert await renew(world, 2) == first + 1
    async with restarted(store, clock) as world:
        assert await renew(world, 1) == first
        assert world.get(LEASE, "l").spec.lease_transitions == 2
        await world.kernel.compact(world.head)
    async with restarted(store, clock) as world:
        assert await renew(world, 1) == first
        assert await renew(world, 2) == first + 1
        assert world.get(LEASE, "l").spec.lease_transitions == 2


async def test_what_is_older_is_forgotten(store: Store) -> None:
    clock = HandClock()
    async with worlds.world(store, clock=clock) as world:
        first = await renew(world, 1)
        await renew(world, 2)
        await world.kernel.compact(world.head)
        clock.at += REMEMBERED_SECONDS + 1
        await world.create(CONFIG_MAP, config_map("a"))
        await world.kernel.compact(world.head)
    async with restarted(store, clock) as world:
        assert await store.requests() == []
        assert await renew(world, 1) > first
        assert world.get(LEASE, "l").spec.lease_transitions == 1


async def test_an_id_that_is_used_again_when_it_was_forgotten_is_remembered_again(
    store: Store,
) -> None:
    clock = HandClock()
    async with worlds.world(store, clock=clock) as world:
        first = await renew(world, 1)
        await renew(world, 2)
        clock.at += REMEMBERED_SECONDS + 1
    async with restarted(store, clock) as world:
        # Nothing was written since: the log's own time is that of the last renewal.
        assert await renew(world, 1) == first
        await world.create(CONFIG_MAP, config_map("a"))
    async with restarted(store, clock) as world:
        again = await renew(world, 1)
        assert again > first
    async with restarted(store, clock) as world:
        assert await renew(world, 1) == again


async def test_a_store_tells_the_requests_of_what_it_has_let_go(store: Store) -> None:
    await store.open()
    await fill(store)
    await store.append([record(6, B, Verb.DELETE), record(7, A, Verb.CREATE, request_id="s")], {})
    await store.compact(6)
    await reopened(store)
    # Of what is still in the log, the log tells.
    assert [one.request_id async for one in store.replay()] == ["", "s"]
    assert await store.requests() == [Request("me", "r", 2, 1002.0)]


@pytest.mark.parametrize(
    "harm",
    ["UPDATE request SET revision = revision + 1", "UPDATE request SET request_id = 'other'",
     "DELETE FROM request"],
)  # fmt: skip
async def test_a_request_that_is_damaged_or_lost_is_found(
    harm: str, tmp_path: pathlib.Path
) -> None:
    store = SqliteStore(tmp_path / "log.db", HandClock(), Chance(1))
    await store.open()
    await fill(store)
    await store.compact(5)
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute(harm).rowcount == 1
        connection.commit()
    with pytest.raises(Refused):
        await store.open()
        async for _ in store.replay():
            pass
        await store.requests()
    await store.close()
