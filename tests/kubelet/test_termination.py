"""Last words of containers: their file, their log, and what they may not do with those."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.kubelet import container, termination
from kcore.kubelet.observed import Container
from tests.kubelet.scene import pod, see


def ended(code: int = 1, message: str = "") -> Container:
    """An instance that has ended."""
    (found,) = see(f"s0- a0=exited:{code}").containers
    return replace(found, message=message)


def words(root: Path, of: pod_pb2.Pod, one: Container) -> str:
    """What it has left."""
    return termination.words(root, root / "logs", of, of.spec.containers[0], one)


def log(root: Path, of: pod_pb2.Pod, *lines: bytes) -> Path:
    """Its log, in the runtime's format."""
    path = container.log_directory(root / "logs", of) / container.log_path("a", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = b"2026-01-31T12:00:00.123456789Z stdout F "
    path.write_bytes(b"".join(head + line + b"\n" for line in lines))
    return path


def test_what_it_wrote(tmp_path: Path) -> None:
    of = pod()
    place = termination.prepare(tmp_path, of, of.spec.containers[0], 0)
    assert oct(place.stat().st_mode & 0o777) == "0o666"
    assert words(tmp_path, of, ended()) == ""
    place.write_bytes(b"out of luck \xff")
    assert words(tmp_path, of, ended(0)) == "out of luck �"
    assert words(tmp_path, of, ended(128, "no such file")) == "no such file: out of luck �"
    place.write_bytes(b"x" * 5000)
    assert words(tmp_path, of, ended()) == "x" * 4096
    os.truncate(place, 1 << 40)
    assert len(words(tmp_path, of, ended())) == 4096


def test_each_instance_has_its_own(tmp_path: Path) -> None:
    of = pod()
    for attempt in range(3):
        place = termination.prepare(tmp_path, of, of.spec.containers[0], attempt)
        place.write_text(str(attempt))
    assert sorted(one.name for one in place.parent.iterdir()) == ["1", "2"]
    # Made again after a crash, it is empty.
    assert termination.prepare(tmp_path, of, of.spec.containers[0], 2).read_text() == ""


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_a_file_is_read(tmp_path: Path, kind: str) -> None:
    of = pod()
    place = termination.prepare(tmp_path, of, of.spec.containers[0], 0)
    place.unlink()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    assert words(tmp_path, of, ended()) == ""


def test_the_end_of_the_log_speaks_for_who_failed_in_silence(tmp_path: Path) -> None:
    of = pod()
    one = of.spec.containers[0]
    place = termination.prepare(tmp_path, of, one, 0)
    path = log(tmp_path, of, *(b"line %d" % number for number in range(200)))
    assert words(tmp_path, of, ended()) == ""
    one.termination_message_policy = "FallbackToLogsOnError"
    assert words(tmp_path, of, ended(0)) == ""
    found = words(tmp_path, of, ended()).splitlines()
    assert (found[0], found[-1], len(found)) == ("line 120", "line 199", 80)
    log(tmp_path, of, *(b"x" * 100 for _ in range(200)))
    assert len(words(tmp_path, of, ended())) == 2048
    place.write_text("own words")
    assert words(tmp_path, of, ended()) == "own words"
    place.write_text("")
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert words(tmp_path, of, ended()) == ""
