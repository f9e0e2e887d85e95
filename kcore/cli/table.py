"""Tables as `awk` likes them: columns three spaces apart, nothing cut, nothing wrapped."""

from collections.abc import Sequence
from typing import Final

from kcore.cli.session import harmless

GAP: Final = "   "


class Table:
    """Rows that come all at once or one by one; later rows keep the widths of the earlier."""

    def __init__(self, headers: Sequence[str], *, show_headers: bool = True) -> None:
        """`headers`: of all columns."""
        self._headers = list(headers)
        self._widths = [len(h) for h in headers] if show_headers else [0] * len(headers)
        self._headers_due = show_headers

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """The rows as text, after the headers if these are still due."""
        rows = [[_cell(cell) for cell in row] for row in rows]
        shown: list[Sequence[str]] = [self._headers, *rows] if self._headers_due else list(rows)
        self._headers_due = False
        for row in rows:
            self._widths = [max(w, len(cell)) for w, cell in zip(self._widths, row, strict=True)]
        return [self._line(row) for row in shown]

    def _line(self, row: Sequence[str]) -> str:
        padded = [cell.ljust(w) for cell, w in zip(row, self._widths, strict=True)]
        return GAP.join(padded).rstrip()


def _cell(text: str) -> str:
    """The text on one line."""
    return text if text.isprintable() else harmless(text).replace("\n", "\\n").replace("\t", "\\t")
