"""Colour: which words of a table are good, bad or on their way.

Only whoever may write colour asks (`Session.colored`); kind-blind, it goes by heading and word.
"""

import re
from typing import Final

RED: Final = "31"
GREEN: Final = "32"
YELLOW: Final = "33"
CYAN: Final = "36"
BOLD: Final = "1"

_GOOD: Final = {"Running", "Ready", "Active", "Completed", "Complete", "Succeeded", "Bound", "True"}
_BAD: Final = re.compile(
    r"(?i).*(error|fail|backoff|evict|oomkill|notready|unknown|invalid|lost|cannot).*|False|Warning"
)
_COUNTS: Final = re.compile(r"([0-9]+)/([0-9]+)")


def paint(text: str, color: str) -> str:
    """The text in the colour."""
    return f"\x1b[{color}m{text}\x1b[0m"


def of_cell(heading: str, text: str) -> str:
    """The colour of a table's cell; "" for none."""
    if heading == "READY":
        counts = _COUNTS.fullmatch(text)
        if counts is not None:
            return GREEN if counts[1] == counts[2] else YELLOW
    elif heading not in ("STATUS", "TYPE"):
        return ""
    if _BAD.fullmatch(text):
        return RED
    if text.split(",")[0] in _GOOD:
        return GREEN
    return "" if heading == "TYPE" or text == "<none>" else YELLOW
