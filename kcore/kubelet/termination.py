"""A container's last words: the file at its terminationMessagePath, or the end of its log.

`prepare` makes the file that is mounted into one instance of a container, `words` reads what that
instance has left in it. Containers write these files and their logs: they are opened by
kcore/kubelet/inside.py alone, and no more is read than a message may have.
"""

import os
from pathlib import Path

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.kubelet import container, inside, log, volume
from kcore.kubelet.observed import Container

MOST_BYTES = 4096
# Of the log, where the file is empty and the container failed.
LOG_BYTES = 2048
LOG_LINES = 80
# Lines of the log have a head each, and the first one found may be cut.
_READ_BYTES = 4 * LOG_BYTES + 64 * LOG_LINES


def prepare(root: Path, pod: pod_pb2.Pod, spec: container_pb2.Container, attempt: int) -> Path:
    """The file that the instance is to see at its path; anybody in it may write there."""
    place = _place(root, pod, spec.name, attempt)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    for old in sorted(place.parent.iterdir()):
        # The one before is still asked about.
        if old.name not in (place.name, str(attempt - 1)):
            old.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(place, flags, 0o600)
    try:
        os.fchmod(made, 0o666)
    finally:
        os.close(made)
    return place


def words(
    root: Path, logs: Path, pod: pod_pb2.Pod, spec: container_pb2.Container, ended: Container
) -> str:
    """What it has left, after what the runtime says of its end."""
    said = _read(_place(root, pod, spec.name, ended.attempt), MOST_BYTES)
    fall_back = spec.termination_message_policy == "FallbackToLogsOnError"
    if not said and fall_back and ended.exit_code != 0:
        said = _end_of_log(container.log_directory(logs, pod), spec.name, ended.attempt)
    text = said.decode("utf-8", "replace")
    return ": ".join(part for part in (ended.message, text) if part)


def _place(root: Path, pod: pod_pb2.Pod, name: str, attempt: int) -> Path:
    return volume.directory(root, pod.metadata.uid) / "termination" / name / str(attempt)


def _read(place: Path, most_bytes: int) -> bytes:
    try:
        return inside.read(place.parent, place.name, most_bytes)
    except OSError:
        return b""


def _end_of_log(directory: Path, name: str, attempt: int) -> bytes:
    raw = _read(directory / container.log_path(name, attempt), _READ_BYTES)
    if len(raw) == _READ_BYTES:
        # It begins within a line.
        raw = raw.partition(b"\n")[2]
    lines = log.Lines()
    pieces = [*lines.feed(raw), *lines.cut()]
    text = b"".join(piece.text for piece in pieces).splitlines(keepends=True)[-LOG_LINES:]
    return b"".join(text)[-LOG_BYTES:]
