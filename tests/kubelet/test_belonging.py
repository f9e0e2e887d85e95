"""A node remembers its cluster: RELIABILITY 0, "Amnesia is not a new cluster"."""

from pathlib import Path

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.kubelet.belonging import Belonging, Foreign


def server(cluster: str = "c", epoch: int = 1) -> pb.KindsResponse:
    """What a server says of itself."""
    return pb.KindsResponse(cluster_id=cluster, epoch=epoch)


def test_the_first_cluster_is_taken_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "state" / "cluster.json"
    mine = Belonging(path)
    assert not mine.meet(server())
    mine.see(5, 0.0)
    for again in (mine, Belonging(path)):
        assert not again.meet(server())
        with pytest.raises(Foreign, match="cluster d"):
            again.meet(server("d"))
        with pytest.raises(Foreign, match="epoch 0"):
            again.meet(server(epoch=0))
        with pytest.raises(Foreign, match="ends at revision 4"):
            again.see(4, 0.0)
        again.see(5, 0.0)


def test_a_deliberate_restore_is_followed(tmp_path: Path) -> None:
    mine = Belonging(tmp_path / "cluster.json")
    mine.meet(server())
    mine.see(500, 0.0)
    assert mine.meet(server(epoch=2))
    mine.see(3, 0.0)
    assert not Belonging(tmp_path / "cluster.json").meet(server(epoch=2))
    with pytest.raises(Foreign):
        Belonging(tmp_path / "cluster.json").meet(server())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cluster": "c", "epoch": null}', "\x00"])
def test_half_a_file_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(text)
    assert not Belonging(path).meet(server("other"))


def test_it_is_written_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    mine = Belonging(path)
    mine.meet(server())
    mine.see(1, 0.0)
    mine.see(2, 0.5)
    Belonging(path).see(1, 0.0)
    mine.see(3, 1.5)
    with pytest.raises(Foreign):
        Belonging(path).see(2, 0.0)
