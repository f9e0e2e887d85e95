"""`kcore store migrate`, as people call it."""

from pathlib import Path

import pytest

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.record import Verb
from kcore.kernel.store.sqlite import SqliteStore
from tests.cli.cluster import Run
from tests.kernel import etcd_server
from tests.kernel.test_store import A, fill, record


async def filled(path: Path) -> str:
    store = SqliteStore(path, SystemClock(), Chance())
    opened = await store.open()
    await fill(store)
    await store.close()
    return opened.cluster_id


@pytest.mark.skipif(not etcd_server.there(), reason="etcd is not installed")
async def test_there_and_back(run: Run, tmp_path: Path) -> None:
    cluster_id = await filled(tmp_path / "a.db")
    server = etcd_server.shared()
    etcd = f"etcd:{server.url}?prefix={server.prefix()}"
    code, out, err = await run(f"store migrate --from sqlite:{tmp_path}/a.db --to {etcd}")
    assert (code, out) == (0, "")
    assert f"cluster {cluster_id} (epoch 1) is in {etcd} up to revision 5: 2 objects, 6 rec" in err
    assert "read back, all equal" in err and "do not start an apiserver" in err
    code, out, err = await run(f"store migrate --from {etcd} --to sqlite:{tmp_path}/b.db")
    assert (code, out) == (0, ""), err
    store = SqliteStore(tmp_path / "b.db", SystemClock(), Chance())
    opened = await store.open()
    assert (opened.cluster_id, opened.head) == (cluster_id, 5)
    await store.append([record(6, A, Verb.CREATE)], {})
    await store.close()


async def test_refusals(run: Run, tmp_path: Path) -> None:
    await filled(tmp_path / "a.db")
    await filled(tmp_path / "b.db")
    for source, target, said in (
        ("sqlite:none.db", "sqlite:x.db", "there is no such file"),
        (f"sqlite:{tmp_path}/a.db", f"sqlite:{tmp_path}/a.db", "the two stores are the same"),
        (f"sqlite:{tmp_path}/a.db", f"sqlite:{tmp_path}/b.db", "the target is not empty"),
        (f"sqlite:{tmp_path}/a.db", "nfs:x", "names no store"),
        (f"sqlite:{tmp_path}/a.db", "etcd:http://127.0.0.1:1", "etcd at http://127.0.0.1:1: "),
    ):
        code, out, err = await run(f"store migrate --from {source} --to {target}")
        assert (code, out) == (1, "") and err.startswith("error: ") and said in err, err


async def test_up_refuses_a_store_that_is_none(run: Run, tmp_path: Path) -> None:
    code, out, err = await run(f"up --root {tmp_path}/k --store etcd:nowhere")
    assert (code, out) == (1, "")
    assert "'nowhere' is no endpoint of etcd" in err
    assert not (tmp_path / "k").exists()
