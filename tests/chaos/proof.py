"""What a proof found: figures, and what was broken.

A run on an idle system proves nothing: each proof states floors of what must have happened, and a
floor that was missed counts as broken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Proof:
    """One promise, held against a run."""

    name: str
    promise: str
    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def count(self, what: str, number: float, at_least: float = 0) -> None:
        """A figure, and its floor."""
        self.figures[what] = f"{number:,.0f}" if number == int(number) else f"{number:,.2f}"
        if number < at_least:
            self.broken.append(f"{what}: {number:,.0f} is below the floor of {at_least:,.0f}")

    def bound(self, what: str, number: float, at_most: float, unit: str = "") -> None:
        """A figure, and its ceiling."""
        self.figures[what] = f"{number:,.2f} {unit}".strip()
        if number > at_most:
            self.broken.append(f"{what}: {number:,.2f} {unit} is above {at_most:,.2f}")

    def complain(self, what: Sequence[str]) -> None:
        """What must not be."""
        self.broken += what

    def __str__(self) -> str:
        figures = ", ".join(f"{what} {value}" for what, value in self.figures.items())
        lines = [f"{'ok  ' if not self.broken else 'FAIL'} {self.name:<4} {self.promise}"]
        lines.append(f"          {figures}")
        lines += [f"          ! {one}" for one in self.broken[:8]]
        if len(self.broken) > 8:
            lines.append(f"          ! and {len(self.broken) - 8} more")
        return "\n".join(lines)
