"""One suite for all stores; what is SQLite's own comes after."""

import asyncio
import contextlib
import pathlib
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from kcore.chance import Chance
from kcore.kernel.record import Key, Record, Verb
from kcore.kernel.store import Full, Refused, Store
from kcore.kernel.store.etcd import EtcdStore
from kcore.kernel.store.memory import MemoryStore
from kcore.kernel.store.sqlite import SqliteStore
from tests.kernel import etcd_server
from tests.kernel.world import HandClock

A = Key("k.A", "default", "a")
B = Key("k.A", "default", "b")
C = Key("k.C", "", "c")


def record(revision: int, key: Key = A, verb: Verb = Verb.UPDATE, **more: Any) -> Record:
    values: dict[str, Any] = {
        "revision": revision,
        "key": key,
        "uid": f"uid-{key.name}",
        "verb": verb,
        "body": f"{key.name}@{revision}".encode(),
        "actor": "me",
        "because": 0,
        "time": 1000.0 + revision,
    }
    return Record(**{**values, **more})


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def store(request: Any, tmp_path: pathlib.Path) -> Any:
    made: Store
    if request.param == "memory":
        made = MemoryStore(Chance(1))
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "log.db", HandClock(), Chance(1))
    else:
        if not etcd_server.there():
            pytest.skip("etcd is not installed")
        made = etcd_server.shared().store()
    await made.open()
    yield made
    await made.close()


async def all_of(records: AsyncIterator[Record]) -> list[Record]:
    return [record async for record in records]


async def reopened(store: Store) -> Any:
    """What the store says after having been closed."""
    await store.close()
    return await store.open()


async def fill(store: Store) -> list[Record]:
    """Five revisions; the last but one has two records."""
    records = [
        record(1, A, Verb.CREATE),
        record(2, B, Verb.CREATE, because=1, request_id="r", manager="m", subresource="s"),
        record(3, A),
        record(4, C, Verb.CREATE),
        record(4, B, Verb.UPDATE, ordinal=1),
        record(5, A, Verb.DELETE),
    ]
    await store.append(records[:2], {})
    await store.append(records[2:], {})
    return records


async def test_a_new_store_is_empty_and_has_an_identity(store: Store) -> None:
    opened = await reopened(store)
    assert (opened.head, opened.compacted, opened.epoch) == (0, 0, 1)
    assert opened.cluster_id
    assert await all_of(store.replay()) == []
    assert (await reopened(store)).cluster_id == opened.cluster_id


async def test_what_was_appended_is_read_back_in_order(store: Store) -> None:
    records = await fill(store)
    opened = await reopened(store)
    assert (opened.head, opened.time) == (5, 1005.0)
    assert await all_of(store.replay()) == records
    assert await all_of(store.since(2)) == records[2:]
    assert await all_of(store.since(5)) == []
    assert list(await store.transaction(4)) == records[3:5]
    assert list(await store.transaction(9)) == []


async def test_the_past_of_one_object(store: Store) -> None:
    records = await fill(store)
    assert await store.at(A, 0) is None
    assert await store.at(A, 1) == records[0]
    assert await store.at(A, 2) == records[0]
    assert await store.at(A, 4) == records[2]
    assert await store.at(A, 5) is None
    assert await store.at(C, 3) is None
    assert await store.at(Key("k.A", "default", "nobody"), 5) is None


async def test_the_past_of_a_kind(store: Store) -> None:
    records = await fill(store)
    assert await all_of(store.state_at(3, "k.A", "")) == [records[2], records[1]]
    assert await all_of(store.state_at(3, "k.A", "default")) == [records[2], records[1]]
    assert await all_of(store.state_at(3, "k.A", "other")) == []
    assert await all_of(store.state_at(5, "k.A", "")) == [records[4]]
    assert await all_of(store.state_at(5, "k.C", "")) == [records[3]]


async def test_a_time_is_a_revision(store: Store) -> None:
    await fill(store)
    times = [999.0, 1001.0, 1003.5, 1004.0, 1005.0, 2000.0]
    assert [await store.revision_at(time) for time in times] == [0, 1, 3, 4, 5, 5]


async def test_compaction_keeps_the_state_and_what_came_after(store: Store) -> None:
    records = await fill(store)
    await store.compact(4)
    assert await all_of(store.state_at(4, "k.A", "")) == [records[2], records[4]]
    assert await all_of(store.since(4)) == records[5:]
    assert await all_of(store.replay()) == [records[2], records[3], records[4], records[5]]
    opened = await reopened(store)
    assert (opened.head, opened.compacted) == (5, 4)
    await store.compact(5)
    assert await all_of(store.replay()) == [records[3], records[4]]
    assert (await reopened(store)).compacted == 5
    await store.compact(2)
    assert (await reopened(store)).compacted == 5


async def test_kinds_that_keep_no_history(store: Store) -> None:
    async def kept() -> list[int]:
        return [one.revision for one in await all_of(store.replay())]

    # Where etcd keeps the past, it keeps it of all until it is compacted.
    trims = not isinstance(store, EtcdStore)
    await store.append([record(1, A, Verb.CREATE), record(2, B, Verb.CREATE)], {A: 0})
    for revision in range(3, 8):
        await store.append([record(revision, A)], {A: 0})
    assert await kept() == ([2, 7] if trims else [1, 2, 3, 4, 5, 6, 7])
    for revision in range(8, 13):
        await store.append([record(revision, A)], {A: 2})
    assert (await kept())[-3:] == [10, 11, 12]
    assert not trims or await kept() == [2, 10, 11, 12]
    await store.append([record(13, A), record(14, A)], {A: 0})
    await reopened(store)
    assert (await kept())[-1] == 14
    assert not trims or await kept() == [2, 14]
    await store.compact(14)
    assert await kept() == [2, 14]


async def test_random_histories_agree_with_a_plain_list(store: Store) -> None:
    rng = random.Random(7)
    keys = [Key("k.A", f"n{i % 2}", f"o{i}") for i in range(6)]
    records: list[Record] = []
    for revision in range(1, 120):
        batch = [
            record(revision, key, rng.choice(list(Verb)), ordinal=ordinal)
            for ordinal, key in enumerate(rng.sample(keys, rng.randint(1, 3)))
        ]
        records += batch
        await store.append(batch, {})
        if revision % 40 == 0:
            await store.compact(revision - 10)
    floor = 110 - 110 % 40 - 10
    for revision in range(floor, 120, 7):
        for name in ("n0", "n1", ""):
            last: dict[Key, Record] = {}
            for one in records:
                if one.revision <= revision and name in ("", one.key.namespace):
                    last[one.key] = one
            there = [last[key] for key in sorted(last) if last[key].verb is not Verb.DELETE]
            assert await all_of(store.state_at(revision, "k.A", name)) == there
            for key in keys:
                if name in ("", key.namespace):
                    expected = last.get(key)
                    if expected is not None and expected.verb is Verb.DELETE:
                        expected = None
                    assert await store.at(key, revision) == expected
        assert await all_of(store.since(revision)) == [r for r in records if r.revision > revision]


# What is SQLite's own.


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "log.db"


@pytest.fixture
def made(path: pathlib.Path) -> Callable[[], SqliteStore]:
    return lambda: SqliteStore(path, HandClock(), Chance(1))


async def filled(made: Callable[[], SqliteStore]) -> None:
    store = made()
    await store.open()
    await fill(store)
    await store.close()


async def test_a_second_writer_is_refused(made: Callable[[], SqliteStore]) -> None:
    first, second = made(), made()
    await first.open()
    with pytest.raises(Refused, match="another process has it open"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "UPDATE log SET body = 'x' WHERE position >> 10 = 3",
            "revision 3 of k.A/default/a is dam",
        ),
        ("UPDATE log SET actor = 'you' WHERE position >> 10 = 2", "revision 2 .* is damaged"),
        ("UPDATE log SET name = 'z' WHERE position >> 10 = 5", "revision 5 .* is damaged"),
        ("UPDATE log SET operation = 'sing' WHERE position >> 10 = 5", "is damaged"),
        ("UPDATE log SET position = position + 1 WHERE position >> 10 = 5", "is damaged"),
        ("DELETE FROM log WHERE position >> 10 = 3", "some are missing or foreign"),
        ("DELETE FROM log WHERE position >> 10 = 5", "some are missing or foreign"),
        ("UPDATE head SET revision = 4", "lost acknowledged writes|missing or foreign"),
        ("DELETE FROM head", "row of its head is missing|lost|is cluster"),
        ("UPDATE head SET format = 9", "format 9 is not known"),
    ],
)
async def test_damage_is_refused_by_name(
    made: Callable[[], SqliteStore], path: pathlib.Path, damage: str, said: str
) -> None:
    await filled(made)
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    store = made()
    with pytest.raises(Refused, match=said):
        await store.open()
        await all_of(store.replay())
    await store.close()


async def test_a_flipped_byte_is_never_served(
    made: Callable[[], SqliteStore], path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    store = made()
    await store.open()
    await store.append(
        [record(i + 1, Key("k.A", f"n{i % 7}", f"o{i % 50}"), body=b"b" * 500) for i in range(200)],
        {},
    )
    expected = await all_of(store.replay())
    await store.close()
    good = path.read_bytes()
    rng = random.Random(5)
    found = 0
    for _ in range(60):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        for left in tmp_path.glob("log.db*"):
            if left.suffix != ".mark":
                left.unlink()
        path.write_bytes(bytes(data))
        store = made()
        try:
            await store.open()
            assert await all_of(store.replay()) == expected
            for one in expected:
                assert await store.at(one.key, one.revision) == one
        except (Refused, sqlite3.Error):
            found += 1
        finally:
            await store.close()
    assert found > 40


async def test_a_database_behind_its_mark_is_refused(
    made: Callable[[], SqliteStore], path: pathlib.Path
) -> None:
    store = made()
    await store.open()
    await store.append([record(1, A, Verb.CREATE)], {})
    await store.close()
    backup = path.read_bytes()
    await filled_from(made, 2)
    path.write_bytes(backup)
    for left in (path.with_name("log.db-wal"), path.with_name("log.db-shm")):
        left.unlink(missing_ok=True)
    with pytest.raises(Refused, match=r"ends at revision 1, but .* knows of revision 6"):
        await made().open()


async def filled_from(made: Callable[[], SqliteStore], revision: int) -> None:
    store = made()
    await store.open()
    await store.append([record(revision + i) for i in range(5)], {})
    await reopened(store)
    await store.close()


async def test_a_lost_database_is_not_a_new_cluster(
    made: Callable[[], SqliteStore], path: pathlib.Path
) -> None:
    await filled(made)
    path.unlink()
    with pytest.raises(Refused, match=r"there is no database, but .*mark knows of revision"):
        await made().open()


async def test_a_full_disk_appends_nothing(
    made: Callable[[], SqliteStore], path: pathlib.Path
) -> None:
    store = made()
    await store.open()
    await fill(store)
    assert store._writer is not None
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Full):
        await store.append([record(6, body=b"x" * 100_000)], {})
    assert [one.revision for one in await all_of(store.replay())] == [1, 2, 3, 4, 4, 5]
    store._writer.execute("PRAGMA max_page_count = 100000")
    await store.append([record(6, body=b"x" * 100_000)], {})
    assert (await reopened(store)).head == 6
    assert len(await all_of(store.replay())) == 7
    await store.close()


async def test_old_secrets_are_gone_from_the_file(
    made: Callable[[], SqliteStore], path: pathlib.Path
) -> None:
    store = made()
    await store.open()
    await store.append([record(1, A, Verb.CREATE, body=b"very-secret-thing")], {})
    await store.append([record(2, A, body=b"harmless")], {})
    await store.compact(2)
    await reopened(store)
    await store.close()
    left = b"".join(file.read_bytes() for file in path.parent.glob("log.db*"))
    assert b"harmless" in left
    assert b"very-secret-thing" not in left


async def test_the_loop_goes_on_while_the_disk_syncs(made: Callable[[], SqliteStore]) -> None:
    store = made()
    await store.open()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(turn())
    work: Awaitable[None] = store.append([record(1, A, Verb.CREATE)], {})
    await work
    ticking.cancel()
    await store.close()
    assert turns > 1


async def test_what_a_compaction_left_is_made_up_for(
    made: Callable[[], SqliteStore], path: pathlib.Path
) -> None:
    await filled(made)
    # As a crash leaves it that comes between the promise and the deed.
    connection = sqlite3.connect(path)
    connection.execute("UPDATE head SET compacted = 4")
    connection.commit()
    connection.close()
    store = made()
    await store.open()
    await store.compact(5)
    assert [one.revision async for one in store.replay()] == [4, 4]
    await store.close()


async def test_a_full_disk_compacts_nothing(made: Callable[[], SqliteStore]) -> None:
    store = made()
    await store.open()
    keys = [Key("k.A", "default", f"o{number}") for number in range(400)]
    records = [record(i + 1, key, body=b"x" * 400) for i, key in enumerate(keys * 2)]
    await store.append(records, {})
    assert store._writer is not None
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    # It takes room to give room: the freed pages are listed in others.
    with contextlib.suppress(Full):
        await store.compact(800)
    store._writer.execute("PRAGMA max_page_count = 100000")
    await store.append([record(801)], {})
    assert (await reopened(store)).head == 801
    await store.close()


async def test_a_store_that_is_opened_again_ends_a_compaction(
    made: Callable[[], SqliteStore],
) -> None:
    store = made()
    await store.open()
    keys = [Key("k.A", "default", f"o{number}") for number in range(1500)]
    await store.append([record(i + 1, key) for i, key in enumerate(keys * 2)], {})
    compacting = asyncio.create_task(store.compact(3000))
    await asyncio.sleep(0)
    await asyncio.gather(reopened(store), compacting)
    await store.append([record(3001)], {})
    await store.compact(3001)
    assert len([one async for one in store.replay()]) == 1501
    await store.close()
