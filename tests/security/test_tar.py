"""S82: archives of an enemy are unpacked into their place and nowhere else; errors name the entry.

Each row is one of the ways that were found in other unpackers: kubectl's CVE-2018-1002100,
-2019-1002101, -11246, -11249, -11251, and Python's CVE-2007-4559 and -2025-4517.
"""

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.cli import tar, unpack
from kcore.cli.tar import ArchiveError

DATA = b"data"
Add = Callable[..., None]


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: Any) -> bytes:
    """One entry, exactly as it is said."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), more.pop("mode", 0o644)
    for key, value in more.items():
        setattr(info, key, value)
    body = data + bytes(-len(data) % 512)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + body


def file(name: str, data: bytes = DATA, **more: Any) -> bytes:
    return member(name, tarfile.REGTYPE, data, **more)


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
    return member(name, kind, linkname=to)


TOP = member("top", tarfile.DIRTYPE, mode=0o755)
GOOD = file("top/good", b"good")
END = bytes(1024)


class Place:
    """A directory with a secret beside it, which nothing may touch."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.target = home / "target"
        self.said: list[str] = []
        (home / "secret").write_text("secret")
        (home / "outside").mkdir()

    def unpack(self, *parts: bytes, name: str = "top", step: int = 1 << 20) -> unpack.Unpacker:
        data = b"".join(parts) + END
        with unpack.Unpacker(self.target, name, self.said.append) as unpacker:
            for at in range(0, len(data), step):
                unpacker.feed(data[at : at + step])
            unpacker.end()
        return unpacker

    def check(self) -> None:
        """Nothing outside was made, changed, or opened to others; no drafts are left."""
        assert sorted(os.listdir(self.home)) in (
            ["outside", "secret", "target"],
            ["outside", "secret"],
        )
        assert os.listdir(self.home / "outside") == []
        assert (self.home / "secret").read_text() == "secret"
        assert (self.home / "secret").stat().st_nlink == 1
        for directory, _, files in os.walk(self.target):
            assert not [name for name in files if name.startswith(".kcore-")]
            for one in files:
                mode = os.lstat(Path(directory, one)).st_mode
                assert stat.S_ISREG(mode) or stat.S_ISLNK(mode)
                assert not mode & 0o7000 or stat.S_ISLNK(mode)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.check()


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        pytest.param([file("top/../../x")], "top/../../x", id="S82-upwards"),
        pytest.param([file("../x")], "../x", id="S82-upwards-from-the-start"),
        pytest.param([file("top/..")], "top/..", id="S82-the-parent-itself"),
        pytest.param([file("/outside/x")], "/outside/x", id="S82-absolute"),
        pytest.param([file("other/x")], "other/x", id="S82-not-asked-for"),
        pytest.param(
            [link("top/l", "../outside"), file("top/l/x")], "top/l/x", id="S82-through-a-link"
        ),
        pytest.param(
            [link("top/l", "sub"), file("top/l/x")],
            "top/l/x",
            id="S82-through-a-link-that-stays-within",
        ),
        pytest.param(
            [link("top/l", "../secret"), file("top/l")],
            "top/l",
            id="S82-over-a-link-to-a-secret",
        ),
        pytest.param(
            [
                member("top/a", tarfile.DIRTYPE),
                member("top/a/b", tarfile.DIRTYPE),
                link("top/a/b/up", "../.."),
                link("top/out", "a/b/up/../outside"),
                file("top/out/x"),
            ],
            "top/out",
            id="S82-two-links-in-a-chain",
        ),
        pytest.param(
            [link("top/a", "."), link("top/a/b", "../outside"), file("top/a/b/x")],
            "top/a/b",
            id="S82-a-link-made-through-a-link",
        ),
        pytest.param(
            [link("top/h", "/etc/hostname", tarfile.LNKTYPE)], "top/h", id="S82-hard-link-absolute"
        ),
        pytest.param(
            [link("top/h", "top/../../secret", tarfile.LNKTYPE)],
            "top/h",
            id="S82-hard-link-upwards",
        ),
        pytest.param(
            [link("top/s", "../secret"), link("top/h", "top/s", tarfile.LNKTYPE)],
            "top/h",
            id="S82-hard-link-to-a-link",
        ),
        pytest.param(
            [member("top/d", tarfile.CHRTYPE, devmajor=1, devminor=3)], "top/d", id="S82-device"
        ),
        pytest.param(
            [member("top/d", tarfile.BLKTYPE, devmajor=8)], "top/d", id="S82-block-device"
        ),
        pytest.param([member("top/f", tarfile.FIFOTYPE)], "top/f", id="S82-fifo"),
        pytest.param([member("top/o", b"9")], "top/o", id="S82-unknown-kind"),
        pytest.param([file("top/t"), file("top/t", b"other")], "top/t", id="S82-duplicate"),
        pytest.param(
            [file("top/t"), link("top/t", "../secret"), file("top/t", b"other")],
            "top/t",
            id="S82-duplicate-with-a-link-between",
        ),
        pytest.param(
            [member("top/t", tarfile.DIRTYPE), file("top/t")], "top/t", id="S82-file-over-directory"
        ),
        pytest.param(
            [file("top/t"), member("top/t", tarfile.DIRTYPE)], "top/t", id="S82-directory-over-file"
        ),
        pytest.param([file("top/" + "n" * 300)], "n" * 300, id="S82-name-too-long"),
        pytest.param(
            [file("top/" + "d/" * 3000 + "../" * 3002 + "x")], "../x", id="S82-deep-and-up"
        ),
    ],
)
def test_what_leads_out_is_refused_by_name_and_the_rest_goes_on(
    place: Place, parts: list[bytes], named: str
) -> None:
    unpacker = place.unpack(TOP, *parts, GOOD)
    assert unpacker.refused
    assert any(line.startswith("error: ") and named in line for line in place.said), place.said
    assert (place.target / "good").read_bytes() == b"good"


def test_setuid_is_dropped_and_that_is_said(place: Place) -> None:
    """S82-setuid."""
    place.unpack(TOP, file("top/su", mode=0o6755), GOOD)
    assert stat.S_IMODE((place.target / "su").stat().st_mode) & 0o7000 == 0
    assert any("top/su" in line and "setuid" in line for line in place.said)
    place.unpack(member("top", tarfile.DIRTYPE, mode=0o7777))
    assert (place.target).stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize("size", [1 << 40, 1 << 62], ids=["S82-1-TB", "S82-4-EB"])
def test_a_file_that_does_not_fit_ends_it_at_once(place: Place, size: int) -> None:
    head = member("top/huge", data=b"")
    info = tarfile.TarInfo("top/huge")
    info.size = size
    head = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ArchiveError, match=r"'top/huge' is said to have [0-9]+ bytes: no room"):
        place.unpack(TOP, head, DATA)
    assert not (place.target / "huge").exists()


def test_a_name_that_is_huge_is_not_taken_into_memory(place: Place) -> None:
    """S82-1-TB, of a name."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with pytest.raises(ArchiveError, match=r"a name of 1099511627776 bytes, after 'top/'"):
        place.unpack(TOP, info.tobuf(tarfile.GNU_FORMAT), DATA)


def test_what_ends_too_early_leaves_no_half_file(place: Place) -> None:
    whole = TOP + file("top/a", bytes(5000))
    for size in (100, 600, 1100, 3000):
        with (
            pytest.raises(ArchiveError, match="too early"),
            unpack.Unpacker(place.target, "top", place.said.append) as unpacker,
        ):
            unpacker.feed(whole[:size])
            unpacker.end()
        assert not (place.target / "a").exists()


def test_what_is_there_is_replaced_not_written_through(place: Place) -> None:
    place.target.mkdir()
    (place.target / "mine").symlink_to(place.home / "secret")
    os.link(place.home / "secret", place.target / "two")
    (place.target / "elsewhere").symlink_to(place.home / "outside")
    place.unpack(TOP, file("top/mine"), file("top/two"), file("top/elsewhere/x"))
    assert (place.target / "mine").read_bytes() == DATA
    assert not (place.target / "mine").is_symlink()
    assert (place.target / "two").read_bytes() == DATA
    assert "error: 'top/elsewhere/x' is not unpacked" in place.said[0]


def test_good_trees_come_whole(place: Place) -> None:
    deep = "top/" + "d" * 90 + "/" + "e" * 90 + "/f"
    place.unpack(
        TOP,
        member("top/sub", tarfile.DIRTYPE, mode=0o500),
        file("top/sub/run", mode=0o750, mtime=1_700_000_000),
        link("top/sub/up", "../good"),
        link("top/again", "top/sub/run", tarfile.LNKTYPE),
        link("top/way", "sub"),
        file(deep, bytes(200_000)),
        file("top/öäü \udcff"),
        GOOD,
        step=777,
    )
    target = place.target
    assert place.said == []
    run = (target / "sub/run").stat()
    assert (stat.S_IMODE(run.st_mode), run.st_mtime) == (0o750, 1_700_000_000)
    assert run.st_nlink == 2 and (target / "again").samefile(target / "sub/run")
    assert (target / "sub/up").read_bytes() == b"good"
    assert (target / "way/run").read_bytes() == DATA
    assert (target / deep.removeprefix("top/")).stat().st_size == 200_000
    assert (target / "öäü \udcff").read_bytes() == DATA


def test_one_file_goes_to_or_into_the_target(place: Place) -> None:
    place.unpack(file("top"))
    assert place.target.read_bytes() == DATA
    place.target.unlink()
    place.target.mkdir()
    place.unpack(file("top"), file("top/more"))
    assert (place.target / "top").read_bytes() == DATA
    assert "'top/more' is not unpacked: 'top' is not a directory" in place.said[0]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_other_hands_are_read(place: Place, form: int) -> None:
    made = io.BytesIO()
    source = place.home / "outside"
    names = ["a", "ü" * 40, "long" * 20 + "/" + "er" * 40]
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for name in ("top", "top/" + "long" * 20):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for name in names:
            info = tarfile.TarInfo(f"top/{name}")
            info.size, info.mtime = 4, 1_700_000_000.5  # type: ignore[assignment]
            if form == tarfile.USTAR_FORMAT:
                info.mtime = 1_700_000_000
            archive.addfile(info, io.BytesIO(DATA))
    place.unpack(made.getvalue(), step=1000)
    assert place.said == []
    assert all((place.target / name).read_bytes() == DATA for name in names)
    assert source.is_dir()


def test_what_is_packed_is_unpacked_the_same(place: Place) -> None:
    source = place.home / "outside" / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / ("n" * 150)).write_bytes(os.urandom(300_001))
    (source / "empty").touch(mode=0o640)
    (source / "link").symlink_to("sub")
    os.mkfifo(source / "pipe")
    said: list[str] = []
    data = b"".join(tar.pack(source, "top", said.append))
    assert said == [f"{source / 'pipe'} is left out: it is no file, directory or link"]
    place.unpack(data)
    assert place.said == []
    assert (place.target / "sub" / ("n" * 150)).read_bytes() == (
        source / "sub" / ("n" * 150)
    ).read_bytes()
    assert os.readlink(place.target / "link") == "sub"
    assert stat.S_IMODE((place.target / "empty").stat().st_mode) == 0o640
    # Others read it, too.
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert sorted(archive.getnames())[:2] == ["top", "top/empty"]
    for path in sorted(source.rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
    source.rmdir()


@given(st.binary(max_size=3000), st.integers(0, 1500), st.booleans())
def test_no_bytes_do_harm(noise: bytes, at: int, valid: bool) -> None:
    good = TOP + file("top/a", b"x" * 100) + link("top/l", "a") + END
    data = good[:at] + noise + good[at:] if valid else noise
    reader = tar.Reader()
    try:
        for start in range(0, len(data), 100):
            reader.feed(data[start : start + 100])
        reader.end()
    except ArchiveError as error:
        assert str(error)
