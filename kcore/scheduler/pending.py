"""The pods that wait for a node, and what each waits for.

A pod is ready (to be planned), or parked until one of its wants may be met, or until its own object
changes. `wake` makes ready whom a change may help; nobody is tried again for nothing.
It must not know nodes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kcore_api.kcore.core.v1 import pod_pb2

from kcore.scheduler.demand import Demand
from kcore.scheduler.fit import Want
from kcore.scheduler.model import Key


@dataclass(slots=True, eq=False)
class Waiting:
    """One pod that has no node."""

    key: Key
    pod: pod_pb2.Pod
    demand: Demand
    # When it came, to be fair among equals.
    arrival: int
    # Newest revision among the changes that made it ready.
    because: int
    # Parked until one of these may be met.
    wants: frozenset[Want] = field(default_factory=frozenset)
    # What has been told about it last.
    told: str = ""
    # The view must have reached this revision before it is planned.
    fence: int = 0
    # Not planned before this moment of the monotonic clock.
    not_before: float = 0.0
    failures: int = 0

    @property
    def urgency(self) -> tuple[int, int, int]:
        """Sorts the most important and oldest first."""
        return (-self.pod.spec.priority, self.pod.metadata.creation_timestamp.seconds, self.arrival)


class Pending:
    """All pods that have no node."""

    def __init__(self) -> None:
        """None yet."""
        self._all: dict[Key, Waiting] = {}
        self._ready: dict[Key, Waiting] = {}
        # The others, by demand: pods of one template wait for the same.
        self._parked: dict[Demand, dict[Key, Waiting]] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._all)

    def put(self, key: Key, pod: pod_pb2.Pod, demand: Demand, revision: int) -> None:
        """A pod is there without a node, or has changed while it waits."""
        known = self._all.get(key)
        if known is not None and known.pod.metadata.uid != pod.metadata.uid:
            self.drop(key)
            known = None
        if known is None:
            self._arrivals += 1
            known = Waiting(key, pod, demand, self._arrivals, revision)
            self._all[key] = known
            self._ready[key] = known
            return
        same = known.demand is demand and known.pod.spec.priority == pod.spec.priority
        self._unpark(known)
        known.pod, known.demand = pod, demand
        if same and known.wants and key not in self._ready:
            # Something that the scheduler does not look at, such as its own note of a refusal.
            self.park(known, known.wants)
        else:
            known.because = max(known.because, revision)
            self._ready[key] = known

    def drop(self, key: Key) -> None:
        """The pod waits no more."""
        known = self._all.pop(key, None)
        if known is not None:
            self._ready.pop(key, None)
            self._unpark(known)

    def get(self, key: Key) -> Waiting | None:
        """What is known of a pod that waits."""
        return self._all.get(key)

    def park(self, waiting: Waiting, wants: Iterable[Want] = ()) -> None:
        """It waits for one of these, or for its own object to change."""
        waiting.wants = frozenset(wants)
        self._ready.pop(waiting.key, None)
        self._parked.setdefault(waiting.demand, {})[waiting.key] = waiting

    def ready(self, waiting: Waiting) -> None:
        """It is to be planned (again)."""
        self._unpark(waiting)
        self._ready[waiting.key] = waiting

    def wake(self, wants: frozenset[Want], revision: int) -> None:
        """A change may have met these."""
        for demand in list(self._parked):
            pods = self._parked[demand]
            for waiting in [each for each in pods.values() if each.wants & wants]:
                waiting.because = max(waiting.because, revision)
                self.ready(waiting)

    def due(self, revision: int, now: float, most: int) -> list[Waiting]:
        """The pods to plan at this revision and moment, the most urgent first."""
        found = [
            waiting
            for waiting in self._ready.values()
            if waiting.fence <= revision and waiting.not_before <= now
        ]
        found.sort(key=lambda waiting: waiting.urgency)
        return found[:most]

    def next_moment(self) -> float | None:
        """When the next pod that was put off is due; None: there is none."""
        return min((each.not_before for each in self._put_off()), default=None)

    def _put_off(self) -> Iterator[Waiting]:
        return (waiting for waiting in self._ready.values() if waiting.not_before)

    def _unpark(self, waiting: Waiting) -> None:
        pods = self._parked.get(waiting.demand)
        if pods is not None and pods.pop(waiting.key, None) is not None and not pods:
            del self._parked[waiting.demand]
