"""What happened, in fixed columns: revision, actor, key, operation, because.

One line for each record of the log, and one for each fault. `digest` is the hash of all lines and
all bytes written: two runs of one seed have the same.
"""

import hashlib
from collections import deque
from collections.abc import Iterable

from kcore.kernel.record import Record

# Lines kept to be shown; the hash knows all.
_KEPT = 400


class Transcript:
    """The lines so far."""

    def __init__(self, kept: int = _KEPT) -> None:
        """`kept`: how many of the last lines can be shown."""
        self._lines: deque[str] = deque(maxlen=kept)
        self._hash = hashlib.sha256()
        self.length = 0

    def record(self, record: Record, seconds: float) -> None:
        """Something was written, `seconds` after the beginning."""
        operation = record.verb.value
        if record.subresource:
            operation += f"/{record.subresource}"
        kind = record.key.kind.rpartition(".")[2]
        place = "/".join(part for part in (record.key.namespace, record.key.name) if part)
        actor = record.manager or record.actor
        self._add(
            f"{seconds:10.3f} {record.revision:6d} {actor:22s} {kind + '/' + place:52s} "
            f"{operation:14s} {record.because or '-'}"
        )
        self._hash.update(record.checksum().to_bytes(4, "big"))

    def fault(self, seconds: float, what: str) -> None:
        """Something went wrong, as it was meant to."""
        self._add(f"{seconds:10.3f}      ! {what}")

    def lines(self) -> Iterable[str]:
        """The last lines."""
        return tuple(self._lines)

    def digest(self) -> str:
        """Hash of all lines, and of all that was written."""
        return self._hash.hexdigest()

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.length += 1
