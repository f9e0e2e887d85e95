"""The mark: what is known of a log outside of it.

A file with the cluster's id, its epoch, and a lower bound of the revisions that were acknowledged.
A log that is behind it has forgotten something, and is refused.
"""

import contextlib
import os
import pathlib
from typing import Final

from kcore.kernel.store import Opened, Refused

_SECONDS: Final = 1.0


class Mark:
    """A mark in a file, written at most once a second."""

    def __init__(self, path: pathlib.Path) -> None:
        """Nothing is touched yet."""
        self._path = path
        self._written_at = float("-inf")

    def check_absent(self, log: str) -> None:
        """Refuses to begin anew where a log was already; `log` names it."""
        mark = self._read()
        if mark is not None:
            raise Refused(
                f"{log}: there is no database, but {self._path} knows of revision {mark[2]}: "
                "restore the database, or remove that file to begin anew"
            )

    def check(self, log: str, opened: Opened) -> None:
        """Refuses another cluster's log, and one that has lost acknowledged writes."""
        mark = self._read()
        if mark is None:
            return
        cluster_id, epoch, revision = mark
        if opened.cluster_id != cluster_id:
            raise Refused(
                f"{log}: this is cluster {opened.cluster_id}, but {self._path} knows of cluster "
                f"{cluster_id}"
            )
        if opened.epoch < epoch or (opened.epoch == epoch and opened.head < revision):
            raise Refused(
                f"{log}: it ends at revision {opened.head}, but {self._path} knows of revision "
                f"{revision}: the database has lost acknowledged writes"
            )

    def epoch(self) -> int:
        """The epoch that is known; 0: none."""
        mark = self._read()
        return mark[1] if mark is not None else 0

    def note(self, opened: Opened, revision: int, moment: float) -> None:
        """Writes it, unless it was a moment ago; `moment` is a monotonic time."""
        if moment - self._written_at >= _SECONDS:
            self._written_at = moment
            self.write(opened, revision)

    def write(self, opened: Opened, revision: int) -> None:
        """A mark that stays behind is still true: it is a lower bound, so a failure is none."""
        new = self._path.with_name(self._path.name + "-new")
        with contextlib.suppress(OSError):
            with open(new, "w") as file:
                file.write(f"{opened.cluster_id} {opened.epoch} {revision}\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self._path)

    def _read(self) -> tuple[str, int, int] | None:
        try:
            cluster_id, epoch, revision = self._path.read_text().split()
            return cluster_id, int(epoch), int(revision)
        except FileNotFoundError:
            return None
        except ValueError:
            raise Refused(f"{self._path}: unreadable") from None
