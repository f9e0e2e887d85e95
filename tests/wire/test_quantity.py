"""Quantities keep their value exactly and refuse all else."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.wire import quantity


@pytest.mark.parametrize(
    ("text", "value", "milli", "whole"),
    [
        ("100m", "0.1", 100, 1),
        ("0.1", "0.1", 100, 1),
        ("1", "1", 1000, 1),
        ("1e3", "1000", 1_000_000, 1000),
        ("128Mi", "134217728", 134_217_728_000, 134_217_728),
        ("129M", "129000000", 129_000_000_000, 129_000_000),
        ("1.5Gi", "1610612736", 1_610_612_736_000, 1_610_612_736),
        ("12e6", "12000000", 12_000_000_000, 12_000_000),
        ("12E6", "12000000", 12_000_000_000, 12_000_000),
        ("1E", "1000000000000000000", 10**21, 10**18),
        ("0", "0", 0, 0),
        ("-1", "-1", -1000, -1),
        ("+5", "5", 5000, 5),
        (".5", "0.5", 500, 1),
        ("5.", "5", 5000, 5),
        ("1n", "0.000000001", 1, 1),
        ("1e-3", "0.001", 1, 1),
        ("1e999999999999", "9223372036854775807", (2**63 - 1) * 1000, 2**63 - 1),
        ("1e-999999999999", "1e-100", 1, 1),
        (
            "0.1234567890123456789012345678901234567",
            "0.1234567890123456789012345678901234567",
            124,
            1,
        ),
    ],
)
def test_texts_that_are_quantities(text: str, value: str, milli: int, whole: int) -> None:
    assert quantity.parse(text) == Decimal(value)
    assert quantity.milli(text) == milli
    assert quantity.value(text) == whole


@pytest.mark.parametrize(
    "text",
    ["", " ", "1 ", " 1", "1 Gi", "Gi", "1gi", "1KI", "1ki", "1K", "1e", "1ee3", "1.2.3", "0x10",
     "NaN", "inf", "Infinity", "1_000", "--1", "1mi", "1Mi3", "١", "1\n", "9" * 101, ".", "e3"],
)  # fmt: skip
def test_texts_that_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity.parse(text)


def test_compares_by_value() -> None:
    assert quantity.compare("100m", "0.1") == 0
    assert quantity.compare("1Gi", "1G") == 1
    assert quantity.compare("999k", "1M") == -1


def test_formats_as_usual() -> None:
    assert quantity.format(Decimal("0.1")) == "100m"
    assert quantity.format(Decimal("1.5")) == "1500m"
    assert quantity.format(2) == "2"
    assert quantity.format(1000) == "1k"
    assert quantity.format(1_610_612_736, binary=True) == "1536Mi"
    assert quantity.format(1000, binary=True) == "1000"
    assert quantity.format(0) == "0"


@given(st.decimals(min_value=-(10**15), max_value=10**15, allow_nan=False, places=9), st.booleans())
def test_what_is_formatted_parses_to_the_same_value(number: Decimal, binary: bool) -> None:
    assert quantity.parse(quantity.format(number, binary=binary)) == number


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        value = quantity.parse(text)
    except ValueError:
        return
    assert quantity.milli(text) >= value * 1000 if value >= 0 else True
