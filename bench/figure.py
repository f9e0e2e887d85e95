"""A measured figure, beside what bounds it, and the table they make."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` of kcore and `floor` of the bare thing under it, both in `unit`.

    `more_is_better` says which way the ratio reads: 1.00 is always as good as the floor.
    """

    name: str
    value: float
    unit: str
    floor_name: str
    floor: float
    more_is_better: bool = True

    @property
    def ratio(self) -> float:
        """How near to the floor; 1.00 is equal, less is worse."""
        return self.value / self.floor if self.more_is_better else self.floor / self.value


def table(figures: Iterable[Figure]) -> str:
    """The figures in Markdown."""
    lines = [
        "| what | kcore | floor or peer | its figure | ratio |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for figure in figures:
        lines.append(
            f"| {figure.name} | {_show(figure.value)} {figure.unit} | {figure.floor_name} "
            f"| {_show(figure.floor)} {figure.unit} | {figure.ratio:.2f} |"
        )
    return "\n".join(lines)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def _show(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
