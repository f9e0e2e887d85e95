"""Tables as `awk` likes them: columns three spaces apart, nothing cut, nothing wrapped."""

from collections.abc import Sequence
from typing import Final

from kcore.cli import color
from kcore.cli.session import harmless

GAP: Final = "   "


class Table:
    """Rows that come all at once or one by one; later rows keep the widths of the earlier."""

    def __init__(
        self, headers: Sequence[str], *, show_headers: bool = True, colored: bool = False
    ) -> None:
        """`headers`: of all columns. `colored`: what is good and bad may be seen at a glance."""
        self._headers = list(headers)
        self._colored = colored
        self._widths = [len(h) for h in headers] if show_headers else [0] * len(headers)
        self._headers_due = show_headers

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """The rows as text, after the headers if these are still due."""
        rows = [[_cell(cell) for cell in row] for row in rows]
        heads = [self._headers] if self._headers_due else []
        self._headers_due = False
        for row in rows:
            self._widths = [max(w, len(cell)) for w, cell in zip(self._widths, row, strict=True)]
        paint = self._painted if self._colored else self._line
        return [*map(self._line, heads), *map(paint, rows)]

    def _line(self, row: Sequence[str]) -> str:
        padded = [cell.ljust(w) for cell, w in zip(row, self._widths, strict=True)]
        return GAP.join(padded).rstrip()

    def _painted(self, row: Sequence[str]) -> str:
        cells = []
        for heading, cell, width in zip(self._headers, row, self._widths, strict=True):
            code = color.of_cell(heading, cell)
            # Spaces stay outside: they have no colour.
            shown = color.paint(cell, code) if code else cell
            cells.append(shown + " " * (width - len(cell)))
        return GAP.join(cells).rstrip()


def _cell(text: str) -> str:
    """The text on one line."""
    return text if text.isprintable() else harmless(text).replace("\n", "\\n").replace("\t", "\\t")
