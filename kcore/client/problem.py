"""A problem: what is wrong at one place of a plain value.

The place is a path from the value's root: keys of mappings, indices of lists. `text` writes it as
people know it: `spec.template.spec.containers[0].image`, `metadata.labels[app.kubernetes.io/name]`.
`nearest` finds what somebody may have meant. Pure values; knows neither files nor messages.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

Path = tuple[str | int, ...]

_WORD: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """`at_key`: the key is at fault, not what stands behind it."""

    path: Path
    message: str
    at_key: bool = False

    def __str__(self) -> str:
        return f"{text(self.path)}: {self.message}" if self.path else self.message


class Refused(Exception):
    """What people wrote can't be taken; the text says why, place by place."""

    def __init__(self, said: Sequence[str], short: Sequence[tuple[int, int, str]] = ()) -> None:
        """`said`: one text for each problem. `short`: line, column, and what is wrong there."""
        super().__init__("\n".join(said))
        self.said = tuple(said)
        self.short = tuple(short)


def text(path: Path) -> str:
    """The path as people write it."""
    said = ""
    for part in path:
        if isinstance(part, int):
            said += f"[{part}]"
        elif _WORD.fullmatch(part):
            said += f".{part}" if said else part
        else:
            said += f"[{part}]"
    return said


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, if any is."""
    # Only where something is wrong already.
    import difflib

    by_lower: dict[str, str] = {}
    for candidate in sorted(known):
        by_lower.setdefault(candidate.lower(), candidate)
    found = difflib.get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def meant(word: str, known: Iterable[str]) -> str:
    """The end of a sentence: `, did you mean "image"?`, or nothing."""
    found = nearest(word, known)
    return f', did you mean "{found}"?' if found is not None else ""
