"""What a server cannot run with is said in one line, and mended without loss, on real processes."""

import asyncio
import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.client import channel
from kcore.client.kubeconfig import Target
from kcore.wire.errors import ApiError, Reason
from tests.chaos import witness, workload
from tests.chaos.backing import Sqlite
from tests.chaos.server import HERE, Server
from tests.chaos.workload import Workload

pytestmark = pytest.mark.cluster


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("s")
    made = Server(root)
    try:
        yield made
    finally:
        made.close()


async def filled(server: Server, writes: int = 30) -> list[tuple[str, bytes]]:
    """Serves, is written to, and is stopped; what is there then."""
    server.start()
    await server.serving()
    clients = Workload(str(server.place.socket), 1)
    async with workload.dialled(clients.socket) as api:
        await workload.make_space(api)
        await clients.write("0", lambda: clients.history.written() >= writes)
        found = await contents(api)
    server.stop()
    assert found
    return found


async def contents(api: channel.Channel) -> list[tuple[str, bytes]]:
    selection = pb.Selection(kind=workload.KIND, namespace=workload.SPACE)
    answer = await api.list(pb.ListRequest(selection=selection))
    return [(workload.decoded(body).metadata.name, body) for body in answer.items]


async def refusal(server: Server) -> str:
    """It ends with code 1; its one line."""
    had = len(server.words(1 << 20))
    server.start()
    assert server.process is not None
    assert await asyncio.to_thread(server.process.wait, 30) == 1
    lines = server.words(1 << 20)[had:].splitlines()
    said = [line for line in lines if line.startswith("error: ")]
    assert len(said) == 1, lines
    assert not any("Traceback" in line for line in lines), lines
    return said[0]


def kcore(*words: str) -> tuple[int, list[str]]:
    """Exit code, and all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", "kcore", *words],
        capture_output=True,
        text=True,
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE / 'generated'}"},
    )
    return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]


@contextlib.asynccontextmanager
async def served(server: Server) -> AsyncIterator[channel.Channel]:
    server.start()
    await server.serving()
    async with workload.dialled(str(server.place.socket)) as api:
        yield api
    server.stop()


async def test_a_lock_that_another_holds(server: Server) -> None:
    before = await filled(server)
    other = Server(server.place.state.parent)
    async with served(server):
        said = await refusal(other)
    assert "kcore.db: another process has it open" in said
    async with served(other) as api:
        assert await contents(api) == before


@pytest.mark.parametrize("which", [-1, 0, 2])
async def test_a_port_that_is_taken(server: Server, which: int) -> None:
    before = await filled(server)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1" if which == 2 else "0.0.0.0", server.port + which))
        taken.listen()
        said = await refusal(server)
    assert "cannot listen at" in said and str(server.port + which) in said
    assert "ss -lnt" in said and "--port" in said
    async with served(server) as api:
        assert await contents(api) == before


async def test_a_directory_that_is_read_only(server: Server) -> None:
    before = await filled(server)
    store = str(server.place.database.parent)
    subprocess.run(["mount", "--bind", store, store], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", store], check=True)
        said = await refusal(server)
        assert "kcore.db: cannot be written: Read-only file system" in said
    finally:
        subprocess.run(["umount", store], check=True)
    async with served(server) as api:
        assert await contents(api) == before


async def test_a_corrupt_record_names_its_revision_and_object(server: Server) -> None:
    before = await filled(server)
    with contextlib.closing(sqlite3.connect(server.place.database)) as database:
        name, position, body = database.execute(
            "SELECT name, position, body FROM log WHERE kind = ? ORDER BY position DESC LIMIT 1",
            (workload.KIND,),
        ).fetchone()
        spoilt = body[:-1] + bytes([body[-1] ^ 1])
        database.execute("UPDATE log SET body = ? WHERE position = ?", (spoilt, position))
        database.commit()
        database.execute("UPDATE log SET actor = 'nobody' WHERE position = 1024")
        database.commit()
    said = await refusal(server)
    assert "is damaged" in said and "kcore check" in said
    code, lines = kcore("check", "--root", str(server.place.state.parent))
    assert code == 1
    named = f"record at revision {position >> 10} of {workload.KIND}/chaos/{name} is damaged"
    assert len([one for one in lines if "is damaged" in one]) == 2
    assert any(named in one for one in lines) and any("revision 1 of" in one for one in lines)
    with contextlib.closing(sqlite3.connect(server.place.database)) as database:
        database.execute("UPDATE log SET body = ? WHERE position = ?", (body, position))
        database.execute("UPDATE log SET actor = 'system:boot' WHERE position = 1024")
        database.commit()
    assert kcore("check", "--root", str(server.place.state.parent))[0] == 0
    async with served(server) as api:
        assert await contents(api) == before


async def test_a_database_that_is_none(server: Server) -> None:
    before = await filled(server)
    whole = server.place.database.read_bytes()
    server.place.database.write_bytes(b"\0" * 100 + whole[100:])
    said = await refusal(server)
    assert "kcore.db: file is not a database" in said
    server.place.database.write_bytes(whole)
    async with served(server) as api:
        assert await contents(api) == before


async def test_a_server_that_has_forgotten_does_not_begin_anew(server: Server) -> None:
    before = await filled(server)
    kept = server.place.database.read_bytes()
    server.place.database.unlink()
    said = await refusal(server)
    assert "there is no database, but" in said and "knows of revision" in said
    assert not server.place.database.exists()
    server.place.database.write_bytes(kept)
    async with served(server) as api:
        assert await contents(api) == before


async def test_an_older_copy_is_refused_by_the_server_and_by_its_clients(server: Server) -> None:
    await filled(server)
    copy = server.place.database.with_suffix(".copy")
    shutil.copy(server.place.database, copy)
    later = await filled(server)
    newest = server.place.database.read_bytes()
    async with served(server) as api:
        head = (await api.list(pb.ListRequest(selection=pb.Selection(kind=workload.KIND)))).metadata
    shutil.copy(copy, server.place.database)
    said = await refusal(server)
    assert (
        f"knows of revision {head.resource_version}" in said and "lost acknowledged writes" in said
    )
    # Where that file is gone, too, those who have seen more are not served.
    mark = server.place.database.with_name("kcore.db.mark")
    mark.unlink()
    async with channel.connect(Target(unix=str(server.place.socket))) as seen:
        server.start()
        await server.serving()
        await seen.kinds(pb.KindsRequest())
        seen._seen = int(head.resource_version)
        with pytest.raises(ApiError, match="it has lost writes") as refused:
            await contents(seen)
        assert refused.value.reason is Reason.REFUSED
        server.stop()
    server.place.database.write_bytes(newest)
    async with served(server) as api:
        assert await contents(api) == later


async def test_another_cluster_is_refused_by_those_who_know_this_one(server: Server) -> None:
    await filled(server)
    async with channel.connect(Target(unix=str(server.place.socket))) as seen:
        server.start()
        await server.serving()
        await seen.kinds(pb.KindsRequest())
        server.stop()
        shutil.rmtree(server.place.database.parent)
        server.place.make()
        server.start()
        await server.serving()
        with pytest.raises(ApiError, match=r"this is cluster .* and the caller knows") as refused:
            for _ in range(50):
                try:
                    await contents(seen)
                except ApiError as error:
                    if error.reason is not Reason.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.1)
        assert refused.value.reason is Reason.REFUSED
        server.stop()


async def test_a_restore_on_purpose_is_another_epoch(server: Server, tmp_path: Path) -> None:
    root = ("--root", str(server.place.state.parent))
    copy = tmp_path / "copy.db"
    await filled(server)
    async with served(server) as api:
        # While it is served, and while it is written.
        clients = Workload(str(server.place.socket), 2)
        writing = asyncio.create_task(clients.write("1", lambda: len(clients.history.writes) > 60))
        code, said = await asyncio.to_thread(kcore, "store", "backup", str(copy), *root)
        assert code == 0 and "epoch 1" in said[0], said
        await writing
        more = clients.history.written() + 5
        await clients.write("2", lambda: clients.history.written() >= more)
        code, said = await asyncio.to_thread(kcore, "store", "restore", str(copy), *root)
        assert code == 1 and "an apiserver has it open" in said[0], said
        assert (await asyncio.to_thread(kcore, "check", *root))[0] == 0
        head = (await api.list(pb.ListRequest(selection=pb.Selection(kind=workload.KIND)))).metadata
    assert kcore("check", str(copy))[0] == 0
    code, said = kcore("store", "restore", str(copy), *root)
    assert code == 0 and "epoch 2" in said[0], said
    async with served(server) as api:
        answer = await api.kinds(pb.KindsRequest())
        assert answer.epoch == 2
        found = (
            await api.list(pb.ListRequest(selection=pb.Selection(kind=workload.KIND)))
        ).metadata
        assert int(found.resource_version) < int(head.resource_version)
    # The log that was there before the restore is behind it now.
    spoilt = copy.read_bytes()
    server.place.database.write_bytes(spoilt)
    assert "lost acknowledged writes" in await refusal(server)
    bad = tmp_path / "bad.db"
    bad.write_bytes(spoilt[: len(spoilt) // 2])
    code, said = kcore("store", "restore", str(bad), *root)
    assert code == 1 and "is no good copy" in said[0], said


async def test_a_clock_that_is_set_back_turns_no_time_back(server: Server) -> None:
    await filled(server)
    for seed, jump in enumerate(("-7200s", "+7200s", "-86400s"), 2):
        server.wrap = ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", jump]
        async with served(server):
            clients = Workload(str(server.place.socket), seed)
            await clients.write("0", lambda: clients.history.written() >= 10)  # noqa: B023
    server.wrap = []
    async with served(server):
        pass
    log = Sqlite().records_after(server, 0)
    assert list(witness.in_itself(log)) == []
    assert max(one.time for one in log) - min(one.time for one in log) > 3600
