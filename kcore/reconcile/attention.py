"""How much time has passed in which the view was known to be complete.

Whoever says "it has been silent for 40 seconds" must have listened for 40 seconds: an apiserver
that is down, a connection that hangs, a process that was stopped are no silence of others.
`proved(at)` says that the view was complete at a moment of the monotonic clock; between two proofs
at most `MOST_SECONDS` count. `seconds` is what has been proved so far, `most(at)` what it may be
by then, with the one proof that may still be on its way: what began now began at `most`, so spans
come out too short rather than too long. Wall clocks do not matter.
"""

from dataclasses import dataclass

# How often to ask for a proof, and how much one can be worth.
ASK_SECONDS = 5.0
MOST_SECONDS = 10.0


@dataclass(slots=True)
class Attention:
    """Time that was listened through. `since`: when it began."""

    since: float
    seconds: float = 0.0

    def proved(self, at: float) -> None:
        """The view was complete then."""
        if at > self.since:
            self.seconds += min(at - self.since, MOST_SECONDS)
            self.since = at

    def most(self, at: float) -> float:
        """The most that `seconds` can be at that moment."""
        return self.seconds + min(max(0.0, at - self.since), 2 * MOST_SECONDS)
