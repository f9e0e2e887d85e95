"""The same over gRPC, whatever the store: writes, repeats, the past, watches, compaction."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.store import Store
from kcore.kernel.store.memory import MemoryStore
from kcore.kernel.store.sqlite import SqliteStore
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import World, config_map, create, ref, world
from tests.kernel import etcd_server

KIND = config_map_pb2.ConfigMap.DESCRIPTOR.full_name


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def there(request: Any, tmp_path: Path) -> Any:
    if request.param == "etcd" and not etcd_server.there():
        pytest.skip("etcd is not installed")
    store: Store
    if request.param == "memory":
        store = MemoryStore(Chance(1))
    elif request.param == "sqlite":
        store = SqliteStore(tmp_path / "log.db", SystemClock(), Chance(1))
    else:
        store = etcd_server.shared().store()
    async with world(tmp_path, store=store) as made:
        yield made


async def put(there: World, name: str, revision: int = 0, **data: str) -> int:
    """Writes it, at most over `revision`; the new revision."""
    transaction = pb.Transaction(request_id=f"{name}{sorted(data.items())}{revision}")
    if revision:
        transaction.guards.add(ref=ref(KIND, name), revision=revision)
    body = config_map(name, **data).SerializeToString()
    operation = transaction.operations.add(ref=ref(KIND, name))
    operation.apply.object, operation.apply.force = body, True
    transaction.manager = "test"
    request = pb.CommitRequest(transactions=[transaction])
    return (await there.channel.commit(request)).results[0].revision


async def data(there: World, name: str, **at: int) -> dict[str, str]:
    asked = pb.GetRequest(ref=ref(KIND, name), at=pb.At(**at) if at else None)
    body = (await there.channel.get(asked)).object
    return dict(config_map_pb2.ConfigMap.FromString(body).data)


async def test_writes_guards_and_repeats(there: World) -> None:
    first = await put(there, "a", k="1")
    second = await put(there, "a", first, k="2")
    assert second == first + 1
    with pytest.raises(ApiError) as caught:
        await put(there, "a", first, k="3")
    assert caught.value.reason is Reason.CONFLICT
    # The same request again is answered as it was.
    assert await put(there, "a", first, k="2") == second
    assert await data(there, "a") == {"k": "2"}
    with pytest.raises(ApiError) as caught:
        await there.channel.commit(create(KIND, config_map("a")))
    assert caught.value.reason is Reason.ALREADY_EXISTS


async def test_the_past_and_its_end(there: World) -> None:
    revisions = [await put(there, "a", k=str(number)) for number in range(5)]
    for number, revision in enumerate(revisions):
        assert await data(there, "a", revision=revision) == {"k": str(number)}
    delete = pb.Operation(ref=ref(KIND, "a"), delete=pb.Delete())
    await there.channel.commit(pb.CommitRequest(transactions=[pb.Transaction(operations=[delete])]))
    listed = pb.ListRequest(
        selection=pb.Selection(kind=KIND, namespace="default", names=["a"]),
        at=pb.At(revision=revisions[3]),
    )
    (item,) = (await there.channel.list(listed)).items
    assert config_map_pb2.ConfigMap.FromString(item).data["k"] == "3"
    with pytest.raises(ApiError) as caught:
        await data(there, "a")
    assert caught.value.reason is Reason.NOT_FOUND
    await there.kernel.compact(revisions[2])
    assert await data(there, "a", revision=revisions[2]) == {"k": "2"}
    with pytest.raises(ApiError) as caught:
        await data(there, "a", revision=revisions[1])
    assert caught.value.reason is Reason.GONE


async def test_a_watch_from_the_past(there: World) -> None:
    start = await put(there, "a", k="0")
    for number in range(1, 40):
        await put(there, "a", k=str(number))
    # Longer than what the feed has in memory, so that it is read from the log.
    there.kernel.feed._recent_floor = there.kernel.head
    there.kernel.feed._recent.clear()
    selection = pb.Selection(kind=KIND, namespace="default", names=["a"], from_revision=start)
    request = pb.WatchRequest(selections=[selection], progress_ms=50)
    told: list[str] = []
    async with asyncio.timeout(10):
        async for response in there.channel.watch(request):
            for event in response.events:
                told.append(config_map_pb2.ConfigMap.FromString(event.object).data["k"])
            if len(told) == 39:
                await put(there, "a", k="last")
            if told and told[-1] == "last":
                break
    assert told == [*(str(number) for number in range(1, 40)), "last"]
