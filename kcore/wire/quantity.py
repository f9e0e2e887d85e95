"""Quantities: "100m", "1.5Gi", "12e6" as exact numbers.

`parse` gives the value, `milli` and `value` whole numbers rounded up (away from zero, as
Kubernetes does), `compare` orders two texts, `format` writes a number in the usual form. The user's
own text is what is stored; only comparisons go through here. Pure; knows no message.
"""

import re
from decimal import ROUND_UP, Context, Decimal
from typing import Final

# Greater amounts are taken as this one, as Kubernetes does.
MAX: Final = Decimal(2**63 - 1)

_TEXT: Final = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]+))?",
    re.ASCII,
)
_BINARY: Final = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = ("k", "M", "G", "T", "P", "E")
_FACTORS: Final[dict[str, Decimal]] = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000 ** (i + 1)) for i, suffix in enumerate(_DECIMAL)},
    **{suffix: Decimal(1024 ** (i + 1)) for i, suffix in enumerate(_BINARY)},
}
# Longest text taken; far beyond what any amount needs, short enough to stay exact and fast.
_LONGEST: Final = 100
_EXPONENT: Final = 100
_EXACT: Final = Context(prec=400, Emax=999999, Emin=-999999)


def parse(text: str) -> Decimal:
    """The exact value. ValueError if the text is no quantity."""
    found = _TEXT.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise ValueError(
            f"{text[:_LONGEST]!r} is not a quantity: expected a number such as"
            ' "100m", "0.5", "1.5Gi" or "12e6"'
        )
    number = Decimal(found["number"])
    if found["exponent"] is not None:
        exponent = max(-_EXPONENT, min(_EXPONENT, int(found["exponent"])))
        number = _EXACT.scaleb(number, exponent)
    else:
        number = _EXACT.multiply(number, _FACTORS[found["suffix"] or ""])
    return max(-MAX, min(MAX, number))


def milli(text: str) -> int:
    """The value in thousandths, rounded up: a CPU's "0.1" is 100."""
    return _whole(_EXACT.multiply(parse(text), Decimal(1000)))


def value(text: str) -> int:
    """The value, rounded up: a memory's "1Ki" is 1024, a CPU's "100m" is 1."""
    return _whole(parse(text))


def compare(left: str, right: str) -> int:
    """-1, 0 or 1 as the left is less than, equal to or greater than the right."""
    a, b = parse(left), parse(right)
    return (a > b) - (a < b)


def format(number: Decimal | int, *, binary: bool = False) -> str:
    """The shortest usual text of just this value; `binary`: with Ki, Mi, … where they fit."""
    exact = max(-MAX, min(MAX, Decimal(number)))
    if not exact:
        return "0"
    whole = exact == exact.to_integral_value()
    if not whole:
        for suffix in ("m", "u", "n"):
            scaled = _EXACT.divide(exact, _FACTORS[suffix])
            if scaled == scaled.to_integral_value() or suffix == "n":
                return f"{_whole(scaled)}{suffix}"
    amount = int(exact)
    for suffix in reversed(_BINARY if binary else _DECIMAL):
        factor = int(_FACTORS[suffix])
        if amount % factor == 0:
            return f"{amount // factor}{suffix}"
    return str(amount)


def _whole(number: Decimal) -> int:
    return int(number.to_integral_value(rounding=ROUND_UP, context=_EXACT))
