"""Which cluster this node belongs to, and how far it has seen that cluster's log.

A server that is another cluster, or the same one with a forgotten past, must not be believed: what
it does not show would be ended here, though it has merely been forgotten. So the cluster's id, its
epoch and the highest revision seen are kept on disk, and `Foreign` is raised where they do not fit.
A deliberate restore has a greater epoch, and is followed.
"""

import json
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb

# Seconds between two writes while only the revision moves: it is a lower bound.
WRITE_SECONDS = 1.0


class Foreign(Exception):
    """The server is not the one that this node belongs to."""


class Belonging:
    """The memory of one node, in a file."""

    def __init__(self, path: Path) -> None:
        """`path` may not be there yet: then the first cluster that is met is taken."""
        self._path = path
        self._cluster = ""
        self._epoch = 0
        self._revision = 0
        self._written_at = float("-inf")
        try:
            kept = json.loads(path.read_text())
            found = str(kept["cluster"]), int(kept["epoch"]), int(kept["revision"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            # Half a file is as good as none: what counts is written whole or not at all.
            return
        self._cluster, self._epoch, self._revision = found

    def meet(self, server: pb.KindsResponse) -> bool:
        """Whether its past is a new one, so that nothing can be resumed. May raise Foreign."""
        if not self._cluster:
            self._cluster, self._epoch = server.cluster_id, server.epoch
            self._write()
            return False
        if server.cluster_id != self._cluster or server.epoch < self._epoch:
            raise Foreign(
                f"the server is cluster {server.cluster_id} epoch {server.epoch}, this node belongs"
                f" to {self._cluster} epoch {self._epoch}; remove {self._path} to join the other"
            )
        if server.epoch == self._epoch:
            return False
        self._epoch, self._revision = server.epoch, 0
        self._write()
        return True

    def see(self, revision: int, now: float) -> None:
        """The server's log goes as far as this. May raise Foreign. `now`: the steady clock's."""
        if revision < self._revision:
            raise Foreign(
                f"the server's log ends at revision {revision}, this node has seen "
                f"{self._revision}: the server has forgotten; restore it with a new epoch"
            )
        moved, self._revision = revision != self._revision, revision
        if moved and now - self._written_at >= WRITE_SECONDS:
            self._written_at = now
            self._write()

    def _write(self) -> None:
        kept = {"cluster": self._cluster, "epoch": self._epoch, "revision": self._revision}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(kept) + "\n")
        draft.replace(self._path)
