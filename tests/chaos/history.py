"""What clients did, as they saw it: each operation with when it was sent and when it returned.

A `History` is filled by the workload and judged by tests/chaos/witness.py. Times are of one
monotonic clock in one process, so "returned before the other was sent" is a fact.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from kcore.kernel.record import Key


class Outcome(Enum):
    """What the client knows."""

    OK = "ok"
    # The server said that it was not done.
    FAILED = "failed"
    # It may have been done.
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Write:
    """One transaction."""

    request_id: str
    # The keys that it writes, and for each the revision that it is guarded by; None: by none.
    keys: Mapping[Key, int | None]
    sent: float
    returned: float = 0.0
    outcome: Outcome = Outcome.UNKNOWN
    revision: int = 0
    # Whether it made a revision; else it is as good as a read.
    changed: bool = True
    # Why it failed.
    said: str = ""


@dataclass(slots=True)
class Read:
    """A Get or a List; of one that failed nothing is known."""

    kind: str
    namespace: str
    # None: all.
    name: str | None
    sent: float
    returned: float
    # The revision that the answer says; 0: "not found", which says none.
    revision: int
    found: Mapping[Key, bytes]
    # It asked for this revision; None: for the present.
    at: int | None = None


@dataclass(slots=True)
class History:
    """All of them."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def acknowledged(self) -> int:
        """Operations of which the outcome is known to be good."""
        return len(self.reads) + sum(one.outcome is Outcome.OK for one in self.writes)

    def written(self) -> int:
        """Transactions that were acknowledged and made a revision."""
        return sum(one.outcome is Outcome.OK and one.changed for one in self.writes)


def now() -> float:
    """The clock of all histories."""
    return time.monotonic()
