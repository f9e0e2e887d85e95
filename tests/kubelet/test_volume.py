"""A pod's volumes: what is in them, with which modes, and what nobody can make of them."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import env, mount, refusal, volume
from tests.kubelet.scene import UID, pod

FACTS = env.Facts((), (), {"cpu": "2"})
NAMED = env.Named(
    config_maps={"m": {"a": b"1", "b": b"2"}}, secrets={"s": {"key": b"secret"}, "t": {}}
)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The kubelet's directory; nothing stays mounted in it."""
    yield tmp_path
    mount.clear(tmp_path)


def with_volume(**change: Any) -> pod_pb2.Pod:
    """A pod with a volume "v", mounted at /v in its container."""
    of = pod()
    of.spec.volumes.add(name="v")
    of.spec.containers[0].volume_mounts.add(name="v", mount_path="/v")
    for key, value in change.items():
        setattr(of.spec.security_context, key, value)
    return of


def source(of: pod_pb2.Pod) -> Any:
    """Where its volume comes from."""
    return of.spec.volumes[0].volume_source


def config_map(name: str = "m", **change: Any) -> pod_pb2.Pod:
    """A pod with a ConfigMap as volume."""
    of = with_volume()
    source(of).config_map.local_object_reference.name = name
    for key, value in change.items():
        setattr(source(of).config_map, key, value)
    return of


def make(of: pod_pb2.Pod, root: Path, named: env.Named = NAMED) -> Path:
    """Where its volume is."""
    return volume.make(of, named, FACTS, root)["v"]


def mounted(of: pod_pb2.Pod, root: Path, **variables: str) -> pb.Mount:
    """What its container sees of it."""
    places = volume.make(of, NAMED, FACTS, root)
    (found,) = volume.mounts(of, of.spec.containers[0], places, variables, root)
    return found


def files(place: Path) -> dict[str, tuple[bytes, str]]:
    """Contents and modes, as a container sees them."""
    return {
        str(path.relative_to(place)): (path.read_bytes(), oct(path.stat().st_mode & 0o7777))
        for top in sorted(place.iterdir())
        if not top.name.startswith("..")
        for path in ([top] if top.is_file() else sorted(top.rglob("*")))
        if path.is_file()
    }


# -- of objects ------------------------------------------------------------------------------------


def test_a_file_for_each_key(root: Path) -> None:
    place = make(config_map(), root)
    assert files(place) == {"a": (b"1", "0o644"), "b": (b"2", "0o644")}
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert mounted(config_map(), root).readonly


def test_chosen_keys_paths_and_modes(root: Path) -> None:
    of = config_map(default_mode=0o400)
    source(of).config_map.items.add(key="a", path="deep/er/x")
    source(of).config_map.items.add(key="b", path="y", mode=0o755)
    place = make(of, root)
    assert files(place) == {"deep/er/x": (b"1", "0o400"), "y": (b"2", "0o755")}


def test_what_is_missing(root: Path) -> None:
    with pytest.raises(volume.VolumeError, match='for volume "v" : configmap "gone" not found'):
        make(config_map("gone"), root)
    of = config_map()
    source(of).config_map.items.add(key="gone", path="x")
    with pytest.raises(volume.VolumeError, match='has no key "gone"'):
        make(of, root)
    assert files(make(config_map("gone", optional=True), root)) == {}


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "..x", "..data", "", "."])
def test_no_file_leads_out_of_its_volume(root: Path, path: str) -> None:
    of = config_map()
    source(of).config_map.items.add(key="a", path=path)
    with pytest.raises(volume.VolumeError):
        make(of, root)
    assert not [one for one in root.rglob("*") if one.is_file()]


def test_changes_come_all_at_once(root: Path) -> None:
    place = make(config_map(), root)
    old = (place / "..data").resolve()
    volume.renew(config_map(), NAMED, FACTS, root)
    assert (place / "..data").resolve() == old
    # A reader that has the directory open sees all of the old, or all of the new.
    reader = os.open(place / "..data", os.O_RDONLY)
    changed = env.Named(config_maps={"m": {"a": b"3", "c": b"4"}})
    volume.renew(config_map(), changed, FACTS, root)
    assert os.listdir(reader) == []
    os.close(reader)
    assert files(place) == {"a": (b"3", "0o644"), "c": (b"4", "0o644")}
    assert sorted(one.name for one in place.iterdir()) == ["..1", "..data", "a", "c"]


def test_an_object_that_goes_leaves_its_files(root: Path) -> None:
    place = make(config_map(), root)
    for _ in range(2):
        volume.renew(config_map(), env.Named(), FACTS, root)
        # A container that starts again, too.
        assert make(config_map(), root, env.Named()) == place
    assert files(place)["a"] == (b"1", "0o644")


def test_a_crash_in_between_is_repaired(root: Path) -> None:
    place = make(config_map(), root)
    (place / "..7").mkdir()
    (place / "..7" / "half").write_text("x")
    (place / "..data_new").symlink_to("..7")
    volume.renew(config_map(), env.Named(config_maps={"m": {"a": b"9"}}), FACTS, root)
    assert files(place) == {"a": (b"9", "0o644")}
    assert sorted(one.name for one in place.iterdir()) == ["..1", "..data", "a"]


def test_a_link_that_leads_away_is_not_followed(root: Path, tmp_path: Path) -> None:
    """S3."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "a").write_text("alive")
    place = make(config_map(), root)
    for target in (str(canary), "../../../../canary", "..0/../../../../../canary"):
        (place / "..data").unlink()
        (place / "..data").symlink_to(target)
        volume.renew(config_map(), NAMED, FACTS, root)
        assert files(place)["a"] == (b"1", "0o644")
    volume.remove(root, UID)
    assert (canary / "a").read_text() == "alive"
    assert not volume.directory(root, UID).exists()


def test_facts_and_projections(root: Path) -> None:
    of = with_volume()
    of.metadata.labels["app"] = "web"
    of.spec.containers[0].resources.limits["cpu"].string = "500m"
    projected = source(of).projected
    projected.default_mode = 0o440
    projected.sources.add().config_map.local_object_reference.name = "m"
    down = projected.sources.add().downward_api
    down.items.add(path="labels").field_ref.field_path = "metadata.labels"
    cpu = down.items.add(path="cpu", mode=0o600).resource_field_ref
    cpu.container_name, cpu.resource, cpu.divisor.string = "a", "limits.cpu", "1m"
    secret = projected.sources.add().secret
    secret.local_object_reference.name = "s"
    secret.items.add(key="key", path="a")
    assert volume.content(source(of), of, NAMED, FACTS) == {
        "a": volume.File(b"secret", 0o440),
        "b": volume.File(b"2", 0o440),
        "labels": volume.File(b'app="web"', 0o440),
        "cpu": volume.File(b"500", 0o600),
    }


@root_only
def test_secrets_are_in_memory(root: Path) -> None:
    of = with_volume()
    source(of).secret.secret_name = "s"
    source(of).secret.default_mode = 0o400
    place = make(of, root)
    assert files(place) == {"key": (b"secret", "0o400")}
    assert place in mount.below(root)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(place)], capture_output=True, text=True, check=True
    )
    assert kind.stdout.strip() == "tmpfs"
    # After a restart of the kubelet it is there already; after the machine's it is not.
    assert make(of, root) == place
    mount.unmount(place)
    assert files(make(of, root)) == {"key": (b"secret", "0o400")}
    volume.remove(root, UID)
    assert mount.below(root) == []


@root_only
def test_a_group_of_its_own(root: Path) -> None:
    of = with_volume(fs_group=4711)
    source(of).secret.secret_name = "s"
    source(of).secret.default_mode = 0o400
    place = make(of, root)
    assert files(place) == {"key": (b"secret", "0o440")}
    assert (place / "key").stat().st_gid == place.stat().st_gid == 4711
    of = with_volume(fs_group=4711)
    of.metadata.uid = "other"
    source(of).empty_dir.SetInParent()
    place = make(of, root)
    assert (place.stat().st_gid, oct(place.stat().st_mode & 0o7777)) == (4711, "0o2777")


# -- of the node -----------------------------------------------------------------------------------


def empty_dir(**change: Any) -> pod_pb2.Pod:
    """A pod with an empty directory."""
    of = with_volume()
    source(of).empty_dir.SetInParent()
    for key, value in change.items():
        if key == "size_limit":
            source(of).empty_dir.size_limit.string = value
        else:
            setattr(source(of).empty_dir, key, value)
    return of


def test_an_empty_directory_is_everybodys_and_lives_on(root: Path) -> None:
    before = os.umask(0o077)
    try:
        place = make(empty_dir(), root)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o777
    (place / "kept").write_text("x")
    # What a container makes of it is its own business.
    place.chmod(0o700)
    assert make(empty_dir(), root) == place
    assert (place / "kept").exists() and stat.S_IMODE(place.stat().st_mode) == 0o700
    assert not mounted(empty_dir(), root).readonly


@root_only
def test_an_empty_directory_in_memory_has_its_limit(root: Path) -> None:
    place = make(empty_dir(medium="Memory", size_limit="1Mi"), root)
    assert stat.S_IMODE(place.stat().st_mode) == 0o777
    with pytest.raises(OSError, match="No space"):
        (place / "big").write_bytes(b"x" * (2 << 20))


def test_an_empty_directory_on_disk_is_measured(root: Path) -> None:
    of = empty_dir(size_limit="1Mi")
    place = make(of, root)
    assert volume.is_limited(of) and not volume.is_limited(empty_dir())
    (place / "sparse").touch()
    os.truncate(place / "sparse", 1 << 30)
    (place / "loop").symlink_to(".")
    (place / "some").write_bytes(b"x" * (1 << 19))
    os.link(place / "some", place / "some-again")
    os.link(place / "some", place / "some-more")
    assert volume.overfull(of, root) == ""
    (place / "more").write_bytes(b"x" * (1 << 20))
    assert volume.overfull(of, root) == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi".'


def host_path(path: Path, kind: str = "") -> pod_pb2.Pod:
    """A pod with a path of the node."""
    of = with_volume()
    source(of).host_path.path, source(of).host_path.type = str(path), kind
    return of


def test_paths_of_the_node(root: Path, tmp_path: Path) -> None:
    there, file, gone = tmp_path / "dir", tmp_path / "file", tmp_path / "gone" / "deep"
    there.mkdir()
    file.touch()
    before = os.umask(0o022)
    try:
        for kind, path in (
            ("", there),
            ("", gone),
            ("Directory", there),
            ("File", file),
            ("DirectoryOrCreate", there),
            ("DirectoryOrCreate", gone),
            ("FileOrCreate", file),
            ("FileOrCreate", tmp_path / "new"),
        ):
            assert make(host_path(path, kind), root) == path
    finally:
        os.umask(before)
    assert stat.S_IMODE(gone.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o644
    for kind, path in (
        ("Directory", file),
        ("Directory", tmp_path / "no"),
        ("File", there),
        ("File", tmp_path / "no"),
        ("Socket", file),
        ("CharDevice", file),
        ("BlockDevice", Path("/dev/null")),
    ):
        with pytest.raises(volume.VolumeError, match="hostPath type check failed"):
            make(host_path(path, kind), root)
    make(host_path(Path("/dev/null"), "CharDevice"), root)
    # It is the node's: nothing of it goes with the pod.
    volume.remove(root, UID)
    assert there.exists() and file.exists()


# -- parts of volumes ------------------------------------------------------------------------------


def part(of: pod_pb2.Pod, path: str, *, is_expression: bool = False) -> pod_pb2.Pod:
    """The same, but its container sees only a part of it."""
    setattr(
        of.spec.containers[0].volume_mounts[0],
        "sub_path_expr" if is_expression else "sub_path",
        path,
    )
    return of


@root_only
def test_a_part_of_a_volume_is_what_is_mounted(root: Path) -> None:
    found = mounted(part(empty_dir(), "new/er"), root)
    place = volume.directory(root, UID) / "volumes" / "v" / "new" / "er"
    assert stat.S_IMODE(place.stat().st_mode) == 0o777
    (place / "x").write_text("1")
    assert (Path(found.host_path) / "x").read_text() == "1"
    assert Path(found.host_path) in mount.below(root)
    # Again, after the container has ended, and after a kubelet that died.
    assert mounted(part(empty_dir(), "new/er"), root) == found
    assert len(mount.below(root)) == 1
    by_name = mounted(part(empty_dir(), "$(POD)", is_expression=True), root, POD="web")
    assert (Path(by_name.host_path).stat().st_ino) == (place.parent.parent / "web").stat().st_ino
    with pytest.raises(env.Missing, match="NO"):
        mounted(part(empty_dir(), "$(NO)", is_expression=True), root)
    volume.remove(root, UID)
    assert mount.below(root) == []


@root_only
def test_a_key_of_an_object_is_a_file(root: Path) -> None:
    found = mounted(part(config_map(), "a"), root)
    assert found.readonly
    assert Path(found.host_path).read_bytes() == b"1"
    # It does not follow changes.
    volume.renew(config_map(), env.Named(config_maps={"m": {"a": b"9"}}), FACTS, root)
    assert Path(found.host_path).read_bytes() == b"1"
    with pytest.raises(volume.VolumeError, match="No such file"):
        mounted(part(config_map(), "gone"), root)


@root_only
@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../../x", "out", "out/x", "up/up", "loop", "abs"]
)
def test_no_part_leads_out_of_its_volume(root: Path, tmp_path: Path, path: str) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    place = make(empty_dir(), root)
    (place / "out").symlink_to(canary)
    (place / "up").symlink_to("..")
    (place / "loop").symlink_to("loop")
    (place / "abs").symlink_to("/")
    with pytest.raises((volume.VolumeError, refusal.Refused)):
        mounted(part(empty_dir(), path), root)
    assert list(canary.iterdir()) == []


@root_only
def test_links_inside_a_volume_are_followed(root: Path) -> None:
    place = make(empty_dir(), root)
    (place / "releases" / "1").mkdir(parents=True)
    (place / "current").symlink_to("releases/1")
    found = mounted(part(empty_dir(), "current"), root)
    assert Path(found.host_path).stat().st_ino == (place / "releases" / "1").stat().st_ino


@root_only
def test_nothing_is_removed_across_a_mount(root: Path, tmp_path: Path) -> None:
    """S88: what is mounted in a pod's directory, by whomever, is only unmounted."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "x").write_text("alive")
    place = make(empty_dir(), root)
    (place / "mounted").mkdir()
    opened = os.open(canary, os.O_PATH)
    mount.bind(opened, place / "mounted")
    os.close(opened)
    in_use = os.open(place / "mounted", os.O_RDONLY)
    volume.remove(root, UID)
    os.close(in_use)
    assert (canary / "x").read_text() == "alive"
    assert not volume.directory(root, UID).exists()


@pytest.mark.parametrize("uid", ["../../x", "..", "", "a/b"])
def test_an_uid_is_no_path(root: Path, uid: str) -> None:
    """S6."""
    with pytest.raises(volume.VolumeError):
        volume.remove(root, uid)


def test_claims_are_refused_by_name(root: Path) -> None:
    of = with_volume()
    source(of).persistent_volume_claim.claim_name = "c"
    with pytest.raises(volume.VolumeError, match="claims are not made yet"):
        make(of, root)
