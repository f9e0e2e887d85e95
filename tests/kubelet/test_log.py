"""Logs: lines, tails, since, limits; following over rotation and truncation; files of ill will."""

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.clock import LoopClock
from kcore.kubelet import cri, inside, log, rotate
from kcore.wire.errors import ApiError, Reason

pytestmark = pytest.mark.looptime

EPOCH = 1_700_000_000
LETTERS = st.characters(codec="utf-8", exclude_characters="\n")


def stamp(seconds: float) -> str:
    return (
        datetime.fromtimestamp(EPOCH + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + ".000000007Z"
    )


def line(seconds: float, text: str, stream: str = "stdout", tag: str = "F") -> str:
    return f"{stamp(seconds)} {stream} {tag} {text}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "pod" / "main" / "0.log"
    found.parent.mkdir(parents=True)
    return found


def request(**fields: object) -> pod_stream_pb2.LogsRequest:
    since = fields.pop("since", None)
    made = pod_stream_pb2.LogsRequest(**fields)  # type: ignore[arg-type]
    if since is not None:
        made.since.seconds = EPOCH + since  # type: ignore[operator]
    return made


async def lines(
    path: Path, ended: Callable[[], bool] = lambda: True, **fields: object
) -> list[pod_stream_pb2.LogLine]:
    found = []
    async for response in log.read(path, request(**fields), ended, LoopClock()):
        assert 0 < response.ByteSize() <= 256 * 1024
        found += response.lines
    return found


async def texts(
    path: Path, ended: Callable[[], bool] = lambda: True, **fields: object
) -> list[str]:
    return [one.text.decode() for one in await lines(path, ended, **fields)]


async def test_lines_have_time_stream_and_text(path: Path) -> None:
    path.write_text(line(1, "one") + line(2, "two", "stderr") + line(3, ""))
    found = await lines(path)
    assert [(one.text, one.stderr, one.time.seconds, one.time.nanos) for one in found] == [
        (b"one\n", False, EPOCH + 1, 7),
        (b"two\n", True, EPOCH + 2, 7),
        (b"\n", False, EPOCH + 3, 7),
    ]


def test_times_have_zones_and_any_precision() -> None:
    for text, seconds, nanos in (
        ("2023-11-15T00:13:20+02:00", EPOCH, 0),
        ("2023-11-14T22:13:20.5Z", EPOCH, 500_000_000),
        ("2023-11-14T22:13:20.123456789Z", EPOCH, 123_456_789),
    ):
        piece = log.parse(f"{text} stdout F x".encode())
        assert (piece.seconds, piece.nanos, piece.text) == (seconds, nanos, b"x\n")


async def test_pieces_of_a_line_are_put_together(path: Path) -> None:
    path.write_text(
        line(1, "a", tag="P")
        + line(2, "err", "stderr", "P")
        + line(3, "b", tag="P")
        + line(4, "or", "stderr")
        + line(5, "c")
        + line(6, "unfinished", tag="P")
    )
    assert await texts(path) == ["error\n", "abc\n", "unfinished"]
    assert (await lines(path))[1].time.seconds == EPOCH + 1


async def test_docker_writes_json_behind_a_link(path: Path, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    (docker / "c1").mkdir(parents=True)
    real = docker / "c1" / "c1-json.log"
    said = [("out\n", "stdout"), ("par", "stdout"), ("tial\n", "stdout"), ("err\n", "stderr")]
    real.write_text(
        "".join(
            json.dumps({"log": text, "stream": stream, "time": stamp(at)}) + "\n"
            for at, (text, stream) in enumerate(said)
        )
    )
    path.symlink_to(real)
    found = [
        response
        async for response in log.read(path, request(), lambda: True, LoopClock(), docker=docker)
    ]
    assert [(one.text, one.stderr) for one in found[0].lines] == [
        (b"out\n", False),
        (b"partial\n", False),
        (b"err\n", True),
    ]
    with pytest.raises(ApiError, match="can't be read"):
        await lines(path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(ApiError, match="where no logs are"):
        async for _ in log.read(path, request(), lambda: True, LoopClock(), docker=elsewhere):
            pass


@pytest.mark.parametrize("wanted", [0, 1, 2, 7, 499, 500, 10_000])
@pytest.mark.parametrize("width", [0, 30, 300])
async def test_the_last_lines(path: Path, wanted: int, width: int) -> None:
    path.write_text("".join(line(n, f"{n} {'x' * width}") for n in range(500)))
    found = await texts(path, tail_lines=wanted)
    assert found == [f"{n} {'x' * width}\n" for n in range(500)][max(0, 500 - wanted) :]


async def test_the_last_lines_of_long_ones_in_pieces(path: Path) -> None:
    pieces = [line(1, "y" * 16_000, tag="P") for _ in range(3)] + [line(1, "end")]
    path.write_text("".join(pieces * 5))
    assert await texts(path, tail_lines=2) == ["y" * 48_000 + "end\n"] * 2


@given(
    said=st.lists(
        st.tuples(
            st.booleans(),
            st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=9),
        ),
        max_size=40,
    ),
    tail=st.integers(0, 50),
    splits=st.lists(st.integers(0, 40), max_size=3),
)
async def test_any_lines_over_any_files(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[bool, str]],
    tail: int,
    splits: list[int],
) -> None:
    path = tmp_path_factory.mktemp("log") / "main" / "0.log"
    path.parent.mkdir()
    raws = [line(n, text, "stderr" if err else "stdout") for n, (err, text) in enumerate(said)]
    bounds = sorted({0, *(min(at, len(raws)) for at in splits)})
    for number, (start, end) in enumerate(zip(bounds, [*bounds[1:], len(raws)], strict=True)):
        last = start == bounds[-1]
        name = "0.log" if last else f"0.log.{number + 3}"
        (path.parent / name).write_text("".join(raws[start:end]), newline="")
    want = [f"{text}\n" for _, text in said]
    assert await texts(path) == want
    assert await texts(path, tail_lines=tail) == want[max(0, len(want) - tail) :]
    assert await texts(path, follow=True) == want


@given(st.binary(max_size=400))
def test_no_bytes_do_harm(data: bytes) -> None:
    found = log.Lines()
    given_lines = [*found.feed(data), *found.cut()]
    for raw in data.split(b"\n"):
        assert log.parse(raw).text is not None
    if b"stdout" not in data and b"stderr" not in data and b'"log"' not in data:
        assert b"".join(one.text for one in given_lines).rstrip(b"\n") == data.rstrip(b"\n")


def test_a_line_without_end_comes_in_pieces() -> None:
    found = log.Lines()
    pieces = []
    for _ in range(40):
        pieces += found.feed(b"z" * 65_536)
    pieces += found.cut()
    assert all(len(one.text) <= log.LINE_BYTES for one in pieces)
    assert sum(one.text.count(b"z") for one in pieces) == 40 * 65_536
    deep = b'{"log":' + b"[" * 100_000
    assert log.parse(deep).text == deep + b"\n"


async def test_since_and_limit(path: Path) -> None:
    path.write_text("".join(line(n, f"l{n}") for n in range(100)))
    assert await texts(path, since=97) == ["l97\n", "l98\n", "l99\n"]
    assert await texts(path, since=97, limit_bytes=6) == ["l97\n", "l9"]
    assert await texts(path, limit_bytes=0) == []
    assert await texts(path, tail_lines=5, since=98) == ["l98\n", "l99\n"]


async def test_following_ends_with_the_container(path: Path) -> None:
    clock, ended = LoopClock(), False
    path.write_text(line(0, "first"))

    async def write() -> None:
        nonlocal ended
        for n in range(5):
            await clock.sleep(3)
            with path.open("a") as file:
                file.write(line(n, f"n{n}")[:20])
                file.flush()
                await clock.sleep(0.5)
                file.write(line(n, f"n{n}")[20:])
        with path.open("a") as file:
            ended = True
            file.write(line(9, "last"))

    found, _ = await asyncio.gather(texts(path, lambda: ended, follow=True), write())
    assert found == ["first\n", *(f"n{n}\n" for n in range(5)), "last\n"]


async def test_what_comes_is_shown_at_once(path: Path) -> None:
    clock = LoopClock()
    path.write_text(line(0, "first"))
    reading = log.read(path, request(follow=True, tail_lines=0), lambda: False, clock)
    waiting = asyncio.create_task(anext(reading))
    await clock.sleep(60)
    with path.open("a") as file:
        file.write(line(1, "news"))
    before = clock.monotonic()
    assert (await waiting).lines[0].text == b"news\n"
    assert clock.monotonic() - before <= log.SLOW_SECONDS
    await reading.aclose()


async def test_not_following_ends_though_more_is_written(path: Path) -> None:
    path.write_text("".join(line(n, "x" * 500) for n in range(1000)))
    count = 0
    async for response in log.read(path, request(), lambda: False, LoopClock()):
        count += len(response.lines)
        with path.open("a") as file:
            file.write(line(1, "y" * 1000) * 1000)
    assert count == 1000


async def test_a_log_that_is_about_to_come(path: Path) -> None:
    async def write() -> None:
        await LoopClock().sleep(5)
        path.write_text(line(0, "there"))

    with pytest.raises(ApiError) as caught:
        await texts(path)
    assert caught.value.reason is Reason.NOT_FOUND
    found, _ = await asyncio.gather(texts(path, path.exists, follow=True), write())
    assert found == ["there\n"]


async def test_truncated_files_begin_anew(path: Path) -> None:
    ended = False
    path.write_text(line(0, "a long first line"))

    async def write() -> None:
        nonlocal ended
        await LoopClock().sleep(5)
        path.write_text(line(1, "new"))
        ended = True

    found, _ = await asyncio.gather(texts(path, lambda: ended, follow=True), write())
    assert found == ["a long first line\n", "new\n"]


class Writer:
    """A runtime's container, as far as its log goes. Writes to where it opened last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.opened = 0
        self.broken = False
        self.file = path.open("ab", buffering=0)

    def write(self, lines: int = 1) -> None:
        for _ in range(lines):
            self.file.write(line(self.count, f"{self.count}").encode())
            self.count += 1

    async def reopen_container_log(self, container_id: str) -> None:
        assert container_id == "c1"
        if self.broken:
            raise cri.CriError(cri.Code.UNAVAILABLE, "gone", "ReopenContainerLog")
        # What is on its way still goes to the old file, after the new one is there.
        old, self.file = self.file, self.path.open("ab", buffering=0)
        old.write(line(self.count, f"{self.count}").encode())
        self.count += 1
        old.close()
        self.opened += 1


async def test_following_goes_on_over_rotation(path: Path) -> None:
    clock, ended = LoopClock(), False
    writer = Writer(path)
    rotation = rotate.Rotation(writer, most_bytes=2000)  # type: ignore[arg-type]

    async def write() -> None:
        nonlocal ended
        for _ in range(200):
            writer.write(10)
            await rotation.look([rotate.Written("c1", path)], clock.monotonic())
            await clock.sleep(0.3)
        ended = True

    found, _ = await asyncio.gather(texts(path, lambda: ended, follow=True), write())
    assert found == [f"{n}\n" for n in range(writer.count)]
    assert writer.opened > 30
    assert len(os.listdir(path.parent)) == rotate.MOST_FILES
    # All that is left is one log, oldest first.
    left = await texts(path)
    assert left == [f"{n}\n" for n in range(writer.count - len(left), writer.count)]
    assert len(left) > 100
    assert await texts(path, tail_lines=90) == left[-90:]


async def test_a_reader_that_is_behind_by_files_misses_nothing(path: Path) -> None:
    writer = Writer(path)
    rotation = rotate.Rotation(writer, most_bytes=1)  # type: ignore[arg-type]
    ended = False
    reading = log.read(path, request(follow=True), lambda: ended, LoopClock())
    writer.write(10_000)
    count = len((await anext(reading)).lines)
    for _ in range(3):
        await rotation.look([rotate.Written("c1", path)], 0)
        writer.write(10)
    ended = True
    async for response in reading:
        count += len(response.lines)
    assert count == writer.count == 10_033


async def test_a_rotation_that_was_cut_short_is_finished(path: Path) -> None:
    writer = Writer(path)
    rotation = rotate.Rotation(writer, most_bytes=100)  # type: ignore[arg-type]
    written = [rotate.Written("c1", path)]
    writer.write(5)
    writer.broken = True
    await rotation.look(written, 0)
    assert os.listdir(path.parent) == ["0.log"]
    path.rename(path.with_name("0.log.1"))
    assert await texts(path) == [f"{n}\n" for n in range(5)]
    writer.broken = False
    await rotation.look(written, 1)
    assert sorted(os.listdir(path.parent)) == ["0.log", "0.log.1"]
    # Nothing there to rotate, as in a simulation: nobody is asked anything.
    await rotation.look([rotate.Written("c2", path.parent / "none" / "x" / "0.log")], 2)


async def test_fast_logs_are_looked_at_often(path: Path) -> None:
    writer = Writer(path)
    rotation = rotate.Rotation(writer, most_bytes=100_000)  # type: ignore[arg-type]
    written = [rotate.Written("c1", path)]
    assert await rotation.look(written, 0) == rotate.SLOW_SECONDS
    writer.write(1000)
    assert rotate.QUICK_SECONDS <= await rotation.look(written, 2) < 2
    assert await rotation.look(written, 4) == rotate.SLOW_SECONDS


async def test_links_pipes_and_directories_are_not_logs(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root")

    async def refused() -> None:
        with pytest.raises(ApiError) as caught:
            await texts(path)
        assert caught.value.reason is Reason.REFUSED
        assert str(tmp_path) not in caught.value.message

    path.symlink_to(secret)
    await refused()
    path.unlink()
    os.mkfifo(path)
    await refused()
    path.unlink()
    path.mkdir()
    await refused()
    path.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0.log").write_text("root")
    path.parent.rmdir()
    path.parent.symlink_to(elsewhere)
    await refused()


def test_nothing_leads_out_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("0123456789")
    assert inside.read(tmp_path, "a/f", 4) == b"6789"
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for relative in ("../x", "/etc/passwd", "a/../a/f", "link/f", "a\0/f", "", "a"):
        with pytest.raises(OSError):
            inside.read(tmp_path, relative, 4)
