"""containerd's configuration: what each release is told."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.boot import containerd
from kcore.clock import SystemClock

MINE = containerd.Containerd(
    root=Path("/s/containerd"),
    state=Path("/r/containerd"),
    cni_config=Path("/s/cni"),
    cni_programs=Path("/opt/cni/bin"),
)


def test_releases_of_1_read_version_2() -> None:
    found = tomllib.loads(containerd.render(MINE, 2))
    assert found["version"] == 2
    assert found["grpc"] == {"address": "/r/containerd/containerd.sock"}
    pods = found["plugins"]["io.containerd.grpc.v1.cri"]
    assert pods["sandbox_image"] == "kcore.local/pause:1"
    assert pods["restrict_oom_score_adj"] is True
    assert (pods["stream_server_address"], pods["stream_server_port"]) == ("127.0.0.1", "0")
    assert pods["cni"] == {"conf_dir": "/s/cni", "bin_dir": "/opt/cni/bin", "max_conf_num": 1}
    runc = pods["containerd"]["runtimes"]["runc"]
    assert runc["runtime_type"] == "io.containerd.runc.v2"
    assert runc["options"]["BinaryName"] == "runc"


def test_releases_of_2_read_version_3() -> None:
    found = tomllib.loads(containerd.render(MINE, 3, may_lower_oom_score=True))
    assert found["version"] == 3
    plugins = found["plugins"]
    pinned = plugins["io.containerd.cri.v1.images"]["pinned_images"]
    assert pinned == {"sandbox": "kcore.local/pause:1"}
    assert plugins["io.containerd.cri.v1.runtime"]["restrict_oom_score_adj"] is False
    assert plugins["io.containerd.grpc.v1.cri"] == {
        "stream_server_address": "127.0.0.1",
        "stream_server_port": "0",
    }


@pytest.mark.parametrize("version", [2, 3])
def test_nothing_is_outside_its_own_directories(version: int) -> None:
    found = tomllib.loads(containerd.render(MINE, version))
    assert found["root"].startswith("/s/containerd/")
    assert found["state"].startswith("/r/containerd/")
    assert "io.containerd.internal.v1.opt" in found["disabled_plugins"]


@given(st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
def test_no_name_breaks_out_of_the_configuration(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    mine = dataclasses.replace(MINE, oci_runtime=name)
    for version in (2, 3):
        found = tomllib.loads(containerd.render(mine, version))
        plugin = "io.containerd.grpc.v1.cri" if version == 2 else "io.containerd.cri.v1.runtime"
        options = found["plugins"][plugin]["containerd"]["runtimes"]["runc"]["options"]
        assert options["BinaryName"] == name


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", 2),
        ("containerd github.com/containerd/containerd 1.7.24~ds1", 2),
        ("containerd github.com/containerd/containerd/v2 v2.1.9 abc", 3),
    ],
)
def test_releases_are_told_apart(said: str, version: int) -> None:
    assert containerd.config_version(said) == version


def test_a_release_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(containerd.ContainerdError):
        containerd.config_version("something else\n")


async def test_a_socket_that_is_too_deep_is_refused() -> None:
    deep = dataclasses.replace(MINE, state=Path("/r") / ("x" * 100))
    with pytest.raises(containerd.ContainerdError, match="too long"):
        await containerd.start(deep, SystemClock())


async def test_a_containerd_that_is_not_installed_is_named(tmp_path: Path) -> None:
    mine = containerd.Containerd(
        tmp_path / "root", tmp_path / "state", tmp_path / "cni", program="/no/such/containerd"
    )
    with pytest.raises(containerd.ContainerdError, match="/no/such/containerd is not installed"):
        await containerd.start(mine, SystemClock())
