"""A log moves from store to store, whole or not at all."""

import pathlib
import random
from typing import Any

import pytest

from kcore.boot import stores
from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.record import Key, Record, Verb
from kcore.kernel.store import Opened, Refused, Store
from kcore.kernel.store.migrate import Target, migrate
from tests.kernel import etcd_server
from tests.kernel.test_store import A, all_of, record

pytestmark = pytest.mark.skipif(not etcd_server.there(), reason="etcd is not installed")


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Any:
    """Where a store of some sort is, as the command line says it."""
    made = 0

    def name(sort: str) -> str:
        nonlocal made
        made += 1
        if sort == "sqlite":
            return f"sqlite:{tmp_path}/log{made}.db"
        shared = etcd_server.shared()
        return f"etcd:{shared.url}?prefix={shared.prefix()}"

    return name


def there(name: str) -> Target:
    return stores.store_of(name, SystemClock(), Chance())


async def write(store: Store, seed: int) -> None:
    """A random history that is compacted now and then."""
    draw = random.Random(seed)
    keys = [Key("k.A", f"n{i % 2}", f"o{i}") for i in range(30)]
    there: set[Key] = set()
    await store.open()
    for revision in range(1, 401):
        batch = []
        for ordinal, key in enumerate(draw.sample(keys, draw.randint(1, 4))):
            verb = Verb.CREATE if key not in there else draw.choice([Verb.UPDATE, Verb.DELETE])
            (there.discard if verb is Verb.DELETE else there.add)(key)
            more = {"request_id": f"r{revision}"} if draw.random() < 0.3 else {}
            body = draw.randbytes(draw.randint(1, 2000))
            batch.append(record(revision, key, verb, ordinal=ordinal, body=body, **more))
        await store.append(batch, {keys[0]: 1} if draw.random() < 0.1 else {})
        if revision % 150 == 0:
            await store.compact(revision - 40)
    await store.close()


async def read(store: Store) -> tuple[Opened, list[Record], list[Record], int]:
    opened = await store.open()
    found = await all_of(store.replay())
    past = await all_of(store.state_at(opened.compacted + 3, "k.A", ""))
    moment = await store.revision_at(1000.0 + opened.compacted + 5.5)
    await store.close()
    return opened, found, past, moment


@pytest.mark.parametrize("sorts", [("sqlite", "etcd"), ("etcd", "sqlite"), ("etcd", "etcd")])
async def test_there_and_all_is_the_same(place: Any, sorts: tuple[str, str]) -> None:
    source, target = place(sorts[0]), place(sorts[1])
    await write(there(source), 3)
    told: list[tuple[int, int]] = []
    moved = await migrate(there(source), there(target), lambda *at: told.append(at))
    before, after = await read(there(source)), await read(there(target))
    assert before == after
    assert moved.opened == before[0] and moved.records == len(before[1])
    assert before[0].head == 400 and before[0].compacted == 260
    assert told[-1] == (400, 400) and len(told) > 3 and told == sorted(told)
    # And it goes on from there.
    store = there(target)
    await store.open()
    await store.append([record(401, A, Verb.CREATE)], {})
    await store.compact(350)
    assert await all_of(store.since(400)) == [record(401, A, Verb.CREATE)]
    await store.close()


async def test_a_target_that_is_not_empty_is_left_alone(place: Any) -> None:
    source, target = place("sqlite"), place("etcd")
    await write(there(source), 1)
    store = there(target)
    await store.open()
    await store.append([record(1, A, Verb.CREATE)], {})
    await store.close()
    with pytest.raises(Refused, match="the target is not empty: it ends at revision 1"):
        await migrate(there(source), there(target), lambda *_: None)
    assert [one.revision for one in (await read(there(target)))[1]] == [1]


@pytest.mark.parametrize("sorts", [("sqlite", "etcd"), ("etcd", "sqlite")])
async def test_what_is_half_there_is_refused(place: Any, sorts: tuple[str, str]) -> None:
    source, target = place(sorts[0]), place(sorts[1])
    await write(there(source), 1)

    def die(revision: int, head: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await migrate(there(source), there(target), die)
    for _ in range(2):
        with pytest.raises(Refused, match="a migration into it has not come to its end"):
            await there(target).open()
    # The source is as it was.
    assert (await read(there(source)))[0].head == 400


async def test_a_source_that_lives_is_found_out(place: Any) -> None:
    source, target = place("etcd"), place("sqlite")
    await write(there(source), 1)
    writing = there(source)
    await writing.open()
    told = 0

    moving = there(source)

    async def since_append(records: Any, keep: Any) -> None:
        nonlocal told
        told += 1
        if told == 2:
            assert await all_of(writing.since(400)) == []
            await writing.append([record(401, A, Verb.CREATE)], {})
        await append(records, keep)

    into = there(target)
    append, into.append = into.append, since_append  # type: ignore[method-assign]
    with pytest.raises(Refused, match="written to meanwhile"):
        await migrate(moving, into, lambda *_: None)
    await writing.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no store"),
        ("mysql:x", "names no store"),
        ("sqlite:", "names no store"),
        ("etcd:127.0.0.1:2379", "is no endpoint of etcd"),
        ("etcd:http://a:1,ftp://b:1", "is no endpoint of etcd"),
        ("etcd:http://a:1?user=me", "unknown option user"),
        ("etcd:https://a:1?ca=/none", "No such file"),
        ("etcd:https://a:1?cert=/none", "belong together"),
        ("etcd:https://a:1?prefix=x", "must begin with /"),
    ],
)
def test_what_names_no_store(text: str, said: str) -> None:
    with pytest.raises(stores.StoreError, match=said):
        stores.store_of(text, SystemClock(), Chance())
