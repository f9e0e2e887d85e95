"""What goes wrong, and how often. Each seed draws its own subset and its own rates.

`Faults` are rates, `swarm` draws them, `Weather` is what holds now: a storm that can be ended, and
that counts what it did, since a test of faults that did not come proves nothing. Whoever lets a
fault happen (`link`, `cluster`) asks the weather; who is hit must not know it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from kcore.chance import Chance


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities of one message, or seconds between two events on average (0: never)."""

    # A request that never arrives, an answer that never does, a request that arrives twice.
    request_lost: float = 0.0
    answer_lost: float = 0.0
    request_doubled: float = 0.0
    # A message that takes up to `late_seconds` longer.
    late: float = 0.0
    late_seconds: float = 2.0
    # A watch that ends in the middle.
    watch_broken: float = 0.0
    # A component that dies while it waits for an answer.
    dies_asking: float = 0.0
    # A call to the runtime that fails before or after it took effect.
    runtime_fails: float = 0.0
    # A write to the kernel's disk whose outcome is unknown.
    disk_fails: float = 0.0
    # Seconds between two times that one component can't reach the apiserver for a while.
    partition_seconds: float = 0.0
    # Seconds between two jumps of somebody's wall clock, by up to an hour.
    jump_seconds: float = 0.0
    # Seconds between two deaths of one component, of the kernel, of one container, of a node.
    death_seconds: float = 0.0
    kernel_death_seconds: float = 0.0
    container_death_seconds: float = 0.0
    reboot_seconds: float = 0.0
    # Seconds between two times that a node vanishes for a while, with all that runs on it.
    vanish_seconds: float = 0.0
    # How long images take to come, at most.
    pull_seconds: float = 0.0


CALM = Faults()

# What each kind of fault may be drawn from.
_WORST = Faults(
    request_lost=0.1,
    answer_lost=0.15,
    request_doubled=0.1,
    late=0.3,
    watch_broken=0.05,
    dies_asking=0.02,
    runtime_fails=0.1,
    disk_fails=0.01,
    partition_seconds=40.0,
    jump_seconds=60.0,
    death_seconds=20.0,
    kernel_death_seconds=30.0,
    container_death_seconds=30.0,
    reboot_seconds=120.0,
    vanish_seconds=90.0,
)


def swarm(chance: Chance) -> Faults:
    """About half of the kinds of faults, each at a rate of its own."""
    drawn = {}
    for field in fields(Faults):
        if field.name == "late_seconds":
            drawn[field.name] = chance.uniform(0.1, 5.0)
        elif field.name == "pull_seconds":
            drawn[field.name] = chance.uniform(5.0, 40.0) if chance.uniform(0, 1) < 0.3 else 0.0
        elif chance.uniform(0, 1) < 0.5:
            worst = getattr(_WORST, field.name)
            scale = chance.uniform(0.1, 1.0)
            # Of probabilities a part, of intervals a multiple.
            drawn[field.name] = worst / scale if field.name.endswith("_seconds") else worst * scale
    return replace(CALM, **drawn)


class Weather:
    """The faults of now."""

    def __init__(self, faults: Faults, chance: Chance, told: Callable[[str], None]) -> None:
        """`told` hears of every fault that happens."""
        self.faults = faults
        self.happened: Counter[str] = Counter()
        # Who can't reach the apiserver, and until which moment of the monotonic clock.
        self.apart: dict[str, float] = {}
        self._chance = chance
        self._told = told

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        self.faults = CALM
        self.apart.clear()

    def strikes(self, probability: float, what: str, whom: str) -> bool:
        """Whether a fault of this probability happens now; if so, it is told."""
        if not probability or self._chance.uniform(0, 1) >= probability:
            return False
        self.note(what, whom)
        return True

    def note(self, what: str, whom: str) -> None:
        """A fault has happened."""
        self.happened[what] += 1
        self._told(f"{what}: {whom}")

    def latency(self) -> float:
        """Seconds that a message takes."""
        seconds = self._chance.uniform(0.0002, 0.003)
        if self.faults.late and self._chance.uniform(0, 1) < self.faults.late:
            self.happened["late"] += 1
            seconds += self._chance.uniform(0, self.faults.late_seconds)
        return seconds

    def until(self, mean_seconds: float) -> float:
        """Seconds to the next event that comes so often on average."""
        # Evenly spread serves: what matters is that moments differ from seed to seed.
        return self._chance.uniform(0.0, 2.0 * mean_seconds)
