"""Sets of indexes as an Indexed job's status says them: "0,2-4". Pure."""

from collections.abc import Collection, Iterable


def parse(text: str, below: int | None = None) -> frozenset[int]:
    """The indexes that the text names, as far as they are less than `below`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            # Nobody but the controller writes it; what can't be read says nothing.
            continue
        end = int(last or first) + 1
        found.update(range(int(first), end if below is None else min(end, below)))
    return frozenset(found)


def text(indexes: Collection[int]) -> str:
    """The same in words, as short as it can be: from three on, a range."""
    parts: list[str] = []
    for first, last in _runs(sorted(indexes)):
        if last - first >= 2:
            parts.append(f"{first}-{last}")
        else:
            parts += [str(each) for each in range(first, last + 1)]
    return ",".join(parts)


def _runs(ordered: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for each in ordered:
        if runs and runs[-1][1] == each - 1:
            runs[-1] = runs[-1][0], each
        else:
            runs.append((each, each))
    return runs
