"""The door to randomness.

Every room takes a `Chance`; none draws for itself. The system's draws from the kernel's entropy, a
simulation's from a seed, and `fork` gives each room a stream of its own, so that one room's draws
do not shift another's.
"""

import hashlib
import random
import secrets

# No vowels and no look-alikes, so that no name says anything.
SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"

# Of a UUID the bits that say its variant and version, and what they are in version 4.
_UUID_FIXED = 0xC000 << 48 | 0xF000 << 64
_UUID_4 = 0x8000 << 48 | 4 << 76


class Chance:
    """A stream of random values."""

    def __init__(self, seed: int | str | None = None) -> None:
        """`seed` None: from the machine's entropy; else the same seed gives the same stream."""
        self._seed = seed
        self._random: random.Random = (
            secrets.SystemRandom() if seed is None else random.Random(str(seed))
        )

    def fork(self, name: str) -> "Chance":
        """A stream of its own for `name`, decided by the seed alone."""
        if self._seed is None:
            return Chance()
        return Chance(hashlib.sha256(f"{self._seed}/{name}".encode()).hexdigest())

    def uid(self) -> str:
        """A UUID version 4."""
        # As uuid.UUID(int=…, version=4) says it, in a third of the time.
        drawn = self._random.getrandbits(128) & ~_UUID_FIXED | _UUID_4
        digits = f"{drawn:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def suffix(self, length: int = 5) -> str:
        """Letters for a generated name."""
        return "".join(self._random.choice(SAFE_ALPHABET) for _ in range(length))

    def token(self, length: int) -> str:
        """Lower-case letters and digits."""
        return "".join(
            self._random.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(length)
        )

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        return self._random.uniform(low, high)

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return self._random.randint(low, high)
